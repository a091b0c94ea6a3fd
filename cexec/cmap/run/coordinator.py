"""The network side of a run: searches for workers, leases of them, and the tasks that they are given.

Contract: `Coordinator.run()` returns the exit status when nothing is left to do, or raises: `NoWorkerError` when
nobody takes the tasks that are left, `LocalError` when something cannot be read or saved.  Who runs what decides the
scheduler; here it gets its workers, its attempts are carried out, and what it says of their ends is passed on to the
saver and to the observers.  docs/protocol.md sections 3.3 and 4.4.
"""

from __future__ import annotations

import asyncio
from functools import partial
from math import inf
from time import monotonic

from cexec.client.aio.worker_search import find_worker
from cexec.cmap.run.attempts import Attempts
from cexec.cmap.run.events import CANCELLED
from cexec.cmap.run.known_workers import KnownWorkers
from cexec.cmap.run.pacing import Pacing
from cexec.cmap.run.scheduler import LOST, REFUSED, SUCCEEDED, UNFIT
from cexec.errors import CexecError, LocalError, NoWorkerError, RefusedError
from cexec.protocol.connection.program_offer import NONE_FITS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from cexec.client.aio.lease import Lease
    from cexec.cmap.run.known_workers import KnownWorker
    from cexec.cmap.run.parts import Parts
    from cexec.cmap.run.task_run import TaskRun
    from cexec.protocol.connection.frames import Go
    from cexec.protocol.datagrams.hello import Hello

IDLE_PATIENCE = 1.0  # seconds (ours) that a lease waits for its turn
HOLD = 0.5  # seconds (ours) that a worker is kept waiting for --delay and --rate; it gives up after one
SHORT_WAIT = 0.1  # seconds (ours) until the next start for which searches are not given up
PERMANENT_PATIENCE = 2.0  # seconds (ours) after a worker has said that no other would take such a task either
BREATH = 0.005  # seconds (ours) between two looks at tasks that have ended: leases find their next ones without us
TICK = 1.0  # seconds (ours) between two looks at the clock


