"""`POST /v1/apps/{app}/run`: a pipe by HTTP.  The body is the program's input, the answer is its output.

Contract: bytes pass both ways at once, no faster than the slower side takes them.  The answer is whole only if the
program has ended with status 0: otherwise its connection is cut off, so that the reader fails as well.  The status is
in a trailer, and in a header if it is known before the first byte is sent.  A client that goes leaves a job that goes
on; one that goes before his body was complete has INPUT_GRACE seconds to come back.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from starlette.routing import Route

from cexec.gate.http.gate import gate_of, identity_of, note_change
from cexec.gate.http.job_bodies import LEAST_TIME_LIMIT, LONGEST_TIME_LIMIT, check_form
from cexec.gate.http.output_routes import status_headers
from cexec.gate.http.protocol import TRAILERS
from cexec.gate.http.queries import Query
from cexec.gate.http.request_bodies import ClientGone, chunks
from cexec.gate.http.stream_answers import COMMON, OCTETS, cut_off, problem_answer, send_end, send_start
from cexec.gate.jobs.job_request import JobRequest
from cexec.gate.jobs.pipe import NOT_WAITED_FOR, OutputReader, start_pipe
from cexec.gate.problem import Problem
from cexec.gate.store.job_records import JobState

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

    from cexec.gate.jobs.live_job import InputWriter, LiveJob


class Pipe:
    """One request.  It is an ASGI application, since it reads and writes at once."""

    def __init__(self, live: LiveJob) -> None:
        self._live = live
        self._started = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with (
            self._live.take_input(0) as writer,
            OutputReader(self._live, 1) as reader,
            OutputReader(self._live, 2, NOT_WAITED_FOR),
        ):
            reading = asyncio.ensure_future(self._read(receive, writer))
            writing = asyncio.ensure_future(self._write(reader, scope, receive, send))
            try:
                await asyncio.wait((reading, writing), return_when=asyncio.FIRST_COMPLETED)
                if writing.done():
                    writing.result()
                else:
                    reading.result()  # the client has gone, or has sent what is no body
            finally:
                for task in (reading, writing):
                    task.cancel()
                await asyncio.gather(reading, writing, return_exceptions=True)

    async def _read(self, receive: Receive, writer: InputWriter) -> None:
        """Passes the body on, then listens; returns when the client has gone."""
        try:
            async for chunk in chunks(receive):
                await writer.write(chunk)
            writer.close()
            while (await receive())["type"] != "http.disconnect":
                await asyncio.sleep(0)
        except ClientGone:
            pass

    async def _write(self, reader: OutputReader, scope: Scope, receive: Receive, send: Send) -> None:
        while chunk := await reader.next():
            await self._start(scope, send)
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await asyncio.sleep(0)  # `send` returns at once if the client has gone
        await self._live.wait()
        await self._end(scope, receive, send)

    async def _start(self, scope: Scope, send: Send) -> None:
        if self._started:
            return
        self._started = True
        job = self._live.record
        headers = {**COMMON, "Content-Type": OCTETS, "Cexec-Job": job.id, "Location": f"/v1/jobs/{job.id}",
                   "Trailer": "Cexec-State, Cexec-Exit-Status, Cexec-Signal",
                   **(status_headers(job) if job.over else {})}  # fmt: skip
        lines = [(name.lower().encode(), value.encode("latin-1", "replace")) for name, value in headers.items()]
        await send_start(send, 200, lines, trailers=TRAILERS in scope.get("extensions", {}))

    async def _end(self, scope: Scope, receive: Receive, send: Send) -> None:
        job = self._live.record
        if not self._started and job.exit_status is None and job.signal is None:
            problem = Problem(503 if job.state is JobState.FAILED else 409, job.reason or f"the job is {job.state}",
                              headers={"Location": f"/v1/jobs/{job.id}"}, job=job.id)  # fmt: skip
            await problem_answer(problem)(scope, receive, send)
            return
        await self._start(scope, send)
        if job.state is JobState.SUCCEEDED:
            await send_end(send, status_headers(job) if TRAILERS in scope.get("extensions", {}) else None)
        else:
            cut_off(scope)


async def run(request: Request) -> Pipe:
    """POST /v1/apps/{app}/run"""
    gate, identity = gate_of(request), identity_of(request.scope)
    query = Query(request, ["time_limit"], ["arg", "env", "need"])
    environment = {}
    for pair in query.texts("env"):
        name, equals, value = pair.partition("=")
        if not equals:
            raise Problem(422, "the parameter env is NAME=VALUE")
        environment[check_form(name, "env")] = value
    wanted = JobRequest(
        app=request.path_params["app"],
        stdin=None,
        args=tuple(query.texts("arg")),
        env=environment,
        needs=tuple(check_form(one, "need") for one in query.texts("need")),
        time_limit=query.seconds("time_limit", LONGEST_TIME_LIMIT, LEAST_TIME_LIMIT) or None,
    )
    live = await start_pipe(gate.engine, identity, wanted, unread=(2,))
    note_change(request.scope, f"job {live.record.id} of {wanted.app} started")
    return Pipe(live)


ROUTES = [Route("/v1/apps/{app}/run", run, methods=["POST"])]
