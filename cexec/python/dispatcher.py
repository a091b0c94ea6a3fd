"""Finds workers for the jobs of one target, and lets leases carry them out, one after the other.

Contract: `submit` takes an `Errand` and returns at once; it ends by itself.  `cancel` ends one wherever it is: a
program that runs is hung up on, and its worker ends it.  While jobs wait so do searches, as many as `Pacing` says; a
lease that is free takes the next job, and one whose job is short is given the next one in advance.  Nothing is kept
for later: without a job that waits there is no search, and a free lease is released.  `idle` is called when nothing
is left.  All methods belong to one event loop.  docs/protocol.md sections 3.3 and 4.4.
"""

from __future__ import annotations

import asyncio
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple

from cexec.client.aio.known_workers import KnownWorkers
from cexec.client.aio.pacing import IDLE_PATIENCE, SHORT, Pacing
from cexec.client.aio.worker_search import Terms, find_worker
from cexec.client.search.messages import advised
from cexec.errors import CexecError, DisconnectedError, LocalError, NoWorkerError, RefusedError, WithdrawnError
from cexec.python.waiting_errands import WaitingErrands

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import TypeAlias

    from cexec.client.aio.known_workers import KnownWorker
    from cexec.client.aio.lease import Lease
    from cexec.client.aio.lease_job import LeaseJob
    from cexec.client.aio.worker_search import Choose
    from cexec.protocol.connection.frames import Go
    from cexec.protocol.datagrams.hello import Hello
    from cexec.python.errand import Errand

    FindWorker: TypeAlias = Callable[[Terms, Choose], Awaitable[Lease]]

LEARNS = 0.2  # (ours) the share of the newest job in the mean of their durations
TICK = 0.25  # seconds (ours) between two looks at the searches while jobs wait
SHORTAGE = 1.0  # seconds (ours) until the next search after descriptors or ports have run out


class Given(NamedTuple):
    """An attempt that a worker gets.  The errand may be over while the attempt still is in its lease's hands."""

    errand: Errand
    job: LeaseJob


