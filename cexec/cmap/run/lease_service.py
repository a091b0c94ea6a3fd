"""Carries tasks out on a lease, one after the other, until the lease is not needed any more.

Contract: `serve` is a coroutine for one lease; it carries out the task that its worker was given first and then others,
and releases the lease, or closes it when something went wrong.  While a short task runs, the worker is given the next
one in advance, so that it need not wait for us.  What cannot be read or written here ends the run.
docs/protocol.md section 4.4.
"""

from __future__ import annotations

import asyncio
from functools import partial
from math import inf
from typing import TYPE_CHECKING

from cexec.client.aio.pacing import IDLE_PATIENCE
from cexec.cmap.run.ending import AttemptEnding, How
from cexec.errors import CexecError, LocalError, RefusedError, WithdrawnError
from cexec.protocol.connection.program_offer import NONE_FITS
from cexec.system.call_threads import in_thread

if TYPE_CHECKING:
    from cexec.client.aio.known_workers import KnownWorker, KnownWorkers
    from cexec.client.aio.lease import Lease
    from cexec.client.aio.pacing import Pacing
    from cexec.cmap.run.attempts import Attempts
    from cexec.cmap.run.parts import Parts
    from cexec.cmap.run.stopper import Stopper
    from cexec.cmap.run.task_run import TaskRun

HOLD = 0.5  # seconds (ours) that a worker is kept waiting for --delay, --rate and the disk; it gives up after one
PERMANENT_PATIENCE = 2.0  # seconds (ours) after a worker has said that no other would take such a task either


