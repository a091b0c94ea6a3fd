"""Serves HTTP and gRPC: the order in which everything begins and ends.

Contract: `serve` returns when SIGTERM or SIGINT has come, all jobs that ran are marked interrupted, and that is on the
disk.  It listens before it says so.  `LocalError` if it cannot listen, and what the state and the keys raise.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
import ssl
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import uvicorn

from cexec.errors import LocalError
from cexec.gate.access import login_routes
from cexec.gate.access.audit import Audit, open_audit
from cexec.gate.access.caller_limits import DEFAULT_LIMITS, CallerLimits
from cexec.gate.access.connection import GuardedWebSocket
from cexec.gate.access.key_rows import forget_old_keys, has_token, set_site
from cexec.gate.access.listening import check_listening
from cexec.gate.access.middleware import Access
from cexec.gate.access.rates import CallerRates
from cexec.gate.access.site import Site
from cexec.gate.http.app import GateApp
from cexec.gate.http.protocol import GateProtocol
from cexec.gate.jobs.application import GateApplication
from cexec.gate.jobs.desk import Desk
from cexec.gate.jobs.engine import Engine, EngineSettings
from cexec.gate.page.cluster_history import ClusterHistory
from cexec.gate.page.page_routes import routes as page_routes
from cexec.gate.runs.run_desk import RunDesk
from cexec.gate.store.database import Database
from cexec.gate.store.output_files import OutputFiles
from cexec.system.call_threads import run_loop
from cexec.system.reason import reason_of

if TYPE_CHECKING:
    from starlette.routing import BaseRoute

    from cexec.gate.http.app import RoutesOf
    from cexec.gate.rpc.grpc_server import GrpcServer

LARGEST_MESSAGE = 1024 * 1024 + 1  # bytes (ours) of a WebSocket's message
STOP_PATIENCE = 3  # seconds (ours) for answers on their way when it stops
IDLE_CONNECTION = 75  # seconds (ours) until a connection without a request is closed
SWITCH = 0.0005  # seconds (ours) until a thread lets another one run: the state's writer asks for that often
BACKLOG = 1024  # connections (ours) that wait to be accepted


@dataclass(slots=True)
class GateOptions:
    """What `cgate` was told.

    `runs`: directories with journals of cmap, None for none.
    `tls`: the context of the server, with the names of its certificate.  `grpc`: address and port, if it serves that,
    with `tls_files`: certificate, key, and the authority of clients or None.
    """

    state: str
    address: str = "127.0.0.1"
    port: int = 8042
    settings: EngineSettings = field(default_factory=EngineSettings)
    limits: CallerLimits = DEFAULT_LIMITS
    audit: str | None = None
    tls: ssl.SSLContext | None = None
    tls_names: Sequence[str] = ()
    more: RoutesOf | None = None
    grpc: tuple[str, int] | None = None
    tls_files: tuple[str, str, str | None] | None = None
    runs: Sequence[str] | None = None


@dataclass(frozen=True, slots=True)
class GateListening:
    """It listens: `url` is where, and `grpc` is, if it serves that.

    `database` can be written to by nobody else yet.
    """

    url: str
    grpc: str | None
    interrupted: int
    database: Database


def serve(options: GateOptions, keys: Sequence[str], ready: Callable[[GateListening], None]) -> None:
    """Serves the applications of these client keys until a signal comes; `ready` is called before the first request."""
    sys.setswitchinterval(SWITCH)
    database = Database(options.state, sole=True)
    try:
        _check_where(options, database)
        listener = listen(options.address, options.port)
        with contextlib.closing(listener):
            audit = Audit() if options.audit is None else Audit(open_audit(options.audit))
            try:
                run_loop(_serve(options, keys, database, listener, audit, ready))
            finally:
                audit.close()
    finally:
        database.close()


async def _serve(
    options: GateOptions,
    keys: Sequence[str],
    database: Database,
    listener: socket.socket,
    audit: Audit,
    ready: Callable[[GateListening], None],
) -> None:
    port = listener.getsockname()[1]
    site = Site.make(options.address, port, tls=options.tls is not None, names=options.tls_names)
    files = OutputFiles(f"{options.state}-outputs")
    engine = Engine(database, files, [GateApplication(key) for key in keys], options.settings)
    more: list[BaseRoute] = [*login_routes.routes(database, site, options.limits)]
    history = ClusterHistory(engine)
    runs = RunDesk(options.runs)
    more += page_routes(engine, history, runs)
    if options.more is not None:
        more += options.more(engine)
    rates = CallerRates(options.limits.rate, options.limits.burst)
    app = Access(GateApp(engine, more, runs), database, site=site, audit=audit, limits=options.limits, rates=rates)
    rpc = None if options.grpc is None else _grpc_server(options, engine, database, audit, rates)
    server = _Server(_config(app, options.tls))
    database.write_now(lambda connection: forget_old_keys(connection, time.time()))
    database.write_now(lambda connection: set_site(connection, site.url))
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    ready(GateListening(site.url, None if rpc is None else rpc.address, engine.interrupted, database))
    engine.start()
    history.start()
    if rpc is not None:
        await rpc.start()
    gc.collect()
    gc.freeze()  # all that has been loaded stays: it is not looked through again and again
    serving = loop.create_task(server.serve([listener]))
    waiting = loop.create_task(stopping.wait())
    await asyncio.wait((serving, waiting), return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    await history.close()
    runs.close()
    await engine.close()  # those who wait for jobs are told of their end
    server.should_exit = True
    if rpc is not None:
        await rpc.stop()
    await serving


def _grpc_server(
    options: GateOptions, engine: Engine, database: Database, audit: Audit, rates: CallerRates
) -> GrpcServer:
    """Returns a server that listens.  gRPC is loaded only here: it takes 25 MB and 0.1 s."""
    # Otherwise gRPC stops and starts its threads around each fork, also where another program is started at once.
    os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "false"
    # Otherwise gRPC writes lines of its own on standard error, with its files and line numbers, beside ours.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from cexec.gate.rpc.door import Door
    from cexec.gate.rpc.grpc_server import GrpcServer
    from cexec.gate.rpc.tls_front import TlsFront

    assert options.grpc is not None
    front, tls, listener = None, None, None
    if options.tls_files is not None:
        certificate, key, client_ca = options.tls_files
        if client_ca is None:
            tls = certificate, key
        else:
            front = TlsFront(certificate, key, client_ca)
            listener = listen(*options.grpc, "--grpc")
    address, port = _resolve(*options.grpc)[0][4][:2]
    where = f"[{address}]:{port}" if ":" in str(address) else f"{address}:{port}"
    door = Door(database, audit, options.limits, rates, front=front)
    return GrpcServer(where, engine, Desk(engine), door, tls=tls, front=front, listener=listener)


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are ours."""
        yield


