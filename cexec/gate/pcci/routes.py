"""The paths of PCCI (`cgate --pcci APP`): programs that were written for it work with `cgate` and a token.

Contract: `routes(engine)` returns starlette's routes POST /job, GET /pool/ID, GET /pools, GET /workers and PUT /kill/ID
for the one application of the engine.  What a handler refuses is `{"message": ...}`: 400 for what is wrong with the
request or names a worker that is not there, 404 for a pool that is unknown or has expired, other statuses as elsewhere.
An absent worker starts nothing, and ends nothing.  docs/api.md, "PCCI".
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from cexec.errors import UsageError
from cexec.gate.access.caller import SCOPE_KEY, Caller
from cexec.gate.jobs.desk import Desk
from cexec.gate.jobs.job_request import JobRequest
from cexec.gate.json_text import parse_json
from cexec.gate.pcci.command_words import CommandError, split_command
from cexec.gate.pcci.views import show_job, show_pool, show_worker
from cexec.gate.problem import Problem
from cexec.gate.store import job_rows, pcci_rows
from cexec.gate.store.pcci_rows import PcciPool
from cexec.net.groups import udp_port_from_environment
from cexec.protocol.datagrams.requirements import instance_text

if TYPE_CHECKING:
    from starlette.requests import Request

    from cexec.gate.jobs.application import GateApplication
    from cexec.gate.jobs.desk import Output
    from cexec.gate.jobs.engine import Engine
    from cexec.gate.store.job_records import JobRecord, PoolRecord

Handler: TypeAlias = Callable[["Request"], Awaitable[Response]]

CHANGES_KEY = "cexec.changes"
ABSENT = "One or more worker not connected, try GET /workers"
UNKNOWN_POOL = "Pool ID not found or expired"
RESULT_LIMIT = 4 << 20  # bytes (ours) of each stream that `result` shows
PIECE = 256 * 1024  # bytes (ours) read at a time
LARGEST_LIST = 1000  # pools (ours)
LARGEST_BODY = 1 << 20  # bytes (ours)
_LONGEST_ID = 16  # digits (ours) of a pool's number


def routes(engine: Engine) -> list[Route]:
    (application,) = engine.applications.values()
    paths = _Paths(engine, Desk(engine), application)
    return [
        Route("/job", _told(paths.start), methods=["POST"]),
        Route("/pool/{id}", _told(paths.show), methods=["GET"]),
        Route("/pools", _told(paths.list_pools), methods=["GET"]),
        Route("/workers", _told(paths.workers), methods=["GET"]),
        Route("/kill/{id}", _told(paths.kill), methods=["PUT"]),
    ]


def _told(handler: Handler) -> Handler:
    """Answers a `Problem` as PCCI does."""

    async def handle(request: Request) -> Response:
        try:
            return await handler(request)
        except Problem as problem:
            return JSONResponse({"message": problem.detail}, problem.status, headers=problem.headers)

    return handle


class _Paths:
    def __init__(self, engine: Engine, desk: Desk, application: GateApplication) -> None:
        self._engine = engine
        self._desk = desk
        self._application = application
        self._port = udp_port_from_environment(os.environ)

    async def start(self, request: Request) -> Response:
        identity = self._identity(request)
        body = await _read_object(request)
        targets = await self._find(body)
        try:
            arguments = split_command(body.get("cmd"))
        except CommandError as error:
            raise Problem(400, str(error)) from None
        wanted = JobRequest(app=self._application.name, args=arguments, workers=tuple(targets), retries=0)
        try:
            submission = await self._engine.submit(identity, wanted)
        except Problem as problem:
            raise _as_bad_request(problem) from None
        except UsageError as error:
            raise Problem(400, str(error)) from None
        pool = submission.pool
        assert pool is not None
        known = PcciPool(pool.number, body["cmd"], targets)
        await self._engine.database.write(partial(pcci_rows.insert, pool=known))
        request.scope[CHANGES_KEY].append(f"pool {pool.number} started on {', '.join(targets.values())}")
        return JSONResponse({"pool_id": pool.number, "message": "New pool submited"})

    async def show(self, request: Request) -> Response:
        pool, jobs = await self._pool(request)
        return JSONResponse([await self._show(self._identity(request), pool, jobs)])

    async def list_pools(self, request: Request) -> Response:
        identity = self._identity(request)
        wanted = job_rows.Filter(frozenset({self._application.name}), None, None, LARGEST_LIST)
        pools = await self._desk.list_pools(identity, wanted)
        kept = [(pool, jobs) for pool, jobs in reversed(pools) if not self._expired(pool)]
        return JSONResponse([await self._show(identity, pool, jobs) for pool, jobs in kept])

    async def workers(self, request: Request) -> Response:
        self._identity(request)
        workers = await self._application.workers()
        names = self._application.names()
        found = [show_worker(names[instance], one.address, self._port) for instance, one in workers.items()]
        return JSONResponse(sorted(found, key=lambda one: str(one["id"])))

    async def kill(self, request: Request) -> Response:
        identity = self._identity(request)
        targets = await self._find(await _read_object(request))
        pool, jobs = await self._pool(request)
        at = {job.instance for job in jobs}
        if not at.issuperset(targets):
            raise Problem(404, "no job of the pool is at one or more of these workers")
        await self._desk.kill(identity, pool.id, list(targets))
        names = ",".join(targets.values())
        request.scope[CHANGES_KEY].append(f"pool {pool.number} killed on {names}")
        return JSONResponse({"message": f"Trying to kill job from pool : {pool.number} on {names}"})

    # what several need

    def _identity(self, request: Request) -> Caller:
        identity: Caller = request.scope[SCOPE_KEY]
        identity.require_application(self._application.name)
        return identity

    async def _find(self, body: dict[str, Any]) -> dict[str, str]:
        """Returns UUID and name of each listed worker."""
        listed = body.get("workers")
        if not isinstance(listed, list) or not listed or not all(isinstance(one, str) for one in listed):
            raise Problem(400, 'Missing workers: {"workers": ["NAME", ...]}')
        try:
            found = await self._application.resolve(listed)
        except Problem as problem:
            raise _as_bad_request(problem) from None
        return {instance_text(instance): name for instance, name in found.items()}

    async def _pool(self, request: Request) -> tuple[PoolRecord, list[JobRecord]]:
        text = request.path_params["id"]
        if not (text.isascii() and text.isdigit() and len(text) <= _LONGEST_ID):
            raise Problem(404, UNKNOWN_POOL)
        try:
            pool, jobs = await self._engine.pool(self._identity(request), int(text))
        except Problem as problem:
            raise Problem(404, UNKNOWN_POOL) if problem.status == 404 else problem from None
        if self._expired(pool):
            raise Problem(404, UNKNOWN_POOL)
        return pool, jobs

    def _expired(self, pool: PoolRecord) -> bool:
        return pool.ended is not None and time.time() >= pool.ended + self._engine.settings.retention

    async def _show(self, identity: Caller, pool: PoolRecord, jobs: list[JobRecord]) -> dict[str, object]:
        known = await self._engine.database.read(partial(pcci_rows.find, number=pool.number))
        shown = []
        for job in jobs:
            outputs = [await self._read(identity, job, stream) for stream in (1, 2)]
            shown.append(show_job(pool, job, known, *outputs))
        return show_pool(pool, shown)

    async def _read(self, identity: Caller, job: JobRecord, stream: int) -> bytes:
        try:
            output = await self._desk.output(identity, job.id, stream)
            return await _read_output(output)
        except Problem:
            return b""  # it is not kept any more


async def _read_output(output: Output) -> bytes:
    data = bytearray()
    while len(data) < RESULT_LIMIT:
        piece = output.read(output.began + len(data), min(PIECE, RESULT_LIMIT - len(data)))
        if not piece:
            break
        data += piece
        await asyncio.sleep(0)
    return bytes(data)


async def _read_object(request: Request) -> dict[str, Any]:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > LARGEST_BODY:
            raise Problem(413, f"the body is too large: at most {LARGEST_BODY} bytes are read")
    try:
        value = parse_json(bytes(body))
    except Problem as problem:
        raise Problem(400, problem.detail) from None
    if not isinstance(value, dict):
        raise Problem(400, "the body is not an object of JSON")
    return value


def _as_bad_request(problem: Problem) -> Problem:
    """PCCI's clients know a worker that is not there, and a name that fits several, as a 400."""
    if problem.status == 404:
        return Problem(400, ABSENT)
    return Problem(400, problem.detail) if problem.status in (409, 422) else problem