class Coordinator:
    """One run, with its `attempts`."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._scheduler = parts.scheduler
        self._workers = KnownWorkers()
        self._pacing = Pacing()
        self._searches: dict[asyncio.Task[None], float] = {}  # and when each began
        self._serving: set[asyncio.Task[None]] = set()
        self._ending: set[asyncio.Task[None]] = set()  # searches that are not needed any more
        self._failure: CexecError | None = None
        self._patience = parts.terms.times.accept or inf  # while there are only workers that do not fit
        self._next_tick = 0.0
        self._woken = asyncio.Event()
        self.attempts = Attempts(parts, self._woken.set)
        self._told_at = -inf
        parts.terms.tell = self._tell_who_waits  # which it is for us to say

    async def run(self) -> int:
        """All tasks."""
        for observer in self._parts.observers:
            observer.opened(self._parts.total, monotonic())
        self._parts.worklist.on_arrival(partial(_tell, asyncio.get_running_loop(), self._woken.set))
        saving = asyncio.create_task(self._parts.saver.run())
        saving.add_done_callback(lambda _: self._woken.set())
        try:
            try:
                while not self._scheduler.over and not saving.done():
                    self._woken.clear()
                    now = monotonic()
                    self._follow(now)
                    await self._wait(now)
            finally:
                self._parts.saver.close()  # what is over is saved, whatever happens to the rest
                await asyncio.wait([saving])
            await saving
            self._raise_failure()
            return self._scheduler.exit_status()
        finally:
            await self._stop(saving)

    # the user

    def stop(self, *, end_running: bool) -> None:
        """No further task begins; perhaps those that run are ended."""
        self._scheduler.stop(end_running=end_running)
        self.attempts.handle_events()

    def pause(self) -> None:
        """No task begins until it is called again."""
        self._scheduler.paused = not self._scheduler.paused
        self._woken.set()

    # the loop

    def _follow(self, now: float) -> None:
        """Does what is due."""
        self._scheduler.look_again()
        self._raise_failure()
        self._scheduler.handle_timeout(now)
        self.attempts.handle_events()
        for worker in self._workers.forgotten(now):
            self._scheduler.worker_left(worker.key)
            self._end_searches(0)  # those that were turned away for its sake come at once
        self._check_fitness(self._patience, now)
        self._follow_searches(now)
        if now >= self._next_tick:
            self._next_tick = now + TICK
            if self._parts.journal is not None:
                self._parts.journal.flush()  # for `cmap explain`
            self.attempts.tell_counts(self._workers.by_name())

    def _check_fitness(self, patience: float, now: float) -> None:
        """Raises `NoWorkerError` when for so many seconds there were only workers that say that they do not fit."""
        if why := self._workers.none_fits(patience, now):
            fingerprint = self._parts.terms.key.fingerprint
            raise NoWorkerError(f"no worker of {fingerprint} fits: {why}; {self.attempts.not_done}")

    async def _wait(self, now: float) -> None:
        due = self._scheduler.next_timeout(now)
        until = self._next_tick if due is None else min(due, self._next_tick)
        try:
            async with asyncio.timeout(max(0.0, until - now)):
                await self._woken.wait()
        except TimeoutError:
            return
        if not self._scheduler.over:
            await asyncio.sleep(BREATH)

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
        await self.attempts.close()

    def close(self, status: int) -> None:
        """Tells the observers that it is over."""
        self.attempts.tell_counts(self._workers.by_name())
        for observer in self._parts.observers:
            observer.closed(status, monotonic())

    # searches

    def _follow_searches(self, now: float) -> None:
        wanted = 0
        if self._scheduler.wants_workers(now) and not self._parts.saver.full:
            wanted = self._pacing.searches(max(self._searches.values(), default=None), now)
        if (wait := self._scheduler.next_start() - now) > 0:  # who came now would be turned away
            wanted = 0 if wait > SHORT_WAIT else min(wanted, len(self._searches))
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
        given: list[TaskRun] = []

        def choose(hello: Hello, address: str) -> Go:
            self._lose(given)
            worker = self._meet(hello, address)
            if worker.leases >= self._scheduler.limit_of(worker.key):
                raise CexecError("there are enough leases of this worker")
            try:
                run = self.attempts.next_for(worker)
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
                self._check_fitness(0.0, monotonic())  # what workers have said is more than a search can hear
                raise NoWorkerError(self._left_over(error)) from None
            return
        except LocalError:
            if not self._workers.leases:
                raise
            await asyncio.sleep(TICK)  # out of descriptors, or of ports: those that there are do the work
            return
        except asyncio.CancelledError:
            self._lose(given)
            raise
        run = given.pop()
        worker, _ = self._workers.meet(lease.hello, lease.address, monotonic())
        self._pacing.succeeded(began, monotonic())
        serving = asyncio.create_task(self._serve(lease, worker, run))
        self._serving.add(serving)
        run.owner = serving
        serving.add_done_callback(self._serving.discard)
        serving.add_done_callback(self._note_end)

    def _tell_who_waits(self, text: str) -> None:
        """What a search has to say; while tasks run nobody waits for a worker, and of misfits all has been said."""
        now = monotonic()
        if now >= self._told_at + TICK and not self._workers.leases and not self._workers.none_fits(0.0, now):
            self._told_at = now
            self._parts.tell(text)

    def _lose(self, given: list[TaskRun]) -> None:
        """The worker was lost before it could be told."""
        for run in given:
            run.fail(REFUSED, "the worker was lost before the task began")
            self.attempts.end(run)
        given.clear()

    def _left_over(self, error: CexecError) -> str:
        return f"{error}; {self.attempts.not_done}" if self._workers.any_met else str(error)

    def _meet(self, hello: Hello, address: str) -> KnownWorker:
        worker, unknown = self._workers.meet(hello, address, monotonic())
        if unknown and worker.fits:
            self._scheduler.worker_joined(worker.key, worker.slots)
        return worker

    # leases

    async def _serve(self, lease: Lease, worker: KnownWorker, first: TaskRun) -> None:
        """All tasks of one lease."""
        worker.leases += 1
        busy = True
        run: TaskRun | None = first
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

    async def _following(self, lease: Lease, worker: KnownWorker) -> TaskRun | None:
        """What this lease runs next, when it has its turn; None: it is not needed any more."""
        if not self._useful(lease) or self._pacing.contended(monotonic()):
            return None
        if await lease.offered(IDLE_PATIENCE):
            return await self._give(lease, worker)
        if self._useful(lease):
            self._pacing.waited_in_vain(monotonic())
        return None

    def _useful(self, lease: Lease) -> bool:
        return self._scheduler.wants_workers(monotonic()) and not lease.over and self._failure is None

    async def _give(self, lease: Lease, worker: KnownWorker) -> TaskRun | None:
        until = monotonic() + HOLD
        while (run := self.attempts.next_for(worker)) is None:
            due = self._scheduler.next_start()
            if not monotonic() < due < until:
                return None
            await asyncio.sleep(due - monotonic())
        assert run.job is not None
        run.owner = asyncio.current_task()
        lease.give(run.job.go(run.attempt.number))
        return run

    async def _perform(self, lease: Lease, worker: KnownWorker, run: TaskRun) -> bool:
        """One attempt; whether the lease is still good."""
        assert run.job is not None
        run.lease = lease
        good = False
        try:
            run.conclude(await lease.run(run.job, partial(self.attempts.began, run)))
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
            run.fail(REFUSED, f"refused: {error}")
            if error.permanent or str(error).startswith(NONE_FITS):
                self._turn_away(worker, run, error)
            self._complain(lease, run, error)
        except LocalError as error:
            self._fail(error)
            return False
        except CexecError as error:
            run.fail(LOST, str(error))
            self._complain(lease, run, error)
            if self._workers.lost(worker):
                self._scheduler.worker_left(worker.key)
        self.attempts.end(run)
        return good

    def _turn_away(self, worker: KnownWorker, run: TaskRun, error: RefusedError) -> None:
        """It would refuse the other tasks as well, so it is asked for nothing more."""
        run.fail(UNFIT, run.reason)
        if error.permanent:
            self._patience = min(self._patience, PERMANENT_PATIENCE)
        if self._workers.unfit(worker, str(error), monotonic()):
            self._scheduler.worker_left(worker.key)
            self._parts.tell(f"worker {worker.name} gets no task: {error}")

    def _complain(self, lease: Lease, run: TaskRun, error: CexecError) -> None:
        """The loggers, and the worker, hear that an attempt has failed; docs/protocol.md section 5.2."""
        assert run.job is not None
        duration = monotonic() - run.attempt.started
        lease.complain(self._parts.terms.key, run.job, run.attempt.number, error, duration)


def _tell(loop: asyncio.AbstractEventLoop, what: Callable[[], None]) -> None:
    """From another thread; nobody may be there any more."""
    try:
        loop.call_soon_threadsafe(what)
    except RuntimeError:
        pass
