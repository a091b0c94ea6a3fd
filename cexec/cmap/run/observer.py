"""Tells those who watch a run how it goes: bars, statistics, reports.

Contract: the coordinator calls the methods of each `Observer`, from its own loop, in this order for each task:
`began` when a worker has said that the program runs, `ended` when that attempt is over (also for one that was never
`began`, because it was refused or its worker was lost before), and `settled` once, when it is known what becomes of
the task and all of it is saved; a task that was done in an earlier run is never heard of.  `opened` comes first,
`counted` about once a second, after every start and end at most, and at the end, `closed` last, whatever happens.
Calls must return at once and raise nothing.  `now` is monotonic seconds.  An observer overrides what it wants to hear.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cexec.client.aio.known_workers import KnownWorker
    from cexec.cmap.inputs.tasks import Task
    from cexec.cmap.results.outcome import TaskOutcome
    from cexec.cmap.run.ending import AttemptEnding


@dataclass(slots=True, eq=False)
class Running:
    """One attempt of a task on a worker: `began` and `ended` are told the same object, which can be a key.

    `task` is the row's number, `label` its inputs, `number` counts the task's attempts from 1.  `latest()` is the last
    line that the program has written so far.
    """

    task: int
    number: int
    label: str
    worker: KnownWorker
    latest: Callable[[], str] = str


@dataclass(slots=True, kw_only=True)
class Counts:
    """Says how a run stands.  `total` and `waiting` are None while nobody knows (--pipe); `done` are not to be run,
    of which `succeeded_before` and `failed_before` have succeeded and failed in earlier runs.

    `waiting`: tasks that have not been begun, or are to be begun again.  `leases` by worker's name, also those that run
    nothing.  `median`: seconds of a task that succeeded, None as long as there are too few.
    """

    total: int | None
    waiting: int | None
    running: int
    succeeded: int
    failed: int
    done: int
    succeeded_before: int
    failed_before: int
    leases: Mapping[str, int]
    median: float | None
    paused: bool


class Observer:
    """Does nothing with what it hears."""

    def opened(self, total: int | None, now: float) -> None:
        """The run begins, with `total` tasks; None if nobody knows."""

    def began(self, running: Running, now: float) -> None:
        """A program has been started."""

    def ended(self, running: Running, ending: AttemptEnding, bytes_out: int, now: float) -> None:
        """An attempt is over; `bytes_out` have come back so far."""

    def settled(self, task: Task, outcome: TaskOutcome, now: float) -> None:
        """The task is over and saved; `outcome.succeeded` and `outcome.reason` say how."""

    def counted(self, counts: Counts, now: float) -> None:
        """The run stands like this."""

    def closed(self, status: int, now: float) -> None:
        """The run is over; cmap will exit with `status`."""
