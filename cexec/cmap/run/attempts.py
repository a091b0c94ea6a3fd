"""Attempts from their beginning to their end: what the scheduler decides becomes jobs, and their ends reach the saver.

Contract: `next_for(worker)` is a task for a worker that is free, as a `TaskRun` with everything that it needs; who
carries it out tells `began` and `end`.  `handle_events` does what the scheduler says: it cancels, and gives what is
over to the saver.  Observers and journal hear of all of it.
"""

from __future__ import annotations

import asyncio
from functools import partial
from time import monotonic

from cexec.cmap.results.collect import Ended
from cexec.cmap.results.saver import Finished
from cexec.cmap.run.events import CANCELLED, Counts, Running
from cexec.cmap.run.policy import KILL
from cexec.cmap.run.scheduler import FAILED, REFUSED_FOR_GOOD, SUCCEEDED, Cancel
from cexec.cmap.run.task_job import make_job
from cexec.cmap.run.task_run import TaskRun
from cexec.cmap.wording import count
from cexec.errors import LocalError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cexec.cmap.run.known_workers import KnownWorker
    from cexec.cmap.run.parts import Parts
    from cexec.cmap.run.scheduler import Attempt


class Attempts:
    """All of one run.  `wake` is called when the scheduler may have something new to say."""

    def __init__(self, parts: Parts, wake: Callable[[], None]) -> None:
        self._parts = parts
        self._wake = wake
        self._scheduler = parts.scheduler
        self._runs: dict[Attempt, TaskRun] = {}
        self._ending: set[asyncio.Task[None]] = set()  # cancel what runs
        parts.saver.saved = self._saved

    @property
    def running(self) -> list[int]:
        """The numbers of the tasks."""
        return [attempt.task for attempt in self._runs]

    @property
    def waiting(self) -> int | None:
        """How many tasks have not been begun or are to be begun again; None if nobody knows."""
        scheduler, total = self._scheduler, self._parts.total
        return None if total is None else total - self._parts.worklist.done - scheduler.begun + scheduler.again

    @property
    def not_done(self) -> str:
        """How many tasks are not over, in words; nothing if all are."""
        scheduler, total = self._scheduler, self._parts.total
        if scheduler.over and not scheduler.halted:
            return ""
        if total is None:
            return "some tasks not done"
        left = total - self._parts.worklist.done - scheduler.succeeded - scheduler.failed
        return f"{count(left, 'task')} not done" if left else ""

    async def close(self) -> None:
        """Those that have not ended never will."""
        for ending in self._ending:
            ending.cancel()
        await asyncio.gather(*self._ending, return_exceptions=True)
        for run in self._runs.values():
            self._discard(run)

    def next_for(self, worker: KnownWorker) -> TaskRun | None:
        """A task for this worker, with all that it needs."""
        while not self._parts.saver.full:
            attempt = self._scheduler.next_task(worker.key, monotonic())
            if attempt is None:
                return None
            run = self._prepare(attempt, worker)
            if run.job is not None:
                return run
            self.end(run)
        return None

    def _prepare(self, attempt: Attempt, worker: KnownWorker) -> TaskRun:
        parts = self._parts
        task = parts.worklist.task(attempt.task)
        files = parts.files(task)
        running = Running(
            attempt.task, attempt.number, worker=worker.name, address=worker.address, instance=worker.instance,
            slots=worker.slots, label=task.label,
        )  # fmt: skip
        run = self._runs[attempt] = TaskRun(attempt, task, files, None, running)
        claim = parts.worklist.claim(attempt.task)
        if parts.journal is not None and claim is not None:
            run.journal_row = parts.journal.begin_attempt(claim, worker.name, run.started)
        if parts.live is not None:
            run.live = parts.live(task)
        try:
            run.job = make_job(task, files, None if run.live is None else run.live.listeners, parts.program)
        except LocalError as error:
            run.fail(REFUSED_FOR_GOOD, str(error))
        return run

    def began(self, run: TaskRun, once: bool) -> None:
        now = monotonic()
        self._scheduler.began(run.attempt, now, once=once)
        for observer in self._parts.observers:
            observer.began(run.running, now)

    def end(self, run: TaskRun) -> None:
        """The attempt is over; what that means for its task is the scheduler's business."""
        now = monotonic()
        del self._runs[run.attempt]
        if run.live is not None:
            run.live.end()
        if run.over is not None and not run.over.done():
            run.over.set_result(None)
        if run.attempt.ending and run.how != SUCCEEDED:
            run.reason = run.attempt.ending
            run.how = FAILED if run.attempt.timed_out else CANCELLED
        if self._parts.journal is not None and run.journal_row:
            self._parts.journal.end_attempt(run.journal_row, run.reason, run.started + now - run.attempt.started)
        for observer in self._parts.observers:
            observer.ended(run.running, run.how, run.status, run.reason, run.received, now)
        status = run.status if run.status > 0 else 1
        once = run.lease is not None and run.lease.once
        self._scheduler.ended(run.attempt, run.how, now, status=status, reason=run.reason, once=once)
        if not self.handle_events(run):
            self._discard(run)
        self._wake()

    def _discard(self, run: TaskRun) -> None:
        if run.job is not None:
            run.job.close()
        run.files.discard()

    def handle_events(self, ended: TaskRun | None = None) -> bool:
        """Does what the scheduler says; whether the attempt that has ended is the one that counts for its task."""
        counts = False
        while (event := self._scheduler.next_event()) is not None:
            if isinstance(event, Cancel):
                ending = asyncio.create_task(self._cancel(self._runs[event.attempt]))
                self._ending.add(ending)
                ending.add_done_callback(self._ending.discard)
            elif ended is not None and event.attempt is ended.attempt:
                counts = True
                self._settle(ended, event.reason)
        return counts

    def _settle(self, run: TaskRun, reason: str) -> None:
        worklist = self._parts.worklist
        outcome = run.outcome(reason, partial(run.task.command_line, worklist.application))
        claim = worklist.claim(run.task.number)
        worklist.close(run.task.number)
        self._parts.saver.put(Finished(Ended(run.task, outcome, run.files.outputs), run.files, claim))

    def _saved(self, ended: Ended) -> None:
        now = monotonic()
        for observer in self._parts.observers:
            observer.settled(ended.task, ended.outcome, now)
        self._wake()

    async def _cancel(self, run: TaskRun) -> None:
        """--term-seq; who does not listen loses the connection."""
        run.over = asyncio.get_running_loop().create_future()
        for number, wait in self._parts.sequence if run.attempt.began else ():
            if run.lease is not None:
                run.lease.signal(number)
            done, _ = await asyncio.wait([run.over], timeout=wait)
            if done or number == KILL:
                break
        if not run.over.done() and run.owner is not None:
            run.cancelled = True
            run.owner.cancel()

    def tell_counts(self, leases: Mapping[str, int]) -> None:
        """Tells the observers how it stands."""
        scheduler, done, total = self._scheduler, self._parts.worklist.done, self._parts.total
        counts = Counts(
            total=total,
            waiting=self.waiting,
            running=scheduler.running,
            succeeded=scheduler.succeeded,
            failed=scheduler.failed,
            done=done,
            leases=leases,
            median=scheduler.median.value,
            paused=scheduler.paused,
        )
        now = monotonic()
        for observer in self._parts.observers:
            observer.counted(counts, now)
