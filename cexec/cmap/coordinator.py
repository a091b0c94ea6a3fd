"""The network side of a run: searches for workers, leases of them, and the tasks that they are given.

Contract: `Coordinator.run()` returns the exit status when nothing is left to do, or raises: `NoWorkerError` when
nobody takes the tasks that are left, `LocalError` when something cannot be read or saved.  Who runs what decides the
scheduler; here it gets its workers, its attempts are carried out, and what it says of their ends is passed on to the
saver and to the observers.  docs/protocol.md sections 3.3 and 4.4.

A search is under way whenever a task waits, and up to MOST_SEARCHES while they succeed at once.  So each cmap on a
network takes part in the lottery of every worker with one search and at most KEPT idle leases (those that run
something, and those that end just now, apart), whatever it runs there, which is what makes shares follow --weight.
"""

from __future__ import annotations

import asyncio
from functools import partial
from time import monotonic

from cexec.aio import find_worker
from cexec.client_job import RefusedError
from cexec.cmap.attempt import make_job
from cexec.cmap.collect import Ended
from cexec.cmap.events import CANCELLED, Counts, Running
from cexec.cmap.policy import KILL
from cexec.cmap.runs import Run
from cexec.cmap.saver import Finished
from cexec.cmap.scheduler import FAILED, LOST, REFUSED, REFUSED_FOR_GOOD, SUCCEEDED, Cancel
from cexec.cmap.workers import Workers
from cexec.errors import CexecError, LocalError, NoWorkerError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cexec.aio import Lease, Terms
    from cexec.client_programs import ProgramPlan
    from cexec.cmap.collect import Live
    from cexec.cmap.events import Observer
    from cexec.cmap.journal import Journal
    from cexec.cmap.results import AttemptFiles
    from cexec.cmap.saver import Saver
    from cexec.cmap.scheduler import Attempt, Scheduler
    from cexec.cmap.tasks import Task
    from cexec.cmap.validate import Judge
    from cexec.cmap.workers import Worker
    from cexec.cmap.worklist import Worklist
    from cexec.protocol.frames import Go
    from cexec.protocol.hello import Hello

MOST_SEARCHES = 4  # (ours) at once
SEARCH_PATIENCE = 1.0  # seconds (ours) after which all slots seem to be taken, so one search is enough
IDLE_PATIENCE = 0.25  # seconds (ours) that a lease waits for its turn before it is looked at again
KEPT = 1  # idle leases (ours) of one worker that may wait for longer than that
HOLD = 0.5  # seconds (ours) that a worker is kept waiting for --delay and --rate; it gives up after one
TICK = 1.0  # seconds (ours) between two looks at the clock


class Parts:
    """What a coordinator is made of.

    `files` makes the outputs of an attempt, `live` what hears them as they come; `sequence` is that of --term-seq,
    `program` that of --program;
    `total` is the number of all rows, None if nobody knows.
    """

    def __init__(
        self,
        *,
        terms: Terms,
        scheduler: Scheduler,
        worklist: Worklist,
        saver: Saver,
        total: int | None,
        files: Callable[[Task], AttemptFiles],
        live: Callable[[Task], Live] | None,
        sequence: Sequence[tuple[int, float]],
        program: ProgramPlan | None = None,
        judge: Judge | None = None,
        journal: Journal | None = None,
        observers: Sequence[Observer] = (),
    ) -> None:
        self.terms = terms
        self.scheduler = scheduler
        self.worklist = worklist
        self.saver = saver
        self.total = total
        self.files = files
        self.live = live
        self.sequence = sequence
        self.program = program
        self.judge = judge
        self.journal = journal
        self.observers = observers


