"""A run from its first search for a worker to its last result: searches, leases, and the clock.

Contract: `Coordinator.run()` returns the exit status when nothing is left to do, or raises: `NoWorkerError` when
nobody takes the tasks that are left, `LocalError` when something cannot be read or saved.  The scheduler decides which
task runs where.  The coordinator finds the workers, `LeaseService` lets them work, and `Attempts` passes what the
scheduler says of the ends on to the saver and to the observers.  docs/protocol.md section 3.3.
"""

from __future__ import annotations

import asyncio
from functools import partial
from math import inf
from typing import TYPE_CHECKING

from cexec.client.aio.known_workers import KnownWorkers
from cexec.client.aio.pacing import Pacing
from cexec.client.request import Target
from cexec.cmap.run.attempts import Attempts
from cexec.cmap.run.ending import AttemptEnding, How
from cexec.cmap.run.lease_service import LeaseService
from cexec.cmap.run.stopper import Stopper
from cexec.errors import CexecError, LocalError, NoWorkerError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cexec.client.aio.known_workers import KnownWorker
    from cexec.cmap.run.parts import Parts
    from cexec.cmap.run.run_state import RunProgress
    from cexec.cmap.run.task_run import TaskRun
    from cexec.protocol.connection.frames import Go
    from cexec.protocol.datagrams.hello import Hello

SHORT_WAIT = 0.1  # seconds (ours) until the next start for which searches are not given up
BREATH = 0.005  # seconds (ours) between two looks at tasks that have ended: leases find their next ones without us
TICK = 1.0  # seconds (ours) between two looks at the clock
STOPPED = 1.0  # seconds (ours): a wait that ends so much too late shows that this process was stopped
CATCH_UP = 1.0  # seconds (ours) after that in which everything is read that has come, before any time limit is judged


