"""Everything that the checker may know of a row: what was submitted, started, committed and logged.

Contract: `gather(directory)` reads the files that records.py names, and nothing that an injector wrote.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.records import LOGGERS, Ended, Left, Signalled, Start, Submitted, read_all, whole_lines

CLOSING = ("completed", "gave up", "vanished")


@dataclass(frozen=True)
class Closing:
    """A logger's closing line for a job; `status` is None unless the job was completed."""

    job: str
    status: int | None


@dataclass(frozen=True)
class JoblogRow:
    """A line of the joblog of a run of `cmap`."""

    run: str
    row: int
    status: int
    signal: int


@dataclass
class Evidence:
    """The account of each party."""

    directory: Path
    submitted: list[Submitted] = field(default_factory=list)
    ended: list[Ended] = field(default_factory=list)
    signalled: list[Signalled] = field(default_factory=list)
    starts: list[Start] = field(default_factory=list)
    served: list[tuple[str, str]] = field(default_factory=list)  # job and worker, of each `started` in a worker's log
    closings: list[Closing] = field(default_factory=list)
    complaints: set[str] = field(default_factory=set)  # jobs of which the log says that an attempt has failed
    gaps: dict[str, int] = field(default_factory=dict)  # how many alerts of a worker did not arrive
    joblog: list[JoblogRow] = field(default_factory=list)
    left: list[Left] = field(default_factory=list)

    @property
    def untold(self) -> dict[str, set[str]]:
        """Jobs that have run and that no line of the log names, by worker; a gap may stand for them."""
        told = self.complaints | {closing.job for closing in self.closings}
        found: dict[str, set[str]] = {}
        for job, worker in (*((start.job, start.worker) for start in self.starts), *self.served):
            if job not in told:
                found.setdefault(worker, set()).add(job)
        return found

    @property
    def unaccounted(self) -> list[tuple[str, str]]:
        """Jobs and their workers of which neither a line nor a gap of their own worker tells."""
        return [
            (job, worker) for worker, jobs in self.untold.items() for job in sorted(jobs)[self.gaps.get(worker, 0) :]
        ]

    def input(self, job: str) -> Path:
        return self.directory / "in" / job

    def output(self, job: str) -> Path:
        return self.directory / "out" / job


def gather(directory: Path) -> Evidence:
    closings: list[Closing] = []
    complaints: set[str] = set()
    gaps: dict[str, int] = {}
    for logger in LOGGERS:
        _read_log(directory / logger / "crat.log", closings, complaints, gaps)
    return Evidence(
        directory,
        read_all(directory, Submitted),
        read_all(directory, Ended),
        read_all(directory, Signalled),
        read_all(directory, Start),
        list(_served(directory / "logs")),
        closings,
        complaints,
        gaps,
        [row for path in sorted((directory / "runs").glob("*.joblog")) for row in _joblog(path)],
        read_all(directory, Left),
    )


def _served(logs: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(logs.glob("*")):
        for line in path.read_text().splitlines():
            words = line.split()
            if words[1:2] == ["started"]:
                fields = dict(word.partition("=")[::2] for word in words[2:])
                yield fields["job"], path.name.partition(".")[0]


def _read_log(path: Path, closings: list[Closing], complaints: set[str], gaps: dict[str, int]) -> None:
    """Adds what one logger tells."""
    for line in whole_lines(path.read_text()) if path.exists() else ():
        event = json.loads(line)
        text = event["event"]
        if text.startswith("gap: "):
            if "worker" not in event:
                continue  # it is about alerts of strangers, or about none in particular, and accounts for no job
            worker = event["worker"].partition("@")[0]
            gaps[worker] = gaps.get(worker, 0) + event["last"] - event["first"] + 1
        elif " rats out " in text:
            complaints.add(event["job"])
        elif any(f" {word} " in text for word in CLOSING):
            closings.append(Closing(event["job"], event.get("status")))


def _joblog(path: Path) -> Iterator[JoblogRow]:
    with path.open(newline="") as file:
        for line in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
            if line["Seq"] != "Seq":
                yield JoblogRow(path.stem, int(line["Seq"]), int(line["Exitval"]), int(line["Signal"]))
