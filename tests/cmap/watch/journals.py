"""Journals that tests write as a coordinator does.

Contract: `write_journal(path, ...)` makes one of a run that is over; `outcomes` are the last lines of standard error of
its tasks, with None for a task that is done.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cexec.cmap.results.journal import NEW, Journal, TaskClaim, TaskEnd, TaskIdentity
from cexec.cmap.results.outcome import TaskOutcome

BEGUN = 1_800_000_000.0  # seconds of the wall clock


def write_journal(
    path: Path,
    outcomes: Sequence[str | None],
    *,
    mode: str = NEW,
    begun: float = BEGUN,
    command: str = "cmap app.pub",
    task: str = "app.pub -- {}",
    worker: str = "w@x",
) -> None:
    journal = Journal(str(path), mode, now=begun, sync=False)
    journal.describe(command, "here")
    for number, said in enumerate(outcomes, 1):
        end_task(journal, number, said, at=begun + number, task=task, worker=worker)
    journal.close()


def begin_task(journal: Journal, number: int, *, at: float, worker: str = "w@x") -> tuple[TaskClaim, int]:
    """A task that was given to a worker: its claim, and the number of the attempt."""
    claim = journal.claim(TaskIdentity(number.to_bytes(8, "big"), number), f"task {number}")
    assert claim is not None
    return claim, journal.begin_attempt(claim, worker, at)


def end_task(
    journal: Journal,
    number: int,
    said: str | None,
    *,
    at: float,
    task: str = "app.pub -- {}",
    worker: str = "w@x",
    key: bytes = b"",
) -> None:
    """A task that took half a second, and a quarter of a second of processor time."""
    claim = journal.claim(TaskIdentity(key or number.to_bytes(8, "big"), number), task.format(number))
    assert claim is not None
    reason = "" if said is None else "exited with 4"
    attempt = journal.begin_attempt(claim, worker, at - 0.5)
    journal.end_attempt(attempt, reason, at, cpu=0.25)
    outcome = TaskOutcome(
        number, succeeded=said is None, command=str, worker=worker, started=at - 0.5, runtime=0.5,
        exitval=4 if said else 0, reason=reason, last_words=() if said is None else ("earlier", said),
    )  # fmt: skip
    journal.commit([TaskEnd(claim, outcome, [])])
