"""Loss of power while cmap runs: what it has said to be done is there, and --resume does the rest exactly once.

The journal, the results, the table and the joblog are on a disk that loses its power (`tests.disks`).  Elsewhere are
the worker's record of what ran, and the observer's of what cmap has said to be saved.
"""

from __future__ import annotations

import csv
import io
import json
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import StartService
from tests.disks import Disk, require_loop_devices
from tests.needs import require_isolation
from tests.service import Application
from tests.waiting import wait_until

TASKS = 150  # of a short run
LONGER = 1500  # of a run of the campaign
ROUNDS = 12  # of each kind in the campaign
RUNS = 'echo "$1" >> "$RAN"; head -c "$(($1 * 37 % 9000))" /dev/zero; echo "result $1"'

# cmap itself, with an observer that writes down what it hears
CMAP = """
import os, sys
from cexec.cmap.run.observer import Observer
from cexec.commands import cmap, cmap_watch

class Told(Observer):
    def settled(self, task, outcome, now):
        os.write(told, b"%d\\n" % task.number)

told = os.open(sys.argv.pop(1), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
watch = cmap_watch.Watch.__init__

def watch_and_tell(self, *arguments):
    watch(self, *arguments)
    self.observers.append(Told())

cmap_watch.Watch.__init__ = watch_and_tell
sys.exit(cmap.main(sys.argv[1:]))
"""


# What every run that goes on does first: the end of a file that was not committed may be torn until then.
RECOVER = """
from cexec.cmap.results.journal import RESUME, Journal
Journal("state", RESUME, now=0.0).close()
"""


@dataclass(frozen=True)
class Kind:
    """Where results go: options of cmap, and the shell's path of a task's result, if it has one of its own."""

    options: tuple[str, ...]
    result: str = ""
    table: str = ""


KINDS = {
    "files": Kind(("--stdout", "out/{}.txt", "--results", "r.csv"), "out/{}.txt", "r.csv"),
    "directory": Kind(("--results", "results",), "results/{}/stdout"),
    "table": Kind(("--results", "r.jsonl"), table="r.jsonl"),
}  # fmt: skip


class Cluster:
    """A worker, a disk, and calls of cmap whose files are on that disk."""

    def __init__(self, disk: Disk, application: Application, kind: Kind, directory: Path, tasks: int) -> None:
        self.disk = disk
        self.kind = kind
        self.tasks = tasks
        self.told, self.ran = directory / "told", directory / "ran"
        self.kept: set[int] = set()  # tasks that the journal called done after a loss of power
        self._argv = [
            sys.executable, "-c", CMAP, str(self.told), "--state", "state", "--joblog", "log", *kind.options,
        ]  # fmt: skip
        self._rest = [str(application.public), "--", "{}", ":::", *map(str, range(1, tasks + 1))]
        disk.run(["mkdir", "out"])

    def start(self, *options: str) -> subprocess.Popen[str]:
        argv = [*self._argv, *options, *self._rest]
        return self.disk.popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def lines(self, path: Path) -> list[int]:
        """Whole numbers of a record, as they were written."""
        return [int(line) for line in path.read_text().splitlines()] if path.exists() else []

    def read(self, path: str) -> str | None:
        found = self.disk.run(["cat", path], check=False)
        return found.stdout if found.returncode == 0 else None

    def done(self) -> set[int]:
        """The tasks that the journal on the disk calls done."""
        query = "import sqlite3; print(*sqlite3.connect('state').execute('SELECT number FROM task WHERE state = 1'))"
        words = self.disk.run([sys.executable, "-c", query]).stdout
        return {int(word.strip("(),")) for word in words.split()}

    def results(self) -> dict[int, str]:
        """What is there of each task's own result."""
        script = 'for n; do test -e "$n" && wc -c < "$n" && tail -n 1 "$n"; done; true'
        if not self.kind.result:
            return {}
        found = {}
        for number in range(1, self.tasks + 1):
            found[number] = self.kind.result.format(number)
        lines = self.disk.run(["sh", "-c", f'n() {{ {script}; }}; for f; do echo "= $f"; n "$f"; done', "sh",
                               *found.values()]).stdout  # fmt: skip
        texts = {block.split("\n", 1)[0]: block.split("\n", 1)[1] for block in lines.split("= ")[1:]}
        return {number: texts[name] for number, name in found.items() if texts[name]}

    def rows(self) -> Counter[int]:
        """The rows of the table by task, of those whose content is right."""
        text = self.read(self.kind.table) or ""
        if self.kind.table.endswith(".csv"):
            found = [(int(row["Seq"]), row["Exitval"]) for row in csv.DictReader(io.StringIO(text))]
        else:
            found = [(row["seq"], str(row["exitval"])) for row in map(json.loads, text.splitlines())]
            wrong = [row["seq"] for row in map(json.loads, text.splitlines()) if row["stdout"] != output(row["seq"])]
            assert not wrong
        assert {status for _, status in found} <= {"0"}
        return Counter(number for number, _ in found)

    def logged(self) -> Counter[int]:
        lines = (self.read("log") or "").splitlines()[1:]
        return Counter(int(line.split("\t")[0]) for line in lines)

    def check_what_was_said(self) -> None:
        """After the disk has been mounted again: every task that cmap called saved is done and has its result."""
        said = set(self.lines(self.told))
        self.disk.run([sys.executable, "-c", RECOVER])
        done = self.done()
        self.kept |= done
        assert said <= done, f"said to be saved and not in the journal: {sorted(said - done)}"
        results = self.results()
        if self.kind.result:
            wrong = {n: results.get(n) for n in said if results.get(n) != ending(n)}
            assert not wrong, f"said to be saved and not there: {wrong}"
        if self.kind.table:
            missing = said - self.rows().keys()
            assert not missing, f"said to be saved and not in the table: {sorted(missing)}"
        assert said <= self.logged().keys()

    def runs_of_the_saved(self) -> dict[int, int]:
        """How often each task has run that was said to be saved."""
        ran = Counter(self.lines(self.ran))
        return {number: ran[number] for number in self.lines(self.told)}

    def check_the_end(self, before: dict[int, int]) -> None:
        """After --resume: each task is there exactly once.  What was said to be saved before has not run again.

        The power may be lost when tasks are saved and cmap has not said so yet; no later run says it of them.
        """
        every = set(range(1, self.tasks + 1))
        assert self.done() == every
        assert self.logged() == Counter(every)
        if self.kind.result:
            assert self.results() == {number: ending(number) for number in every}
        if self.kind.table:
            assert self.rows() == Counter(every)
        told = self.lines(self.told)
        assert len(told) == len(set(told))
        assert self.kept | set(told) == every
        runs = self.runs_of_the_saved()
        again = [number for number, times in before.items() if runs[number] != times]
        assert not again, f"done, and run again: {again}"
        left = self.disk.run(["find", ".", "-name", ".cmap-*"]).stdout
        assert left == ""


