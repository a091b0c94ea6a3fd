"""What a coordinator tells those who watch it: bars, statistics, reports.

Contract: the coordinator calls the methods of each `Observer`, from its own loop, in this order for each task:
`began` when a worker has said that the program runs, `ended` when that attempt is over (also for one that was never
`began`, because it was refused or its worker was lost before), and `settled` once, when it is known what becomes of
the task and all of it is saved; a task that was done in an earlier run is never heard of.  `opened` comes first,
`counted` about once a second, after every start and end at most, and at the end, `closed` last, whatever happens.
Calls must return at once and raise nothing.  `now` is monotonic seconds.  An observer overrides what it wants to hear.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from cexec.cmap.inputs.tasks import Task
    from cexec.cmap.results.outcome import Outcome


class Running:
    """One attempt of a task on a worker: the same object in `began` and `ended`.

    `task` is the row's number, `number` counts the task's attempts from 1.  `worker` is the worker's name for people,
    `name@address`; workers that share one (two on a host) differ in `instance`, 16 bytes.  `slots`: what it has.
    """

    __slots__ = ("address", "instance", "label", "number", "slots", "task", "worker")

    def __init__(
        self, task: int, number: int, *, worker: str, address: str, instance: bytes, slots: int, label: str
    ) -> None:
        self.task = task
        self.number = number
        self.worker = worker
        self.address = address
        self.instance = instance
        self.slots = slots
        self.label = label


class Counts:
    """How it stands.  `total` and `waiting` are None while nobody knows (--pipe); `done` were so before this run.

    `waiting`: tasks that have not been begun, or are to be begun again.  `leases` by worker's name, those that run
    nothing too.  `median`: seconds of a task that succeeded, None as long as there are too few.
    """

    __slots__ = ("done", "failed", "leases", "median", "paused", "running", "succeeded", "total", "waiting")

    def __init__(
        self,
        *,
        total: int | None,
        waiting: int | None,
        running: int,
        succeeded: int,
        failed: int,
        done: int,
        leases: Mapping[str, int],
        median: float | None,
        paused: bool,
    ) -> None:
        self.total = total
        self.waiting = waiting
        self.running = running
        self.succeeded = succeeded
        self.failed = failed
        self.done = done
        self.leases = leases
        self.median = median
        self.paused = paused


class Observer:
    """Hears nothing."""

    def opened(self, total: int | None, now: float) -> None:
        """It begins; `total` tasks, None if nobody knows."""

    def began(self, running: Running, now: float) -> None:
        """A program has been started."""

    def ended(self, running: Running, how: str, status: int, reason: str, bytes_out: int, now: float) -> None:
        """`how` is one of the scheduler's words (SUCCEEDED, FAILED, LOST, REFUSED, ...) or CANCELLED.

        `status` is the exit status, 128 + n for signal n, and -1 where there is none; `reason` is empty after a
        success; `bytes_out` is what came back.
        """

    def settled(self, task: Task, outcome: Outcome, now: float) -> None:
        """The task is over and saved; `outcome.succeeded` and `outcome.reason` say how."""

    def counted(self, counts: Counts, now: float) -> None:
        """How it stands."""

    def closed(self, status: int, now: float) -> None:
        """It is over; cmap will exit with `status`."""


CANCELLED = "cancelled"  # another attempt was faster, --halt now, or the user has ended it
