"""`POST /v1/apps/{app}/run`: a pipe by HTTP.  The body is the program's input, the answer is its output.

Contract: bytes pass both ways at once, no faster than the slower side takes them.  The answer is whole only if the
program has ended with status 0: otherwise its connection is cut off, so that the reader fails as well.  The status is
in a trailer, and in a header if it is known before the first byte is sent.  A client that goes leaves a job that goes
on; one that goes before his body was complete has INPUT_GRACE seconds to come back.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from starlette.routing import Route

from cexec.gate.http.answers import COMMON, OCTETS, cut_off, problem_answer, send_end, send_start
from cexec.gate.http.gate import gate_of, identity_of, note_change
from cexec.gate.http.output_routes import status_headers
from cexec.gate.http.protocol import TRAILERS
from cexec.gate.http.queries import Query
from cexec.gate.jobs.job_request import JobRequest
from cexec.gate.problem import Problem
from cexec.gate.store.outputs import OutputLog
from cexec.gate.store.records import State

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

    from cexec.gate.http.gate import Gate
    from cexec.gate.jobs.live_job import InputWriter, LiveJob

CHUNK = 256 * 1024  # bytes (ours)
NOT_WAITED_FOR = 1 << 62  # an offset beyond all: nobody reads along, and the oldest bytes may be dropped


class Pipe:
    """One request.  It is an ASGI application, since it reads and writes at once."""

    def __init__(self, gate: Gate, live: LiveJob) -> None:
        self._gate = gate
        self._live = live
        log = live.outputs[1]
        assert isinstance(log, OutputLog)
        self._log = log
        self._offset = 0
        self._started = False
        live.errand.read_along(1, 0)
        live.errand.read_along(2, NOT_WAITED_FOR)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._live.take_input(0) as writer:
            reading = asyncio.ensure_future(self._read(receive, writer))
            writing = asyncio.ensure_future(self._write(scope, receive, send))
            try:
                await asyncio.wait((reading, writing), return_when=asyncio.FIRST_COMPLETED)
                if reading.done() and not reading.result():
                    writing.cancel()  # the client has gone
                with suppress(asyncio.CancelledError):
                    await writing
            finally:
                for task in (reading, writing):
                    task.cancel()
                await asyncio.gather(reading, writing, return_exceptions=True)
                self._live.errand.read_along(1, None)
                self._live.errand.read_along(2, None)

    async def _read(self, receive: Receive, writer: InputWriter) -> bool:
        """Passes the body on, then listens; returns False when the client has gone."""
        more, taken = True, True
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return False
            if not more:
                continue
            try:
                if taken and message.get("body"):
                    await writer.write(message["body"])
            except BrokenPipeError:
                taken = False  # as with a pipe: the program may go on without reading all
            more = message.get("more_body", False)
            if not more:
                writer.close()

    async def _write(self, scope: Scope, receive: Receive, send: Send) -> None:
        live, log = self._live, self._log
        while True:
            chunk = log.read(self._offset, CHUNK) if live.outputs[1] is log else b""
            if not chunk and live.outputs[1] is not log:  # the job is over, and its output is kept elsewhere
                chunk = live.outputs[1].read(self._offset, CHUNK)
            if chunk:
                await self._start(scope, send)
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
                self._offset += len(chunk)
                live.errand.read_along(1, self._offset)
                await asyncio.sleep(0)  # `send` returns at once if the client has gone
            elif not live.outputs[1].ended:
                await log.wait(self._offset)
            elif not live.record.over:
                await live.changed()
            else:
                break
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
            problem = Problem(503 if job.state is State.FAILED else 409, job.reason or f"the job is {job.state}",
                              headers={"Location": f"/v1/jobs/{job.id}"}, job=job.id)  # fmt: skip
            await problem_answer(problem)(scope, receive, send)
            return
        await self._start(scope, send)
        if job.state is State.SUCCEEDED:
            await send_end(send, status_headers(job) if TRAILERS in scope.get("extensions", {}) else None)
        else:
            await cut_off(scope, send)


async def run(request: Request) -> Pipe:
    """POST /v1/apps/{app}/run"""
    gate, identity = gate_of(request), identity_of(request.scope)
    query = Query(request, ["time_limit"], ["arg", "env", "need"])
    environment = {}
    for pair in query.texts("env"):
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise Problem(422, "the parameter env is NAME=VALUE")
        environment[name] = value
    wanted = JobRequest(
        app=request.path_params["app"],
        stdin=None,
        args=tuple(query.texts("arg")),
        env=environment,
        needs=tuple(query.texts("need")),
        time_limit=query.seconds("time_limit", 10 * 365 * 86400) or None,
    )
    submission = await gate.engine.submit(identity, wanted)
    (job,) = submission.jobs
    note_change(request.scope, f"job {job.id} of {job.app} started")
    return Pipe(gate, gate.engine.live[job.id])


ROUTES = [Route("/v1/apps/{app}/run", run, methods=["POST"])]