class Coordinator:
    """One run, with its `attempts`."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._scheduler = parts.scheduler
        self._clock = parts.clock
        self._woken = asyncio.Event()
        self._stopper = Stopper(self._woken.set)
        self._workers = KnownWorkers()
        self._pacing = Pacing()
        self.attempts = Attempts(parts, self._woken.set)
        self._leases = LeaseService(parts, self.attempts, self._workers, self._pacing, self._stopper)
        self._searches: dict[asyncio.Task[None], float] = {}  # and when each began
        self._ending: set[asyncio.Task[None]] = set()  # searches that are not needed any more
        self._next_tick = 0.0
        self._told_at = -inf
        self._judge_at = -inf  # when time limits count again after this process was stopped
        self._reserved = 0  # workers that run a suspect
        self._waits_for_others = False  # a task that has failed on all known workers
        parts.terms.tell = self._tell_who_waits  # the coordinator knows whether anybody waits

    async def run(self) -> int:
        """Carries out all tasks."""
        for observer in self._parts.observers:
            observer.opened(self._parts.total, self._clock())
        self._parts.worklist.on_arrival(partial(_call_from_thread, asyncio.get_running_loop(), self._woken.set))
        saving = asyncio.create_task(self._parts.saver.run())
        saving.add_done_callback(lambda _: self._woken.set())
        try:
            try:
                while not self._scheduler.over and not saving.done():
                    self._woken.clear()
                    now = self._clock()
                    self._follow(now)
                    await self._wait(now)
            finally:
                self._parts.saver.close()  # tasks that have ended are saved, also when the run fails
                await asyncio.wait([saving])
            await saving
            self._raise_failure()
            return self._scheduler.exit_status()
        finally:
            await self._stop(saving)

    # the user

    def stop(self, *, end_running: bool) -> None:
        """Lets no further task begin, and perhaps ends those that run."""
        self._scheduler.stop(end_running=end_running)
        self.attempts.handle_events()

    @property
    def progress(self) -> RunProgress:
        """Returns the state that says if further tasks begin."""
        return self._scheduler.progress

    @property
    def paused_for(self) -> float:
        """Seconds that this pause has lasted."""
        return self.progress.paused_for(self._clock())

    def pause(self) -> None:
        """Lets no task begin until the run goes on."""
        self._scheduler.pause(self._clock())
        self.attempts.handle_events()
        self._tell_at_once()

    def go_on(self) -> None:
        """Ends a pause.  Nobody was asked for work meanwhile, so the time limits of the search begin anew."""
        self._scheduler.go_on()
        self._workers.wait_again(self._clock())
        self._tell_at_once()

    @property
    def weight(self) -> int:
        """The share of the turns where several clients wait."""
        return self._parts.terms.target.weight

    def set_weight(self, weight: int) -> None:
        """Searches with another weight at once.  A lease has the old one, so it is given back after its task."""
        if weight != self.weight:
            old = self._parts.terms.target
            self._parts.terms.target = Target(old.requirements, weight, old.open_trust)
            self._end_searches(0)
            self._woken.set()

    @property
    def leases(self) -> Mapping[str, int]:
        """Counts the leases by the name of their worker."""
        return self._workers.by_name()

    def _tell_at_once(self) -> None:
        self._next_tick = 0.0
        self._woken.set()

    # the loop

    def _follow(self, now: float) -> None:
        """Does what is due."""
        self._scheduler.look_again()
        self._raise_failure()
        if now >= self._judge_at:
            self._judge_by_time(now)
        self.attempts.handle_events()
        if self._scheduler.reserved < self._reserved:
            self._end_searches(0)  # those that were turned away meanwhile come at once
        self._reserved = self._scheduler.reserved
        if self._waits_for_others and not self._scheduler.waits_for_others(now):
            self._scheduler.others_have_answered()
            self._end_searches(0)
        self._waits_for_others = self._scheduler.waits_for_others(now)
        self._follow_searches(now)
        if now >= self._next_tick:
            self._next_tick = now + TICK
            self.attempts.tell_counts(self.leases)

    def _judge_by_time(self, now: float) -> None:
        """Ends what has taken too long."""
        self._scheduler.handle_timeout(now)
        if now >= self._next_tick:  # looking at a thousand workers each time would take longer than their tasks
            for worker in self._workers.forgotten(now):
                self._scheduler.worker_left(worker.key)
                self._end_searches(0)  # those that were turned away for its sake come at once
        if not self.progress.paused:
            self._check_fitness(self._leases.patience, now)

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
        finally:
            if self._clock() > until + STOPPED:
                self._judge_at = self._clock() + CATCH_UP
        if not self._scheduler.over:
            await asyncio.sleep(BREATH)

    def _raise_failure(self) -> None:
        failure = self._stopper.error or self._parts.worklist.failure
        if failure is not None:
            raise failure

    async def _stop(self, saving: asyncio.Task[None]) -> None:
        """Ends everything that still goes on."""
        left = [*self._searches, *self._leases.tasks, *self._ending, saving]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await self.attempts.close()

    def close(self, status: int) -> None:
        """Tells the observers that the run is over."""
        self.attempts.tell_counts(self.leases)
        for observer in self._parts.observers:
            observer.closed(status, self._clock())

    # searches

    def _follow_searches(self, now: float) -> None:
        wanted = 0
        if self._scheduler.wants_workers(now) and not self._parts.saver.full:
            wanted = self._pacing.searches(max(self._searches.values(), default=None), now)
            if self._parts.total is None and (waiting := self.attempts.waiting) is not None:
                wanted = min(wanted, max(waiting, 1))  # more than that would let workers reserve slots for nothing
        if (wait := self._scheduler.next_start() - now) > 0:  # a worker that came now would be turned away
            wanted = 0 if wait > SHORT_WAIT else min(wanted, len(self._searches))
        self._end_searches(wanted)
        while len(self._searches) < wanted:
            search = asyncio.create_task(self._search())
            self._searches[search] = now
            search.add_done_callback(self._search_ended)
            self._stopper.watch(search)

    def _end_searches(self, but: int) -> None:
        """Ends all searches but so many; the oldest ones stay, because workers know them."""
        for search in list(self._searches)[but:]:
            del self._searches[search]
            self._ending.add(search)
            search.cancel()

    def _search_ended(self, search: asyncio.Task[None]) -> None:
        self._searches.pop(search, None)
        self._ending.discard(search)

    async def _search(self) -> None:
        given: list[TaskRun] = []

        def choose(hello: Hello, address: str) -> Go:
            self._lose(given)
            run = self._choose(self._meet(hello, address))
            assert run.job is not None
            given.append(run)
            return run.job.go(run.attempt.number)

        began, weight = self._clock(), self.weight
        try:
            lease = await self._parts.find_worker(self._parts.terms, choose)
        except NoWorkerError as error:
            self._lose(given)
            if not self._workers.leases and not self._scheduler.running and not self.progress.paused:
                self._check_fitness(0.0, self._clock())  # what workers have said is more than a search can hear
                raise type(error)(self._left_over(error)) from None
            return
        except LocalError:
            self._lose(given)
            if not self._workers.leases:
                raise
            await asyncio.sleep(TICK)  # out of descriptors, or of ports: the leases that there are do the work
            return
        except asyncio.CancelledError:
            self._lose(given)
            raise
        now = self._clock()
        worker, _ = self._workers.meet(lease.hello, lease.address, now)
        self._pacing.succeeded(began, now)
        self._leases.start(lease, worker, given.pop(), weight)

    def _choose(self, worker: KnownWorker) -> TaskRun:
        """Returns what this worker is to do; raises `CexecError` if there is nothing for it."""
        if worker.leases >= self._scheduler.limit_of(worker.key):
            raise CexecError("there are enough leases of this worker")
        try:
            run = self.attempts.next_for(worker)
        except CexecError as error:
            self._stopper.fail(error)
            raise
        if run is None:
            raise CexecError("there is nothing to do for this worker")
        return run

    def _meet(self, hello: Hello, address: str) -> KnownWorker:
        worker, unknown = self._workers.meet(hello, address, self._clock())
        if unknown and worker.fits:
            self._scheduler.worker_joined(worker.key, worker.slots)
        return worker

    def _lose(self, given: list[TaskRun]) -> None:
        """Ends what a worker was to do that was lost before it could be told."""
        for run in given:
            run.ending = AttemptEnding(How.WITHDRAWN, "the worker was lost before the task began")
            self.attempts.end(run)
        given.clear()

    def _tell_who_waits(self, text: str) -> None:
        """Passes on what a search says, unless tasks run, so that nobody waits, or all has been said of misfits."""
        now = self._clock()
        if now >= self._told_at + TICK and not self._workers.leases and not self._workers.none_fits(0.0, now):
            self._told_at = now
            self._parts.tell(text)

    def _left_over(self, error: CexecError) -> str:
        return f"{error}; {self.attempts.not_done}" if self._workers.any_met else str(error)


def _call_from_thread(loop: asyncio.AbstractEventLoop, function: Callable[[], None]) -> None:
    """Calls a function in the loop, which may be closed already."""
    try:
        loop.call_soon_threadsafe(function)
    except RuntimeError:
        pass