class Coordinator:
    """One run."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._scheduler = parts.scheduler
        self._workers = Workers()
        self._runs: dict[Attempt, Run] = {}
        self._searches: dict[asyncio.Task[None], float] = {}  # and when each began
        self._ramp = MOST_SEARCHES
        self._serving: set[asyncio.Task[None]] = set()
        self._ending: set[asyncio.Task[None]] = set()  # attempts that are being cancelled
        self._failure: CexecError | None = None
        self._next_tick = 0.0
        self._woken = asyncio.Event()
        parts.saver.saved = self._saved

    async def run(self) -> int:
        """All tasks."""
        for observer in self._parts.observers:
            observer.opened(self._parts.total, monotonic())
        saving = asyncio.create_task(self._parts.saver.run())
        saving.add_done_callback(lambda _: self._woken.set())
        try:
            while not self._scheduler.over and not saving.done():
                self._woken.clear()
                now = monotonic()
                self._follow(now)
                await self._wait(now)
            self._parts.saver.close()
            await saving
            self._raise_failure()
            return self._scheduler.exit_status()
        finally:
            await self._stop(saving)

    # the user

    def stop(self, *, end_running: bool) -> None:
        """No further task begins; perhaps those that run are ended."""
        self._scheduler.stop(end_running=end_running)
        self._handle_events()

    def pause(self) -> None:
        """No task begins until it is called again."""
        self._scheduler.paused = not self._scheduler.paused
        self._woken.set()

    @property
    def running(self) -> list[int]:
        """The numbers of tasks that have been begun and are not over."""
        return [attempt.task for attempt in self._runs]

    # the loop

    def _follow(self, now: float) -> None:
        """Does what is due."""
        self._raise_failure()
        self._scheduler.handle_timeout(now)
        self._handle_events()
        for worker in self._workers.forgotten(now):
            self._scheduler.worker_left(worker.key)
            self._end_searches(0)  # those that were turned away for its sake come at once
        self._follow_searches(now)
        if now >= self._next_tick:
            self._next_tick = now + TICK
            if self._parts.journal is not None:
                self._parts.journal.flush()  # for `cmap explain`
            self._count(now)

    async def _wait(self, now: float) -> None:
        due = self._scheduler.next_timeout(now)
        until = self._next_tick if due is None else min(due, self._next_tick)
        try:
            async with asyncio.timeout(max(0.0, until - now)):
                await self._woken.wait()
        except TimeoutError:
            pass

    def _raise_failure(self) -> None:
        failure = self._failure or self._parts.worklist.failure
        if failure is not None:
            raise failure

    def _fail(self, error: CexecError) -> None:
        self._failure = self._failure or error
        self._woken.set()

    async def _stop(self, saving: asyncio.Task[None]) -> None:
        """Nothing of ours goes on."""
        left = [*self._searches, *self._serving, *self._ending, saving]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        for run in list(self._runs.values()):
            self._discard(run)

    def close(self, status: int) -> None:
        """Tells the observers that it is over."""
        now = monotonic()
        self._count(now)
        for observer in self._parts.observers:
            observer.closed(status, now)

    def _count(self, now: float) -> None:
        scheduler, worklist = self._scheduler, self._parts.worklist
        total = self._parts.total
        counts = Counts(
            total=total,
            waiting=None if total is None else total - worklist.done - scheduler.begun + scheduler.again,
            running=scheduler.running,
            succeeded=scheduler.succeeded,
            failed=scheduler.failed,
            done=worklist.done,
            leases=self._workers.by_name(),
            median=scheduler.median.value,
            paused=scheduler.paused,
        )
        for observer in self._parts.observers:
            observer.counted(counts, now)

    # searches

    def _follow_searches(self, now: float) -> None:
        wanted = self._ramp if self._scheduler.wants_workers(now) and not self._parts.saver.full else 0
        if len(self._searches) > 1 and now >= max(self._searches.values()) + SEARCH_PATIENCE:
            self._ramp = wanted = min(wanted, 1)
        self._end_searches(wanted)
        while len(self._searches) < wanted:
            search = asyncio.create_task(self._search())
            self._searches[search] = now
            search.add_done_callback(self._search_ended)

    def _end_searches(self, but: int) -> None:
        """The oldest ones stay: workers know them."""
        for search in list(self._searches)[but:]:
            del self._searches[search]
            self._ending.add(search)
            search.cancel()

    def _search_ended(self, search: asyncio.Task[None]) -> None:
        self._searches.pop(search, None)
        self._ending.discard(search)
        self._note_end(search)

    def _note_end(self, task: asyncio.Task[None]) -> None:
        """What must not have happened ends the run."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error if isinstance(error, CexecError) else CexecError(f"internal error: {error!r}"))
        self._woken.set()

    async def _search(self) -> None:
        given: list[Run] = []

        def choose(hello: Hello, address: str) -> Go:
            self._lose(given)
            try:
                run = self._next_run(self._meet(hello, address))
            except CexecError as error:
                self._fail(error)
                raise
            if run is None or run.job is None:
                raise CexecError("there is nothing to do for this worker")
            given.append(run)
            return run.job.go(run.attempt.number)

        began = monotonic()
        try:
            lease = await find_worker(self._parts.terms, choose)
        except NoWorkerError as error:
            if not self._workers.leases and not self._scheduler.running:
                raise NoWorkerError(self._left_over(error)) from None
            return
        except asyncio.CancelledError:
            self._lose(given)
            raise
        if monotonic() < began + SEARCH_PATIENCE:
            self._ramp = min(self._ramp + 1, MOST_SEARCHES)
        run = given.pop()
        worker, _ = self._workers.meet(lease.hello, lease.address, monotonic())
        serving = asyncio.create_task(self._serve(lease, worker, run))
        self._serving.add(serving)
        run.owner = serving
        serving.add_done_callback(self._serving.discard)
        serving.add_done_callback(self._note_end)

    def _lose(self, given: list[Run]) -> None:
        """The worker was lost before it could be told."""
        for run in given:
            run.fail(REFUSED, "the worker was lost before the task began")
            self._end(run)
        given.clear()

    def _left_over(self, error: CexecError) -> str:
        parts, done = self._parts, self._scheduler.succeeded + self._scheduler.failed
        waiting = "some tasks" if parts.total is None else _count_of(parts.total - parts.worklist.done - done)
        return f"{error}; {waiting} not done" if self._workers.any_met else str(error)

    def _meet(self, hello: Hello, address: str) -> Worker:
        worker, unknown = self._workers.meet(hello, address, monotonic())
        if unknown:
            self._scheduler.worker_joined(worker.key, worker.slots)
        return worker

    # leases

    async def _serve(self, lease: Lease, worker: Worker, first: Run) -> None:
        """All tasks of one lease."""
        worker.leases += 1
        busy = True
        run: Run | None = first
        try:
            while run is not None:
                busy = True
                if not await self._perform(lease, worker, run):
                    return
                busy = False
                run = await self._following(lease, worker)
        finally:
            worker.leases -= 1
            worker.met = monotonic()
            if busy:
                lease.close()
            else:
                lease.release()

    async def _following(self, lease: Lease, worker: Worker) -> Run | None:
        """What this lease runs next, when it has its turn; None: it is not needed any more."""
        worker.idle += 1
        try:
            while self._scheduler.wants_workers(monotonic()) and not lease.over and self._failure is None:
                if await lease.offered(IDLE_PATIENCE):
                    return await self._give(lease, worker)
                if worker.idle > KEPT:
                    break
            return None
        finally:
            worker.idle -= 1

    async def _give(self, lease: Lease, worker: Worker) -> Run | None:
        run = self._next_run(worker)
        if run is None:
            due = self._scheduler.next_start()
            if not monotonic() < due < monotonic() + HOLD:
                return None
            await asyncio.sleep(due - monotonic())
            run = self._next_run(worker)
        if run is None or run.job is None:
            return None
        run.owner = asyncio.current_task()
        lease.give(run.job.go(run.attempt.number))
        return run

    def _next_run(self, worker: Worker) -> Run | None:
        """A task for this worker, with all that it needs."""
        while not self._parts.saver.full:
            attempt = self._scheduler.next_task(worker.key, monotonic())
            if attempt is None:
                return None
            run = self._prepare(attempt, worker)
            if run.job is not None:
                return run
            self._end(run)
        return None

    def _prepare(self, attempt: Attempt, worker: Worker) -> Run:
        parts = self._parts
        task = parts.worklist.task(attempt.task)
        files = parts.files(task)
        running = Running(
            attempt.task, attempt.number, worker=worker.name, address=worker.address, instance=worker.instance,
            slots=worker.slots, label=task.label,
        )  # fmt: skip
        run = self._runs[attempt] = Run(attempt, task, files, None, running)
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

    async def _perform(self, lease: Lease, worker: Worker, run: Run) -> bool:
        """One attempt; whether the lease is still good."""
        assert run.job is not None
        run.lease = lease
        good = False
        try:
            run.conclude(await lease.run(run.job, partial(self._began, run)))
            if self._parts.judge is not None and run.how == SUCCEEDED:
                verdict = await asyncio.to_thread(self._parts.judge.judge, run.task, run.files.outputs)
                verdict.output.close()
                if not verdict.accepted:
                    run.reject(verdict.reason)
            good = True
        except asyncio.CancelledError:
            if not run.cancelled:
                raise
            run.fail(CANCELLED, run.attempt.ending)
        except RefusedError as error:
            run.fail(REFUSED_FOR_GOOD if error.permanent else REFUSED, f"refused: {error}")
        except LocalError as error:
            self._fail(error)
            return False
        except CexecError as error:
            run.fail(LOST, str(error))
            if self._workers.lost(worker):
                self._scheduler.worker_left(worker.key)
        self._end(run)
        return good

    # attempts

    def _began(self, run: Run, once: bool) -> None:
        now = monotonic()
        self._scheduler.began(run.attempt, now, once=once)
        for observer in self._parts.observers:
            observer.began(run.running, now)

    def _end(self, run: Run) -> None:
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
        self._scheduler.ended(run.attempt, run.how, now, status=status, reason=run.reason)
        if not self._handle_events(run):
            self._discard(run)
        self._woken.set()

    def _discard(self, run: Run) -> None:
        if run.job is not None:
            run.job.close()
        run.files.discard()

    def _handle_events(self, ended: Run | None = None) -> bool:
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

    def _settle(self, run: Run, reason: str) -> None:
        worklist = self._parts.worklist
        outcome = run.outcome(reason, run.task.command_line(worklist.application))
        claim = worklist.claim(run.task.number)
        worklist.close(run.task.number)
        self._parts.saver.put(Finished(Ended(run.task, outcome, run.files.outputs), run.files, claim))

    def _saved(self, ended: Ended) -> None:
        now = monotonic()
        for observer in self._parts.observers:
            observer.settled(ended.task, ended.outcome, now)

    async def _cancel(self, run: Run) -> None:
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


def _count_of(tasks: int) -> str:
    return f"{tasks} task{'' if tasks == 1 else 's'}"
