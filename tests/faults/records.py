"""What a row of the fault campaign leaves on disk: one directory, whose files are named here and nowhere else.

Contract: each record is a line of JSON in a file that only grows, so that a process that is killed while it writes
costs the last line only.  `append` and `read_all` are the two directions.  Times are seconds since 1970 by this
machine's clock, which all hosts of a `Lab` share.

| file | written by | content |
|---|---|---|
| `in/ID` | the load | standard input of a job |
| `out/ID` | the client | standard output of a job |
| `submitted` | the load | `Submitted` for each job, before its client starts |
| `ended` | the load | `Ended` for each client that has ended |
| `signalled` | the load | `Signalled` for each client that was sent a signal on purpose |
| `starts` | the program | `Start` for each run of the program; no part of cexec writes here |
| `logs/NAME.K` | the campaign | the lines that worker NAME wrote to stderr, in its K-th life |
| `crat.log`, `second/crat.log` | `crat --json` | the account of each logger |
| `runs/RUN.joblog` | `cmap` | the joblog of one run of `cmap` |
| `left` | the campaign | `Left` for each process or file that was there when all had ended |
| `faults` | the campaign | `Fault` for each fault; read by no check, only to measure recovery |
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

CEXEC, ALL, CMAP = "cexec", "all", "cmap"  # how a job was submitted
CAT, SUM, EXIT = "cat", "sha256sum", "exit"  # what the program does with its input
LOGGERS = (".", "second")  # the directories of their logs
_lock = threading.Lock()


@dataclass(frozen=True)
class Submitted:
    """One job, or one task of `cmap`.  `run` names the run of `cmap`; `row` is the task's number in it."""

    id: str
    way: str
    kind: str
    size: int
    status: int  # of the program
    time: float
    lane: str = ""
    run: str = ""
    row: int = 0
    pipe: bool = False  # standard output is a pipe, from which nothing can be taken back
    reads: int = -1  # the reader of standard output closes it after so many bytes, if that is not negative


@dataclass(frozen=True)
class Ended:
    """A client has ended; for `cmap` `id` is the name of the run.  `status` is negative if a signal ended it."""

    id: str
    status: int
    time: float
    said: str = ""  # the end of what it wrote to stderr


@dataclass(frozen=True)
class Signalled:
    """The client of job or run `id` was sent a signal."""

    id: str
    signal: int


@dataclass(frozen=True)
class Start:
    """The program ran for job `id`: as attempt `attempt` of the job that cexec calls `job`, at `worker`."""

    id: str
    job: str
    attempt: int
    worker: str
    time: float


@dataclass(frozen=True)
class Left:
    """A process or a file that nobody should have left."""

    what: str


@dataclass(frozen=True)
class Fault:
    """One fault, or `count` of them at once, from its begin to its end."""

    begin: float
    end: float
    count: int = 1


Record = TypeVar("Record", Submitted, Ended, Signalled, Start, Left, Fault)
FILES: dict[type[Any], str] = {
    Submitted: "submitted",
    Ended: "ended",
    Signalled: "signalled",
    Start: "starts",
    Left: "left",
    Fault: "faults",
}


def append(directory: Path, *records: Submitted | Ended | Signalled | Start | Left | Fault) -> None:
    """Adds records of one kind to their file."""
    text = "".join(json.dumps(asdict(record)) + "\n" for record in records)
    with _lock, (directory / FILES[type(records[0])]).open("a") as file:
        file.write(text)


def read_all(directory: Path, kind: type[Record]) -> list[Record]:
    """Returns all records of one kind, as they came; a last line that was cut short is none."""
    path = directory / FILES[kind]
    if not path.exists():
        return []
    return [kind(**json.loads(line)) for line in whole_lines(path.read_text())]


def whole_lines(text: str) -> Iterable[str]:
    """Returns the lines that have an end."""
    return text.splitlines() if text.endswith("\n") else text.splitlines()[:-1]
