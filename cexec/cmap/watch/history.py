"""The history of a run, for displays and reports: what each worker and each slot did, and the tasks that failed.

Contract: an `Observer` that only remembers; displays, statistics and the report read it.  Its memory is bounded by the
number of workers and by the constants below, not by the number of tasks: what was short and went well is told together
with its neighbours.  Times are seconds since `opened`.

While the run is paused, programs that were running end one by one.  A pause therefore costs the whole time only when
nothing runs any more.  The rate leaves out what pauses have cost, so that it does not fall while nobody works.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cexec.cmap.run.ending import NOT_BEGUN, How
from cexec.cmap.run.observer import Observer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cexec.cmap.inputs.tasks import Task
    from cexec.cmap.results.outcome import TaskOutcome
    from cexec.cmap.run.ending import AttemptEnding
    from cexec.cmap.run.observer import Counts, Running

MOST_FAILURES = 1000  # (ours) that are kept with all that is known of them
MOST_SPANS = 240  # (ours) of one slot; beyond that neighbours become one
LONGEST_TEXT = 300  # characters (ours) of a label, and of a reason


class Span:
    """One attempt on a slot, or `count` neighbours that ended alike."""

    __slots__ = ("begin", "count", "end", "how", "reason", "task")

    def __init__(self, begin: float, end: float, how: How, task: int, reason: str) -> None:
        self.begin = begin
        self.end = end
        self.how = how
        self.task = task
        self.reason = reason
        self.count = 1


class Slot:
    """The attempts on one of a worker's slots, in order.  `running` has been there since `since`."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.running: Running | None = None
        self.since = 0.0

    def add(self, span: Span) -> None:
        self.spans.append(span)
        if len(self.spans) > MOST_SPANS:
            self.spans = _merged(self.spans)


class WorkerHistory:
    """One worker.  `seconds`: of the attempts that succeeded; `busy`: of all; `bytes_out`: what came back."""

    def __init__(self, name: str, slots: int) -> None:
        self.name = name
        self.limit = slots
        self.slots: list[Slot] = []
        self.counts: dict[How, int] = {}
        self.seconds = 0.0
        self.busy = 0.0
        self.bytes_out = 0

    @property
    def succeeded(self) -> int:
        return self.counts.get(How.SUCCEEDED, 0)

    @property
    def failed(self) -> int:
        return self.counts.get(How.FAILED, 0)

    @property
    def lost(self) -> int:
        """Attempts that ended with the worker's connection."""
        return self.counts.get(How.LOST, 0)

    @property
    def turned_away(self) -> int:
        """Attempts that it refused or did not begin; an offer that was taken back is nobody's fault."""
        return sum(self.counts.get(how, 0) for how in NOT_BEGUN - {How.WITHDRAWN})

    @property
    def running(self) -> int:
        return sum(slot.running is not None for slot in self.slots)

    @property
    def mean(self) -> float | None:
        """Seconds of a task that succeeded."""
        return self.seconds / self.succeeded if self.succeeded else None

    def begin(self, running: Running, since: float) -> Slot:
        slot = next((slot for slot in self.slots if slot.running is None), None)
        if slot is None:
            slot = Slot()
            self.slots.append(slot)
        slot.running, slot.since = running, since
        return slot


@dataclass(slots=True)
class Failure:
    """A task that failed.  `attempts`: how many it has had, 0 if nobody knows; `last_words`: lines of its stderr."""

    number: int
    label: str
    parameters: Mapping[str, str]
    worker: str
    reason: str
    runtime: float
    status: int
    attempts: int = 0
    last_words: Sequence[str] = ()

    @classmethod
    def of(cls, task: Task, outcome: TaskOutcome, attempts: int) -> Failure:
        return cls(
            task.number,
            task.label[:LONGEST_TEXT],
            {name: value[:LONGEST_TEXT] for name, value in task.parameters.items()},
            outcome.worker,
            outcome.reason[:LONGEST_TEXT],
            outcome.runtime,
            128 + outcome.signal if outcome.signal else outcome.exitval,
            attempts,
            outcome.last_words,
        )

    def cell(self, column: str) -> str:
        """Returns one input; what is no column of the task stands for all of them."""
        return self.parameters.get(column, self.label)