class Dispatcher:
    """The jobs of one target.  `known`: the workers that they have met, by instance."""

    def __init__(
        self, terms: Terms, name: str, idle: Callable[[Dispatcher], None], find: FindWorker = find_worker
    ) -> None:
        """`name`: what the user calls the key, for advice."""
        self.known = KnownWorkers()
        self._terms = terms
        self._name = name
        self._idle = idle
        self._find = find
        self._loop = asyncio.get_running_loop()
        self._errands: set[Errand] = set()  # all that are not over
        self._waiting = WaitingErrands()
        self._pacing = Pacing()
        self._searches: dict[asyncio.Task[None], float] = {}  # and when each began
        self._ending: set[asyncio.Task[None]] = set()  # searches that are not needed any more
        self._serving: dict[asyncio.Task[None], Lease] = {}
        self._behind: dict[Lease, Given] = {}  # that wait behind the job which their lease carries
        self._mean: float | None = None  # seconds that a job takes
        self._not_before = 0.0  # no search begins earlier
        self._timer: asyncio.TimerHandle | None = None
        self._called = False  # `_follow` will be called soon

    @property
    def waiting(self) -> int:
        """Counts the jobs that have not been given to a worker."""
        return len(self._waiting)

    @property
    def leases(self) -> int:
        """Counts the connections to workers that are held."""
        return len(self._serving)

    def submit(self, errand: Errand) -> None:
        """Takes a job."""
        self._errands.add(errand)
        self._waiting.add(errand)
        self._soon()

    def cancel(self, errand: Errand, error: BaseException) -> None:
        """Ends a job with this error, unless its end has come meanwhile; the connection to its worker is closed."""
        if errand.over:
            return
        lease, job = errand.lease, errand.job
        if errand.owner is not None and lease is not None and job is not None:
            if lease.conclude(job):
                errand.unwanted = error  # should that have been the loss of its worker
                return
            errand.owner.cancel()
            lease.close()
        elif lease is not None and job is not None:
            lease.take_back(job)  # it waits behind another one; should it begin all the same, it is ended
        else:
            self._waiting.discard(errand)  # or a worker is being told of it: then `_start` ends it
        self._fail(errand, error)
        self._soon()

    async def close(self, error: BaseException) -> None:
        """Ends all jobs with this error, and everything that still goes on."""
        for errand in list(self._errands):
            self.cancel(errand, error)
        if self._timer is not None:
            self._timer.cancel()
        tasks = [*self._searches, *self._ending, *self._serving]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def abandon(self) -> None:
        """Closes what a child process has of the connections after fork, so that only the parent holds them."""
        for lease in self._serving.values():
            lease.abandon()

    def _fail(self, errand: Errand, error: BaseException) -> None:
        self._errands.discard(errand)
        errand.fail(error)

    # searches

    def _soon(self) -> None:
        if not self._called:
            self._called = True
            self._loop.call_soon(self._follow)

    def _follow(self) -> None:
        """Begins and ends searches, as many as are wanted now."""
        self._called = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now = monotonic()
        self.known.forgotten(now)
        wanted = 0
        if self.waiting and now >= self._not_before:
            newest = max(self._searches.values(), default=None)
            wanted = min(self._pacing.searches(newest, now), self.waiting)
        for search in list(self._searches)[wanted:]:  # the oldest ones stay, because workers know them
            del self._searches[search]
            self._ending.add(search)
            search.cancel()
        while len(self._searches) < wanted:
            search = self._loop.create_task(self._search())
            self._searches[search] = now
            search.add_done_callback(self._search_ended)
        if self.waiting:
            self._timer = self._loop.call_later(TICK, self._follow)
        elif not self._searches and not self._ending and not self._serving:
            self._idle(self)

    def _search_ended(self, search: asyncio.Task[None]) -> None:
        unforeseen = self._searches.pop(search, None) is not None and search.cancelled()
        self._ending.discard(search)
        if unforeseen:
            return  # asyncio ends all tasks, and would not know of another one; the timer looks again if it does not
        if not search.cancelled() and (error := search.exception()) is not None:
            self._fail_all(error)  # an error of this program, which nobody else would see
        self._soon()

    async def _search(self) -> None:
        given: list[Given] = []

        def choose(hello: Hello, address: str) -> Go:
            self._return(given)
            worker, _ = self.known.meet(hello, address, monotonic())
            chosen = self._choose(worker)
            given.append(chosen)
            return _go(chosen, hello)

        began = monotonic()
        try:
            lease = await self._find(self._terms, choose)
        except NoWorkerError as error:
            self._return(given)
            if not self._serving:
                self._fail_all(type(error)(advised(error, [self._name])), before=began)
            return
        except LocalError as error:
            self._return(given)
            if not self._serving:
                self._fail_all(error)
            self._not_before = (
                monotonic() + SHORTAGE
            )  # out of descriptors, or of ports: the leases that there are do the work
            return
        except BaseException:
            self._return(given)
            raise
        now = monotonic()
        worker, _ = self.known.meet(lease.hello, lease.address, now)
        self._pacing.succeeded(began, now)
        self._start(lease, worker, given.pop())

    def _return(self, given: list[Given]) -> None:
        """Lets jobs wait again whose worker was lost before it could be told."""
        for errand, _ in given:
            if not errand.over:
                errand.discard()
                errand.attempts -= 1
                self._waiting.add_again(errand, first=True)
        given.clear()

    def _choose(self, worker: KnownWorker) -> Given:
        """Returns what this worker is to do; raises `CexecError` if there is nothing for it."""
        if worker.leases >= worker.slots:
            raise CexecError("there are enough leases of this worker")
        chosen = self._next_for(worker)
        if chosen is None:
            raise CexecError("there is nothing to do for this worker")
        return chosen

    def _next_for(self, worker: KnownWorker, *, ahead: bool = False) -> Given | None:
        """Returns a job for this worker, prepared; None if there is none.  `ahead`: to wait there."""
        while (errand := self._waiting.take(worker.instance, monotonic(), ahead=ahead)) is not None:
            try:
                return Given(errand, errand.prepare())
            except LocalError as error:
                self._fail(errand, error)
        return None

    def _fail_all(self, error: BaseException, before: float | None = None) -> None:
        """Ends the jobs that wait, or those of them that were there `before`."""
        for errand in self._waiting.take_all(before):
            self._fail(errand, error)

    # leases

    def _start(self, lease: Lease, worker: KnownWorker, first: Given) -> None:
        serving = self._loop.create_task(self._serve(lease, worker, first))
        worker.leases += 1
        self._serving[serving] = lease
        serving.add_done_callback(partial(self._served, worker))
        if first.errand.over:  # it was cancelled while its worker was told of it
            serving.cancel()
            lease.close()
        else:
            first.errand.owner, first.errand.lease = serving, lease

    def _served(self, worker: KnownWorker, serving: asyncio.Task[None]) -> None:
        worker.leases -= 1
        worker.met = monotonic()
        del self._serving[serving]
        if not serving.cancelled() and (error := serving.exception()) is not None:
            self._fail_all(error)
        self._soon()

    async def _serve(self, lease: Lease, worker: KnownWorker, first: Given) -> None:
        good = False
        given: Given | None = first
        try:
            while given is not None:
                good = False
                good = await self._perform(lease, worker, given)
                if not good:
                    return
                given = await self._following(lease, worker)
        finally:
            self._lose(lease)
            if good:
                lease.release()
            else:
                lease.close()

    async def _perform(self, lease: Lease, worker: KnownWorker, given: Given) -> bool:
        """Carries out one attempt; returns True if the lease is still good."""
        errand, job = given
        ahead, began = lease.has(job), monotonic()
        lease.on_wanted = errand.on_wanted
        try:
            result = await lease.run(
                job, partial(self._begins, given), beside=partial(self._advance, lease, worker), patience=IDLE_PATIENCE
            )
        except WithdrawnError as error:
            if ahead and not lease.over and not str(error) and not errand.over:
                self._pacing.waited_in_vain(monotonic())
            self._settle(errand, errand.over or not errand.withdrawn(lease, error))
            return ahead and not lease.over  # the worker has only returned it, or we have taken it back
        except RefusedError as error:
            self._complain(lease, given, error, began)
            self._settle(errand, errand.over or not errand.refused(lease, error))
        except LocalError as error:
            self._fail(errand, error)
        except CexecError as error:
            self._complain(lease, given, error, began)
            self.known.lost(worker)
            self._settle(errand, errand.over or not errand.lost(lease, error))
        except Exception as error:  # of this program, or of a callback: the caller gets it
            self._fail(errand, error)
        else:
            self._learn(monotonic() - (errand.began_at or began))
            self._errands.discard(errand)
            if not errand.over:
                errand.finish(result)
            return True
        return False

    def _begins(self, given: Given, once: bool) -> None:
        errand = given.errand
        if errand.over:  # it was cancelled while it waited for its turn
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            return
        assert errand.lease is not None
        errand.began(errand.lease, once)

    def _settle(self, errand: Errand, over: bool) -> None:
        """Lets a job wait for another attempt, unless it is over."""
        errand.owner = errand.lease = None
        if over:
            self._errands.discard(errand)
        elif errand.unwanted is not None:
            self._fail(errand, errand.unwanted)
        else:
            self._waiting.add_again(errand)
        self._soon()

    def _learn(self, seconds: float) -> None:
        self._mean = seconds if self._mean is None else self._mean + LEARNS * (seconds - self._mean)

    def _complain(self, lease: Lease, given: Given, error: CexecError, began: float) -> None:
        """Tells the loggers and the worker that an attempt has failed.  docs/protocol.md section 5.2."""
        lease.complain(self._terms.key, given.job, given.errand.attempts, error, monotonic() - began)

    # the next job of a lease

    async def _following(self, lease: Lease, worker: KnownWorker) -> Given | None:
        """Returns what this lease runs next, when it has its turn; None: the lease is not needed any more."""
        behind = self._behind.pop(lease, None)
        if behind is not None and (lease.has(behind.job) or not behind.errand.over):
            return await self._give_behind(lease, behind)
        if not self._useful(lease):
            return None
        if not await lease.offered(IDLE_PATIENCE):
            if self._useful(lease):
                self._pacing.waited_in_vain(monotonic())
            return None
        given = self._next_for(worker)
        return None if given is None else self._give(lease, given)

    def _useful(self, lease: Lease) -> bool:
        return self.waiting > 0 and not lease.over and not self._pacing.contended(monotonic())

    def _give(self, lease: Lease, given: Given) -> Given:
        given.errand.owner, given.errand.lease = asyncio.current_task(), lease
        lease.give(_go(given, lease.hello))
        return given

    def _advance(self, lease: Lease, worker: KnownWorker) -> None:
        """Gives the lease's worker a job in advance, if there is one for it and enough are left for the others."""
        if lease in self._behind or self._mean is None or self._mean > SHORT or not self._useful(lease):
            return
        if self.waiting <= len(self._serving) or (given := self._next_for(worker, ahead=True)) is None:
            return
        given.errand.lease = lease
        self._behind[lease] = given
        lease.give_ahead(given.job, given.errand.attempts)  # if that is not possible, it waits here

    async def _give_behind(self, lease: Lease, given: Given) -> Given | None:
        """Returns the job that has waited behind another one, once the worker has it."""
        errand = given.errand
        if lease.has(given.job):  # also if the errand is over: then it is returned, or ended as soon as it begins
            errand.owner = asyncio.current_task()
            return given
        if await lease.offered(IDLE_PATIENCE) and not errand.over:
            return self._give(lease, given)
        if not errand.over:
            self._pacing.waited_in_vain(monotonic())
            self._settle(errand, not errand.withdrawn(lease, WithdrawnError("its turn did not come")))
        return None

    def _lose(self, lease: Lease) -> None:
        """The lease has ended while a job waited behind another one."""
        behind = self._behind.pop(lease, None)
        if behind is None or behind.errand.over:
            return
        errand = behind.errand
        given = lease.has(behind.job) and not lease.was_returned(behind.job)
        if given and not errand.plan.retries:  # it may have begun
            goes_on = errand.lost(lease, DisconnectedError("the connection ended before its turn"))
        else:
            goes_on = errand.withdrawn(lease, WithdrawnError("the lease ended before its turn"))
        self._settle(errand, not goes_on)


def _go(given: Given, hello: Hello) -> Go:
    """Returns the frame that gives the job to this worker."""
    errand, job = given
    return job.go(errand.attempts, tell_wanted=errand.on_wanted is not None and hello.tells_wanted)