def _config(app: Any, tls: ssl.SSLContext | None) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        loop="asyncio",
        http=GateProtocol,
        ws=GuardedWebSocket,
        ws_max_size=LARGEST_MESSAGE,
        ws_per_message_deflate=False,  # it takes more time than the network
        lifespan="off",
        log_config=None,
        log_level="critical",  # below that it tells addresses of WebSockets, and each malformed request of a stranger
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=IDLE_CONNECTION,
        timeout_graceful_shutdown=STOP_PATIENCE,
        ssl_context_factory=None if tls is None else lambda config, default: tls,
    )


def _check_where(options: GateOptions, database: Database) -> None:
    """Raises `UsageError` if it may not listen at one of its addresses."""
    has_tokens = database.read_now(lambda connection: has_token(connection, time.time()))
    for option, where in (("--http", (options.address, options.port)), ("--grpc", options.grpc)):
        if where is not None:
            addresses = [str(found[0]) for *_, found in _resolve(*where)]
            check_listening(addresses, tls=options.tls is not None, has_tokens=has_tokens, option=option)


def listen(address: str, port: int, option: str = "--http") -> socket.socket:
    """Returns a socket that listens.  `option`: what says where."""
    family, kind, protocol, _, where = _resolve(address, port)[0]
    try:
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise LocalError(f"cannot listen at {address}: {reason_of(error)}") from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(where)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise LocalError(f"cannot listen at {address} port {port}: {reason_of(error)}; give another {option}") from None
    return listener


def _resolve(address: str, port: int) -> list[Any]:
    try:
        return socket.getaddrinfo(address, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise LocalError(f"cannot listen at {address}: {reason_of(error)}") from None
