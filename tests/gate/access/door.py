"""A small server behind the door of `cgate`: the middleware, its connections and its pages, without the cluster.

Contract: `open_door(directory, ...)` serves at a loopback port until the block ends.  `Door.token` makes a token as
`cgate token add` does, over a connection of another process' kind.  `raw` sends bytes over a connection of its own.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from time import time
from typing import Any

import httpx
import uvicorn
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route, Router, WebSocketRoute
from starlette.websockets import WebSocket

from cexec.gate.access.audit import Audit
from cexec.gate.access.caller import SCOPE_KEY, TokenRole
from cexec.gate.access.caller_limits import CallerLimits
from cexec.gate.access.connection import GuardedHttp, GuardedWebSocket
from cexec.gate.access.key_rows import add_token, revoke_keys
from cexec.gate.access.login_routes import routes
from cexec.gate.access.middleware import CHANGES_KEY, Access
from cexec.gate.access.sessions import one_time_url
from cexec.gate.access.site import Site
from cexec.gate.access.steady_clock import SteadyClock
from cexec.gate.store.database import Database
from tests.waiting import PATIENCE, wait_until


class Door:
    """A server that runs.  `seen`: what the application behind the door has noticed."""

    def __init__(self, directory: Path, port: int, scheme: str) -> None:
        self.path = str(directory / "state")
        self.audit = directory / "audit"
        self.port = port
        self.base = f"{scheme}://127.0.0.1:{port}"
        self.seen: list[str] = []

    @property
    def started(self) -> int:
        """How many jobs and programs were started."""
        return self.seen.count("started")

    def token(
        self,
        name: str = "ci",
        role: TokenRole = TokenRole.SUBMITTER,
        apps: frozenset[str] | None = None,
        days: float | None = None,
    ) -> str:
        now = time()
        ends = None if days is None else now + days * 86400
        return str(self.change(lambda connection: add_token(connection, name, role, apps, now, ends).text))

    def revoke(self, who: str) -> None:
        self.change(lambda connection: revoke_keys(connection, who, time()))

    def login_url(self) -> str:
        with closing(Database(self.path, sole=False)) as database:
            return one_time_url(database, self.base)

    def change(self, what: Callable[[Any], Any]) -> Any:
        with closing(Database(self.path, sole=False)) as database:
            return database.write_now(what)

    def client(self, token: str | None = None, headers: dict[str, str] | None = None, **options: Any) -> httpx.Client:
        headers = {**(headers or {}), **({} if token is None else {"Authorization": f"Bearer {token}"})}
        options.setdefault("verify", False)  # the bundle of authorities takes a while to read
        return httpx.Client(base_url=self.base, headers=headers, trust_env=False, timeout=PATIENCE, **options)

    def lines(self) -> list[str]:
        return self.audit.read_text().splitlines()

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), PATIENCE)

    def raw(self, data: bytes) -> bytes:
        """Returns everything that comes until the server closes."""
        with self.connect() as connection:
            connection.sendall(data)
            return read_all(connection)


def read_all(connection: socket.socket) -> bytes:
    data = b""
    try:
        while chunk := connection.recv(65536):
            data += chunk
    except ConnectionResetError:
        pass
    return data


@contextmanager
def open_door(
    directory: Path,
    limits: CallerLimits | None = None,
    *,
    context: ssl.SSLContext | None = None,
    http: type[GuardedHttp] = GuardedHttp,
    websocket: type[GuardedWebSocket] = GuardedWebSocket,
    clock: SteadyClock | None = None,
) -> Iterator[Door]:
    limits = limits or CallerLimits(look=0.05)
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    door = Door(directory, port, "http" if context is None else "https")
    site = Site.make("127.0.0.1", port, tls=context is not None)
    database = Database(door.path, sole=True)
    audit_fd = os.open(door.audit, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    audit = Audit(audit_fd)
    inside = Router([*application(door), *routes(database, site, limits, clock)])
    app = Access(inside, database, site=site, audit=audit, limits=limits, clock=clock)
    config = uvicorn.Config(
        app, http=http, ws=websocket, log_config=None, log_level="error", access_log=False, lifespan="off",
        server_header=False, proxy_headers=False, ws_per_message_deflate=False, timeout_graceful_shutdown=1,
        ssl_context_factory=None if context is None else (lambda *_: context),
    )  # fmt: skip
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])))
    thread.start()
    try:
        wait_until(lambda: server.started)
        yield door
    finally:
        server.should_exit = True
        thread.join()
        listener.close()
        database.close()
        audit.close()
        os.close(audit_fd)


def application(door: Door) -> list[Route | WebSocketRoute]:
    async def healthy(request: Request) -> Response:
        return Response("ok")

    async def who(request: Request) -> Response:
        identity = request.scope[SCOPE_KEY]
        apps = None if identity.applications is None else sorted(identity.applications)
        return JSONResponse([identity.name, identity.role.name.lower(), apps])

    async def start(request: Request) -> Response:
        size = len(await request.body())
        door.seen.append("started")
        request.scope[CHANGES_KEY].append("job 7 started")
        return JSONResponse({"size": size}, 201)

    async def feed(request: Request) -> Response:
        size = 0
        async for chunk in request.stream():
            size += len(chunk)
        return JSONResponse({"size": size})

    async def follow(request: Request) -> Response:
        async def lines() -> Any:
            try:
                while True:
                    yield b"line\n"
                    await asyncio.sleep(0.01)
            finally:
                door.seen.append("stream ended")

        return StreamingResponse(lines())

    async def wait(request: Request) -> Response:
        door.seen.append("waiting")
        await asyncio.sleep(PATIENCE)
        return Response("late")

    async def flood(request: Request) -> Response:
        async def blocks() -> Any:
            try:
                while True:
                    yield bytes(65536)
                    await asyncio.sleep(0)
            finally:
                door.seen.append("flood ended")

        return StreamingResponse(blocks())

    async def crash(request: Request) -> Response:
        raise RuntimeError(f"cannot open {door.path} with the password hunter2")

    async def crash_late(request: Request) -> Response:
        async def lines() -> Any:
            yield b"begin"
            raise RuntimeError("hunter2")

        return StreamingResponse(lines())

    async def execute(websocket: WebSocket) -> None:
        offered = websocket.scope["subprotocols"]
        await websocket.accept(subprotocol="cgate.v1" if "cgate.v1" in offered else None)
        door.seen.append("started")
        while True:
            await websocket.send_text(await websocket.receive_text())

    async def fail(websocket: WebSocket) -> None:
        await websocket.accept()
        raise RuntimeError("hunter2")

    return [
        Route("/healthz", healthy),
        Route("/v1/jobs", who, methods=["GET"]),
        Route("/v1/jobs", start, methods=["POST"]),
        Route("/v1/jobs/{job}/stdin", feed, methods=["PUT"]),
        Route("/v1/jobs/{job}/stdout", follow),
        Route("/v1/wait", wait),
        Route("/v1/flood", flood),
        Route("/v1/crash", crash),
        Route("/v1/crash_late", crash_late),
        WebSocketRoute("/v1/exec", execute),
        WebSocketRoute("/v1/fail", fail),
    ]


def problem(response: httpx.Response) -> tuple[int, str]:
    """Checks the document (RFC 9457); returns its status and detail."""
    assert response.headers["content-type"] == "application/problem+json", response.text
    document = json.loads(response.content)
    assert document["type"] == "about:blank" and document["title"]
    assert document["status"] == response.status_code
    return document["status"], document["detail"]
