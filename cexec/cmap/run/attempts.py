"""All attempts of a run: what the scheduler decides becomes jobs, and their ends reach the saver.

Contract: `next_for(worker)` is a task for a worker that is free, as a `TaskRun` with everything that it needs; those
who carry it out set its `ending` and call `began` and `end`.  `handle_events` does what the scheduler says: it cancels
and recalls attempts, and gives the tasks that are over to the saver.  Observers and journal hear of all of it.
"""

from __future__ import annotations

import asyncio
import heapq
from functools import partial
from typing import TYPE_CHECKING

from cexec.cmap.results.attempt_files import latest_line
from cexec.cmap.results.collect import EndedTask
from cexec.cmap.results.commit import FinishedTask
from cexec.cmap.run.ending import NOT_BEGUN, AttemptEnding, How
from cexec.cmap.run.observer import Counts, Running
from cexec.cmap.run.scheduler_events import Cancel, Recall
from cexec.cmap.run.task_job import make_job
from cexec.cmap.run.task_run import TaskRun
from cexec.errors import LocalError
from cexec.system.units import show_count

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cexec.client.aio.known_workers import KnownWorker
    from cexec.cmap.run.parts import Parts
    from cexec.cmap.run.task_attempt import TaskAttempt


class Attempts:
    """All attempts of one run.  `wake` is called when the scheduler may have something new to say."""

    def __init__(self, parts: Parts, wake: Callable[[], None]) -> None:
        self._parts = parts
        self._wake = wake
        self._scheduler = parts.scheduler
        self._clock = parts.clock
        self._runs: dict[TaskAttempt, TaskRun] = {}
        self._slots: dict[TaskAttempt, int] = {}  # from 1, for {%}
        self._free_slots: list[int] = []  # a heap of those that were given back
        self._cancelling: set[asyncio.Task[None]] = set()
        parts.saver.saved = self._saved

    @property
    def running(self) -> list[int]:
        """The numbers of the tasks that a worker has been given."""
        return [attempt.task for attempt in self._runs]

    @property
    def begun_tasks(self) -> list[int]:
        """The numbers of those whose programs run, in ascending order."""
        return self._scheduler.running_tasks

    @property
    def waiting(self) -> int | None:
        """Counts the tasks that have not begun or are to begin again; None if their number is not known.

        Those that have not come yet do not count.
        """
        scheduler, total = self._scheduler, self._parts.total
        total = self._parts.worklist.come if total is None else total
        return None if total is None else total - self._parts.worklist.skipped - scheduler.begun + scheduler.again

    @property
    def not_done(self) -> str:
        """Says in words how many tasks are not over; empty if all are."""
        scheduler, total = self._scheduler, self._parts.total
        if scheduler.over and not scheduler.progress.halted:
            return ""
        if total is None:
            return "some tasks not done"
        left = total - self._parts.worklist.done - scheduler.succeeded - scheduler.failed
        return f"{show_count(left, 'task')} not done" if left else ""

    async def close(self) -> None:
        """Throws away what has not ended; nothing will carry it out any more."""
        for task in self._cancelling:
            task.cancel()
        await asyncio.gather(*self._cancelling, return_exceptions=True)
        for run in self._runs.values():
            run.discard()

    def next_for(self, worker: KnownWorker, *, ahead: bool = False) -> TaskRun | None:
        """Returns a task for this worker, with all that it needs; None if there is none.  `ahead`: to wait there."""
        choose = self._scheduler.next_ahead if ahead else self._scheduler.next_task
        while not self._parts.saver.full:
            attempt = choose(worker.key, self._clock())
            if attempt is None:
                return None
            run = self._prepare(attempt, worker)
            if run.job is not None:
                return run
            self.end(run)
        return None

    def _prepare(self, attempt: TaskAttempt, worker: KnownWorker) -> TaskRun:
        parts = self._parts
        task = parts.worklist.task(attempt.task)
        files = parts.files(task)
        running = Running(attempt.task, attempt.number, task.label, worker, partial(latest_line, files.outputs))
        run = self._runs[attempt] = TaskRun(attempt, task, files, running)
        claim = parts.worklist.claim(attempt.task)
        if parts.journal is not None and claim is not None:
            run.journal_row = parts.journal.begin_attempt(claim, worker.name, run.started, once=worker.once)
        if parts.live is not None:
            run.live = parts.live(task)
        try:
            given = task
            if parts.worklist.has_slots:
                given = parts.worklist.in_slot(task, self._take_slot(attempt))
            run.job = make_job(given, files, None if run.live is None else run.live.listeners, parts.program)
        except LocalError as error:
            run.ending = AttemptEnding(How.REFUSED_FOR_GOOD, str(error))
        return run

    def _take_slot(self, attempt: TaskAttempt) -> int:
        """Returns the lowest number that no other attempt has."""
        slot = heapq.heappop(self._free_slots) if self._free_slots else len(self._slots) + 1
        self._slots[attempt] = slot
        return slot

    def began(self, run: TaskRun, once: bool) -> None:
        """Says that the program runs.  `once`: its service must not run a job twice."""
        now = self._clock()
        self._scheduler.began(run.attempt, now, once=once)
        for observer in self._parts.observers:
            observer.began(run.running, now)

    def end(self, run: TaskRun) -> None:
        """Says that the attempt is over; the scheduler knows what that means for its task."""
        assert run.ending is not None
        now = self._clock()
        run.add_last_words()
        del self._runs[run.attempt]
        if run.attempt in self._slots:
            heapq.heappush(self._free_slots, self._slots.pop(run.attempt))
        run.end()
        once = run.lease is not None and run.lease.once
        ending = run.ending = self._scheduler.ended(run.attempt, run.ending, now, once=once)
        if self._parts.journal is not None and run.journal_row:
            ended = run.started + now - run.attempt.started
            begun = ending.how not in NOT_BEGUN
            self._parts.journal.end_attempt(run.journal_row, ending.reason, ended, begun=begun, cpu=ending.cpu)
        for observer in self._parts.observers:
            observer.ended(run.running, ending, run.received, now)
        if not self.handle_events(run):
            run.discard()
        self._wake()

    def handle_events(self, ended: TaskRun | None = None) -> bool:
        """Does what the scheduler says; returns True if the attempt that has ended counts for its task."""
        counts = False
        while (event := self._scheduler.next_event()) is not None:
            if isinstance(event, Cancel):
                sequence = self._parts.sequence if event.began else ()
                task = asyncio.create_task(self._runs[event.attempt].cancel(sequence))
                self._cancelling.add(task)
                task.add_done_callback(self._cancelling.discard)
            elif isinstance(event, Recall):
                self._runs[event.attempt].recall()
            elif ended is not None and event.attempt is ended.attempt:
                counts = True
                self._settle(ended, event.reason)
        return counts

    def _settle(self, run: TaskRun, reason: str) -> None:
        assert run.ending is not None
        worklist = self._parts.worklist
        outcome = run.outcome(run.ending, reason, partial(worklist.command, run.task))
        claim = worklist.claim(run.task.number)
        worklist.close(run.task.number)
        self._parts.saver.put(FinishedTask(EndedTask(run.task, outcome, run.files.outputs), run.files, claim))

    def _saved(self, ended: EndedTask) -> None:
        now = self._clock()
        for observer in self._parts.observers:
            observer.settled(ended.task, ended.outcome, now)
        self._wake()

    def tell_counts(self, leases: Mapping[str, int]) -> None:
        """Tells the observers how the run stands; `leases` by worker's name."""
        scheduler, worklist = self._scheduler, self._parts.worklist
        counts = Counts(
            total=self._parts.total,
            waiting=self.waiting,
            running=scheduler.running,
            succeeded=scheduler.succeeded,
            failed=scheduler.failed,
            done=worklist.done,
            succeeded_before=worklist.succeeded_before,
            failed_before=worklist.failed_before,
            leases=leases,
            median=scheduler.median.value,
            paused=scheduler.progress.paused,
        )
        now = self._clock()
        for observer in self._parts.observers:
            observer.counted(counts, now)