class Failures(Observer):
    """Counts the tasks that failed in this run and keeps the first MOST_FAILURES of them."""

    def __init__(self) -> None:
        self.failures: list[Failure] = []
        self.failed = 0
        self._failed_attempts: dict[int, int] = {}  # of tasks that are not over

    def ended(self, running: Running, ending: AttemptEnding, bytes_out: int, now: float) -> None:
        if ending.how is not How.SUCCEEDED:
            self._failed_attempts[running.task] = self._failed_attempts.get(running.task, 0) + 1

    def settled(self, task: Task, outcome: TaskOutcome, now: float) -> None:
        attempts = self._failed_attempts.pop(task.number, 0)
        if not outcome.succeeded:
            self.failed += 1
            if len(self.failures) < MOST_FAILURES:
                self.failures.append(Failure.of(task, outcome, max(1, attempts)))


class History(Failures):
    """Keeps everything.  `counts` is the latest; `status` is None while it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.total: int | None = None
        self.workers: dict[bytes, WorkerHistory] = {}
        self.counts: Counts | None = None
        self.succeeded = 0  # in this run
        self.status: int | None = None
        self.now = 0.0
        self.idle = 0.0  # seconds that a pause has cost
        self._ran = 0  # programs when the pause began
        self._opened = 0.0
        self._slots: dict[Running, Slot] = {}

    def opened(self, total: int | None, now: float) -> None:
        self.total = total
        self._opened = now

    def began(self, running: Running, now: float) -> None:
        self._pass_time(now)
        self._slots[running] = self._worker(running).begin(running, self.now)

    def ended(self, running: Running, ending: AttemptEnding, bytes_out: int, now: float) -> None:
        super().ended(running, ending, bytes_out, now)
        self._pass_time(now)
        worker = self._worker(running)
        worker.counts[ending.how] = worker.counts.get(ending.how, 0) + 1
        worker.bytes_out += bytes_out
        slot = self._slots.pop(running, None)
        if slot is None:
            return  # it was not begun
        slot.running = None
        taken = self.now - slot.since
        worker.busy += taken
        if ending.how is How.SUCCEEDED:
            worker.seconds += taken
        slot.add(Span(slot.since, self.now, ending.how, running.task, ending.reason[:LONGEST_TEXT]))

    def settled(self, task: Task, outcome: TaskOutcome, now: float) -> None:
        self._pass_time(now)
        self.succeeded += outcome.succeeded
        super().settled(task, outcome, now)

    def counted(self, counts: Counts, now: float) -> None:
        self._pass_time(now)
        if counts.paused and not self.paused:
            self._ran = len(self._slots)
        self.counts = counts

    def closed(self, status: int, now: float) -> None:
        self._pass_time(now)
        self.status = status

    # what follows from it

    @property
    def left(self) -> int | None:
        """Tasks that are not over."""
        if self.total is None:
            return None
        return max(0, self.total - (self.counts.done if self.counts else 0) - self.succeeded - self.failed)

    @property
    def paused(self) -> bool:
        return self.counts is not None and self.counts.paused

    @property
    def rate(self) -> float:
        """Tasks a second, on the average of the run without what its pauses have cost."""
        worked = self.now - self.idle
        return (self.succeeded + self.failed) / worked if worked > 0 else 0.0

    @property
    def seconds_left(self) -> float | None:
        """Estimates the seconds that the run still takes at this rate, once it goes on; None if that is not known."""
        left, rate = self.left, self.rate
        return left / rate if left is not None and rate else None

    def ordered(self) -> list[WorkerHistory]:
        """The workers by name."""
        return sorted(self.workers.values(), key=lambda worker: worker.name)

    def _pass_time(self, now: float) -> None:
        """Adds what a pause costs: as much of the time as the part of the programs that have ended since it began."""
        before, self.now = self.now, now - self._opened
        if self.paused:
            working = min(1.0, len(self._slots) / self._ran) if self._ran else 0.0
            self.idle += max(0.0, self.now - before) * (1.0 - working)

    def _worker(self, running: Running) -> WorkerHistory:
        worker = self.workers.get(running.worker.instance)
        if worker is None:
            worker = self.workers[running.worker.instance] = WorkerHistory(running.worker.name, running.worker.slots)
        return worker


def _merged(spans: list[Span]) -> list[Span]:
    """About half as many: pairs of neighbours that ended alike become one, or any pairs where that does not help."""
    result = _merged_if(spans, lambda one, other: one.how == other.how)
    return result if len(result) <= MOST_SPANS else _merged_if(spans, lambda one, other: True)


def _merged_if(spans: list[Span], alike: Callable[[Span, Span], bool]) -> list[Span]:
    result: list[Span] = []
    whole = True  # the last one is a pair already
    for span in spans:
        if not whole and alike(result[-1], span):
            last = result[-1]
            if last.how is How.SUCCEEDED:
                last.how, last.task, last.reason = span.how, span.task, span.reason  # what went wrong is what is told
            last.end = span.end
            last.count += span.count
            whole = True
        else:
            result.append(span)
            whole = False
    return result