class LeaseService:
    """All leases of one run."""

    def __init__(
        self, parts: Parts, attempts: Attempts, workers: KnownWorkers, pacing: Pacing, stopper: Stopper
    ) -> None:
        self._parts = parts
        self._scheduler = parts.scheduler
        self._clock = parts.clock
        self._attempts = attempts
        self._workers = workers
        self._pacing = pacing
        self._stopper = stopper
        self._serving: set[asyncio.Task[None]] = set()
        self._behind: dict[Lease, TaskRun] = {}  # that wait behind the task which their lease carries
        self._weights: dict[Lease, int] = {}  # with which each was found; its worker draws with that
        self.patience = parts.terms.times.accept or inf  # seconds while there are only workers that do not fit

    @property
    def tasks(self) -> list[asyncio.Task[None]]:
        """Those of asyncio's that serve a lease now."""
        return list(self._serving)

    def start(self, lease: Lease, worker: KnownWorker, first: TaskRun, weight: int) -> None:
        """Serves a lease beside everything else.  `weight` is that of the announcement which has found it."""
        self._weights[lease] = weight
        serving = asyncio.create_task(self._serve(lease, worker, first))
        first.owner = serving
        self._serving.add(serving)
        serving.add_done_callback(self._serving.discard)
        self._stopper.watch(serving)

    async def _serve(self, lease: Lease, worker: KnownWorker, first: TaskRun) -> None:
        worker.leases += 1
        good = False
        run: TaskRun | None = first
        try:
            while run is not None:
                good = False
                if not await self._perform(lease, worker, run):
                    self._lose(lease)
                    return
                good = True
                run = await self._following(lease, worker, run.owner)
        finally:
            del self._weights[lease]
            worker.leases -= 1
            worker.met = self._clock()
            if good:
                lease.release()
            else:
                lease.close()

    async def _following(self, lease: Lease, worker: KnownWorker, owner: asyncio.Task[None] | None) -> TaskRun | None:
        """Returns what this lease runs next, when it has its turn; None: the lease is not needed any more."""
        behind = self._behind.get(lease)
        if behind is not None:
            del self._behind[lease]
            self._scheduler.turn_came(behind.attempt)
            behind.turn_came()
            behind.owner = owner
            return await self._give_behind(lease, behind)
        if not self._useful(lease) or self._pacing.contended(self._clock()):
            return None
        if await lease.offered(IDLE_PATIENCE):
            return await self._give(lease, worker, owner)
        if self._useful(lease):
            self._pacing.waited_in_vain(self._clock())
        return None

    def _useful(self, lease: Lease) -> bool:
        if self._weights[lease] != self._parts.terms.target.weight:
            return False  # another lease of this worker will have the weight that the user wants now
        return self._scheduler.wants_workers(self._clock()) and not lease.over and self._stopper.error is None

    def _advance(self, lease: Lease, worker: KnownWorker) -> None:
        """Gives the lease's worker a task in advance, if there is one for it."""
        if lease in self._behind or not self._useful(lease) or self._pacing.contended(self._clock()):
            return
        run = self._attempts.next_for(worker, ahead=True)
        if run is None:
            return
        assert run.job is not None
        run.lease = lease
        self._behind[lease] = run
        lease.give_ahead(run.job, run.attempt.number)  # if that is not possible, it waits here

    async def _give_behind(self, lease: Lease, run: TaskRun) -> TaskRun | None:
        """Returns the task that has waited behind another one, once the worker has it."""
        assert run.job is not None
        if lease.has(run.job):
            return run
        if not _stays_here(run) and await lease.offered(IDLE_PATIENCE) and not _stays_here(run):
            lease.give(run.job.go(run.attempt.number))
            return run
        run.ending, in_vain = AttemptEnding(How.WITHDRAWN, "its turn did not come"), not _stays_here(run)
        self._attempts.end(run)
        if in_vain:
            self._pacing.waited_in_vain(self._clock())
        return None

    def _lose(self, lease: Lease) -> None:
        """The lease has ended while a task waited behind another one."""
        run = self._behind.pop(lease, None)
        if run is None or self._stopper.error is not None:
            return
        assert run.job is not None
        if not lease.has(run.job) or lease.was_returned(run.job):
            run.ending = AttemptEnding(How.WITHDRAWN, "the lease ended before its turn")
        else:
            run.ending = AttemptEnding(How.LOST, "its worker was lost before its turn", waited=True)
        self._attempts.end(run)

    def _begins(self, run: TaskRun, once: bool) -> None:
        self._attempts.began(run, once)
        if run.unwanted and run.owner is not None:
            run.cancelled = True
            run.owner.cancel()

    async def _give(self, lease: Lease, worker: KnownWorker, owner: asyncio.Task[None] | None) -> TaskRun | None:
        until = self._clock() + HOLD
        while (run := self._attempts.next_for(worker)) is None:
            if self._parts.saver.full:  # many tasks have ended in one moment
                if not await self._parts.saver.room(until - self._clock()):
                    return None
                continue
            due = self._scheduler.next_start()
            if not self._clock() < due < until:
                return None
            await asyncio.sleep(due - self._clock())
        assert run.job is not None
        run.owner = owner
        lease.give(run.job.go(run.attempt.number))
        return run

    async def _perform(self, lease: Lease, worker: KnownWorker, run: TaskRun) -> bool:
        """Carries out one attempt; returns True if the lease is still good."""
        assert run.job is not None
        run.lease = lease
        good, ahead = False, lease.has(run.job)
        try:
            result = await lease.run(
                run.job,
                partial(self._begins, run),
                beside=partial(self._advance, lease, worker),
                patience=IDLE_PATIENCE,
            )
            run.ending = AttemptEnding.of_exit(result, run.missing())
            if self._parts.validator is not None and run.ending.how is How.SUCCEEDED:
                run.returned = True
                self._scheduler.returned(run.attempt)
                verdict = await in_thread(self._parts.validator.check, run.task, run.files.outputs)
                verdict.output.close()
                if not verdict.accepted:
                    run.ending.reject(verdict.reason)
            good = True
        except asyncio.CancelledError:
            if not run.cancelled:
                raise
            run.ending = AttemptEnding(How.CANCELLED)
        except WithdrawnError as error:
            run.ending = AttemptEnding(How.WITHDRAWN, f"the worker took its offer back: {error}")
            if ahead and not lease.over:
                good = True  # the worker has only returned it, or we have taken it back, which has no text
                if not str(error) and not _stays_here(run):
                    self._pacing.waited_in_vain(self._clock())
        except RefusedError as error:
            unfit = error.permanent or str(error).startswith(NONE_FITS)
            run.ending = AttemptEnding(How.UNFIT if unfit else How.REFUSED, f"refused: {error}")
            if unfit:
                self._turn_away(worker, error)
            self._complain(lease, run, error)
        except LocalError as error:
            self._stopper.fail(error)
            return False
        except CexecError as error:
            run.ending = AttemptEnding(How.LOST, str(error))
            # A worker that is blamed is slow for a while; that would only delay a task that ends one after the other.
            self._complain(lease, run, error, blame=not self._scheduler.doubts(run.attempt))
            if self._workers.lost(worker):
                self._scheduler.worker_left(worker.key)
        self._attempts.end(run)
        return good

    def _turn_away(self, worker: KnownWorker, error: RefusedError) -> None:
        """Asks this worker for nothing more: it would refuse the other tasks as well."""
        if error.permanent:
            self.patience = min(self.patience, PERMANENT_PATIENCE)
        if self._workers.unfit(worker, str(error), self._clock()):
            self._scheduler.worker_left(worker.key)
            self._parts.tell(f"worker {worker.name} gets no task: {error}")

    def _complain(self, lease: Lease, run: TaskRun, error: CexecError, *, blame: bool = True) -> None:
        """Tells the loggers, and unless it is not to `blame` the worker, that an attempt has failed.

        docs/protocol.md section 5.2.
        """
        assert run.job is not None
        duration = self._clock() - run.attempt.started
        lease.complain(self._parts.terms.key, run.job, run.attempt.number, error, duration, blame=blame)


def _stays_here(run: TaskRun) -> bool:
    """True if an attempt that waits is not to begin: nobody wants it any more, or the run is paused."""
    return run.unwanted or run.recalled
