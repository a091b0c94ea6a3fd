"""What clients ask of jobs that exist: to look at them, to read their outputs, and to have a say in them.

Contract: everything takes the `Caller` of who asks, and raises `Problem`: 403 for what he may not do, 404 for what
he may not see or does not exist, 409 for what comes too early or too late, 410 for what is not kept any more.
"""

from __future__ import annotations

import asyncio
import os
import time
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from cexec.gate.problem import Problem
from cexec.gate.store import job_rows
from cexec.gate.store.job_records import show_time
from cexec.gate.store.output_log import KeptOutput, OutputLog
from cexec.protocol.connection.options import SIGNALS
from cexec.system.call_threads import in_thread
from cexec.system.printable import printable
from cexec.system.units import show_duration

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cexec.gate.access.caller import Caller
    from cexec.gate.jobs.engine import Engine
    from cexec.gate.jobs.live_job import LiveJob
    from cexec.gate.store.job_records import JobRecord, PoolRecord
    from cexec.gate.store.job_rows import Filter

Output: TypeAlias = OutputLog | KeptOutput

END_PATIENCE = 5.0  # seconds (ours) until the answer to `cancel` tells the job as it is


class Desk:
    """The jobs of an engine, as clients may ask for them."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def list_jobs(self, identity: Caller, wanted: Filter) -> list[JobRecord]:
        """Returns a page of jobs, the newest first."""
        listed = await self._engine.database.read(partial(job_rows.list_jobs, wanted=wanted))
        return [one for one in listed if identity.may_see(one.app)]

    async def list_pools(self, identity: Caller, wanted: Filter) -> list[tuple[PoolRecord, list[JobRecord]]]:
        """Returns a page of pools with their jobs, the newest first."""
        pools = await self._engine.database.read(partial(job_rows.list_pools, wanted=wanted))
        return [await self._engine.pool(identity, one.id) for one in pools if identity.may_see(one.app)]

    async def wait(self, identity: Caller, id: str, seconds: float) -> JobRecord:
        """Returns the job when it is over, or after some seconds as it is then."""
        job = await self._engine.job(identity, id)
        live = self._engine.live.get(id)
        if live is None or job.over:
            return job
        await live.wait(seconds)
        return live.record

    async def wait_for_pool(self, identity: Caller, id: str, seconds: float) -> tuple[PoolRecord, list[JobRecord]]:
        """Returns the pool when all of its jobs are over, or after some seconds as it is then."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        _, jobs = await self._engine.pool(identity, id)
        for job in jobs:
            live = self._engine.live.get(job.id)
            if live is not None and not await live.wait(until - loop.time()):
                break
        return await self._engine.pool(identity, id)

    # outputs

    async def output(self, identity: Caller, id: str, stream: int) -> Output:
        """Returns the output of a job; `Problem` 410 if it was removed."""
        job = await self._engine.job(identity, id)
        live = self._engine.live.get(id)
        if live is not None:
            return live.outputs[stream]
        await self._check_kept(job)
        _, kept = await self._engine.database.read(partial(job_rows.find_output, job=id, stream=stream))
        if kept is None:
            raise await self._gone(job)
        began, size, data = kept
        return KeptOutput(self._engine.files, id, stream, began, size, data)

    async def file(self, identity: Caller, id: str, name: str) -> str:
        """Returns the path of a file that a job has brought back."""
        job = await self._engine.job(identity, id)
        if not job.over:
            raise Problem(409, "files come back when the job is over", state=job.state.value)
        if name not in job.files:
            known = ", ".join(job.files) or "none"
            raise Problem(404, f"the job has brought no file {printable(name)} back; its files: {known}")
        await self._check_kept(job)
        path = self._engine.files.fetched(id, job.files[name])
        if not os.path.exists(path):
            raise await self._gone(job)
        return path

    async def _check_kept(self, job: JobRecord) -> None:
        at = await self._expiry(job)
        if at is not None and (job.expired is not None or at <= time.time()):
            raise await self._gone(job)

    async def _gone(self, job: JobRecord) -> Problem:
        at = await self._expiry(job)
        kept = self._engine.settings.retention
        return Problem(
            410, f"outputs are kept for {show_duration(kept)} after the end of the job or its pool; "
                 f"these were removed at {show_time(at)}", expired=show_time(at),
        )  # fmt: skip

    async def _expiry(self, job: JobRecord) -> float | None:
        """Returns when the outputs of a job are removed, or were."""
        if job.expired is not None:
            return job.expired
        ended = job.ended
        if job.pool is not None and ended is not None:
            found = await self._engine.database.read(partial(job_rows.find_pool, pool=job.pool))
            ended = None if found is None else found[0].ended
        return None if ended is None else ended + self._engine.settings.retention

    # a say

    async def owned(self, identity: Caller, id: str) -> tuple[JobRecord, LiveJob | None]:
        """Returns a job in which the token has a say, and its live part if it is not over."""
        job = await self._engine.job(identity, id)
        if not identity.owns(job.owner):
            raise Problem(403, f"the job belongs to {job.owner}; only that token, or an admin, has a say in it")
        return job, self._engine.live.get(id)

    async def running(self, identity: Caller, id: str) -> LiveJob:
        """As `owned`, for a job that is not over; `Problem` 409 for one that is."""
        job, live = await self.owned(identity, id)
        if live is None or job.over:
            raise Problem(409, f"the job is over: {job.state.value}", state=job.state.value)
        return live

    async def cancel(self, identity: Caller, id: str) -> JobRecord:
        """Ends a job, with everything that its program has started; returns it as it then is."""
        live = await self.running(identity, id)
        self._engine.cancel(live, reason=f"the job was cancelled by {identity.name}")
        await live.wait(END_PATIENCE)
        return live.record

    async def signal(self, identity: Caller, id: str, name: str) -> JobRecord:
        """Sends a signal to the program of a job, as soon as it runs."""
        number = signal_number(name)
        live = await self.running(identity, id)
        live.errand.send(number)
        return live.record

    async def delete(self, identity: Caller, id: str) -> None:
        """Forgets a job that is over, with its outputs."""
        job, live = await self.owned(identity, id)
        if live is not None or not job.over:
            raise Problem(409, "the job is not over: cancel it first", state=job.state.value)
        await self._engine.database.write(partial(job_rows.delete_job, job=id))
        await in_thread(self._engine.files.remove_job, id)

    async def kill(
        self, identity: Caller, id: str | int, workers: Iterable[str] | None
    ) -> tuple[PoolRecord, list[JobRecord]]:
        """Ends the jobs of a pool at the workers that are named, or all; `Problem` 404 if one is not of the pool."""
        pool, jobs = await self._engine.pool(identity, id)
        if not identity.owns(pool.owner):
            raise Problem(403, f"the pool belongs to {pool.owner}; only that token, or an admin, has a say in it")
        chosen = jobs if workers is None else [job for one in workers for job in self._at(pool, jobs, one)]
        ended = [live for job in chosen if (live := self._engine.live.get(job.id)) is not None]
        for live in ended:
            self._engine.cancel(live, reason=f"the job was cancelled by {identity.name}")
        await asyncio.gather(*(live.wait(END_PATIENCE) for live in ended))
        return await self._engine.pool(identity, pool.id)

    def _at(self, pool: PoolRecord, jobs: list[JobRecord], worker: str) -> list[JobRecord]:
        found = [job for job in jobs if is_at(job, worker)]
        if not found:
            raise Problem(404, f"no job of the pool is at a worker {printable(worker)}; nothing was ended")
        return found


def is_at(job: JobRecord, worker: str) -> bool:
    """Returns True if this worker (name, name@address, address or UUID) has the job."""
    names = {job.instance}
    if job.worker is not None:
        name, _, address = job.worker.rpartition("@")
        names |= {job.worker, name, address}
    return worker in names


def signal_number(name: str) -> int:
    """Returns the protocol's number of a signal; `Problem` 422 for one that no program can be sent."""
    wanted = name.upper().removeprefix("SIG")
    for number, known in SIGNALS.items():
        if known == f"SIG{wanted}":
            return number
    names = ", ".join(SIGNALS.values())
    raise Problem(422, f"{printable(name)} cannot be sent to a job: {names} can, and cancel ends it for certain")