def output(number: int) -> str:
    return "\0" * (number * 37 % 9000) + f"result {number}\n"


def ending(number: int) -> str:
    """What `Cluster.results` shows of a file that is whole: its size, and its last line, which begins with zeros."""
    return f"{len(output(number))}\n{output(number)}"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    require_isolation()
    require_loop_devices()
    with Disk(tmp_path) as disk:
        yield disk


def lose_power_at(cluster: Cluster, number: int, *options: str) -> int:
    """Starts a run that loses the disk when so many tasks have been said to be saved; returns its exit status."""
    process = cluster.start(*options)
    known = len(cluster.lines(cluster.told))
    wait_until(lambda: len(cluster.lines(cluster.told)) >= known + number or process.poll() is not None, pause=0.002)
    cluster.disk.lose_power()
    said = process.communicate(timeout=60)[1]
    cluster.disk.start_again()
    assert process.returncode == 0 or "cannot" in said or "a system call failed" in said, said
    return int(process.returncode)


def loses_nothing(cluster: Cluster, number: int) -> None:
    lose_power_at(cluster, number)
    before = cluster.runs_of_the_saved()
    cluster.check_what_was_said()
    process = cluster.start("--resume")
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 0, said
    cluster.check_the_end(before)


@pytest.mark.parametrize("when", ["at the end", "in the middle"])
def test_what_was_said_to_be_done_is_there_after_a_loss_of_power(
    disk: Disk, service: StartService, application: Application, tmp_path: Path, when: str
) -> None:
    service("sh", "-c", RUNS, "sh", options=["--allow-args", "-j4"], environment={"RAN": str(tmp_path / "ran")})
    cluster = Cluster(disk, application, KINDS["files"], tmp_path, TASKS)
    loses_nothing(cluster, TASKS if when == "at the end" else TASKS // 3)


def test_without_sync_a_loss_of_power_loses_results_and_a_kill_does_not(
    disk: Disk, service: StartService, application: Application, tmp_path: Path
) -> None:
    """Shows that the disk of these tests really loses what was not brought to it."""
    service("sh", "-c", RUNS, "sh", options=["--allow-args", "-j4"], environment={"RAN": str(tmp_path / "ran")})
    cluster = Cluster(disk, application, KINDS["files"], tmp_path, TASKS)
    process = cluster.start("--no-sync")
    wait_until(lambda: len(cluster.lines(cluster.told)) >= TASKS // 3)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    cluster.check_what_was_said()
    lose_power_at(cluster, TASKS, "--no-sync", "--resume")
    with pytest.raises((AssertionError, subprocess.CalledProcessError)):
        cluster.check_what_was_said()


@pytest.mark.campaign
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(ROUNDS))
def test_power_is_lost_again_and_again(
    disk: Disk, service: StartService, application: Application, tmp_path: Path, kind: str, seed: int
) -> None:
    service("sh", "-c", RUNS, "sh", options=["--allow-args", "-j8"], environment={"RAN": str(tmp_path / "ran")})
    cluster = Cluster(disk, application, KINDS[kind], tmp_path, LONGER)
    randomness = random.Random(f"{kind} {seed}")
    options: tuple[str, ...] = ()
    before: dict[int, int] = {}
    for _ in range(3):
        lose_power_at(cluster, randomness.randint(0, LONGER // 2), *options)
        before = {**cluster.runs_of_the_saved(), **before}
        cluster.check_what_was_said()
        options = ("--resume",)
    process = cluster.start("--resume")
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 0, said
    cluster.check_the_end(before)
