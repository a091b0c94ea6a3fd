"""The service `cexec.v1.Cluster` on the engine of `cgate`.

Contract: each method does what proto/cexec/v1/cexec.proto says.  A method passes the `Door` before anything else.  No
method keeps `CancelledError` to itself, because gRPC leaks native memory then.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from cexec.gate.problem import Problem
from cexec.gate.rpc.exec_call import run_exec
from cexec.gate.rpc.job_messages import STREAMS, job_message, request_of, seconds_of, state_of, worker_message
from cexec.gate.rpc.output_stream import stream_output
from cexec.gate.rpc.status_codes import FieldProblems
from cexec.gate.rpc.wire import cexec_pb2 as wire
from cexec.gate.rpc.wire.cexec_pb2_grpc import ClusterServicer
from cexec.gate.rpc.worker_watch import watch_workers
from cexec.gate.store.job_rows import Filter
from cexec.system.printable import printable

if TYPE_CHECKING:
    from cexec.gate.access.caller import Caller
    from cexec.gate.jobs.application import GateApplication
    from cexec.gate.jobs.desk import Desk
    from cexec.gate.jobs.engine import Engine
    from cexec.gate.rpc.door import Door
    from cexec.gate.rpc.status_codes import Context

LONGEST_WAIT = 60.0  # seconds (ours) of one GetJob
PAGE, LARGEST_PAGE = 100, 1000  # jobs (ours)


class ClusterMethods(ClusterServicer):
    """One server's answers."""

    def __init__(self, engine: Engine, desk: Desk, door: Door) -> None:
        self._engine = engine
        self._desk = desk
        self._door = door

    async def ListWorkers(self, request: wire.ListWorkersRequest, context: Context) -> wire.ListWorkersResponse:
        answer = wire.ListWorkersResponse()

        async def work(caller: Caller, told: list[str]) -> None:
            for one in self._applications(caller, request.app):
                workers = await one.workers()
                names, now = one.names(), time.time()
                found = [worker_message(one.name, names[key], worker, now) for key, worker in workers.items()]
                answer.workers.extend(sorted(found, key=lambda worker: (worker.name, worker.worker_id)))

        await self._door.call(context, "ListWorkers", work)
        return answer

    async def WatchWorkers(self, request: wire.WatchWorkersRequest, context: Context) -> None:
        async def work(caller: Caller, told: list[str]) -> None:
            await watch_workers(self._applications(caller, request.app), context.write)

        await self._door.call(context, "WatchWorkers", work)

    async def StartJob(self, request: wire.StartJobRequest, context: Context) -> wire.StartJobResponse:
        answer = wire.StartJobResponse()

        async def work(caller: Caller, told: list[str]) -> None:
            wanted = request_of(request, self._only_application(caller))
            submission = await self._engine.submit(caller, wanted, request.idempotency_key or None)
            (job,) = submission.jobs
            if submission.fresh:
                told.append(f"job {job.id} started")
            answer.job.CopyFrom(job_message(job))

        await self._door.call(context, "StartJob", work, changes=True)
        return answer

    async def StopJob(self, request: wire.StopJobRequest, context: Context) -> wire.StopJobResponse:
        answer = wire.StopJobResponse()

        async def work(caller: Caller, told: list[str]) -> None:
            job, live = await self._desk.owned(caller, _id(request.id))
            if live is not None and not job.over:
                job = await self._desk.cancel(caller, job.id)
                told.append(f"job {job.id} cancelled")
            answer.job.CopyFrom(job_message(job))

        await self._door.call(context, "StopJob", work, changes=True)
        return answer

    async def GetJob(self, request: wire.GetJobRequest, context: Context) -> wire.GetJobResponse:
        answer = wire.GetJobResponse()

        async def work(caller: Caller, told: list[str]) -> None:
            job = await self._desk.wait(caller, _id(request.id), seconds_of(request.wait, LONGEST_WAIT))
            answer.job.CopyFrom(job_message(job))

        await self._door.call(context, "GetJob", work)
        return answer

    async def ListJobs(self, request: wire.ListJobsRequest, context: Context) -> wire.ListJobsResponse:
        answer = wire.ListJobsResponse()

        async def work(caller: Caller, told: list[str]) -> None:
            apps = caller.applications
            if request.app:
                apps = frozenset({self._engine.application(caller, request.app).name})
            size = min(request.page_size or PAGE, LARGEST_PAGE)
            wanted = Filter(apps, state_of(request.state), request.page_token or None, size + 1)
            jobs = await self._desk.list_jobs(caller, wanted)
            answer.jobs.extend(job_message(job) for job in jobs[:size])
            answer.next_page_token = jobs[size - 1].id if len(jobs) > size else ""

        await self._door.call(context, "ListJobs", work)
        return answer

    async def StreamOutput(self, request: wire.StreamOutputRequest, context: Context) -> None:
        async def work(caller: Caller, told: list[str]) -> None:
            if request.stream not in STREAMS:
                raise FieldProblems({"stream": "is no output of a job"})
            await stream_output(self._engine, self._desk, caller, request, context.write)

        await self._door.call(context, "StreamOutput", work)

    async def Exec(self, requests: object, context: Context) -> None:
        async def work(caller: Caller, told: list[str]) -> None:
            await run_exec(self._engine, caller, self._only_application(caller), context, told)

        await self._door.call(context, "Exec", work, changes=True)

    async def Signal(self, request: wire.SignalRequest, context: Context) -> wire.SignalResponse:
        answer = wire.SignalResponse()

        async def work(caller: Caller, told: list[str]) -> None:
            if not request.signal:
                raise FieldProblems({"signal": "is empty: name a signal, such as SIGTERM"})
            job = await self._desk.signal(caller, _id(request.id), request.signal)
            told.append(f"{printable(request.signal)} sent to job {job.id}")
            answer.job.CopyFrom(job_message(job))

        await self._door.call(context, "Signal", work, changes=True)
        return answer

    def _applications(self, caller: Caller, name: str) -> list[GateApplication]:
        if name:
            return [self._engine.application(caller, name)]
        return [one for one in self._engine.applications.values() if caller.may_see(one.name)]

    def _only_application(self, caller: Caller) -> str:
        """Returns the name of the application that is meant if none is named; empty if there are several."""
        names = [name for name in self._engine.applications if caller.may_see(name)]
        if not names:
            raise Problem(403, "this token is for none of the applications here")
        return names[0] if len(names) == 1 else ""


def _id(text: str) -> str:
    if not text:
        raise FieldProblems({"id": "is empty"})
    return text
