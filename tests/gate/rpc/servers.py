"""A gRPC server on the engine of `cgate`, in a thread of the test's process.

Contract: `RpcServer` serves an application at a loopback port until its `with` block ends.  `token` makes a token as
`cgate token add` does; `channel` is a client's, with its token in the metadata of every call made by `stub`.
gRPC is told to leave forks alone before it is loaded: otherwise it opens descriptors anew at every fork of later tests.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from time import time
from typing import Any

os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "false"

import grpc
import psutil

from cexec.gate.access.audit import Audit, open_audit
from cexec.gate.access.caller import TokenRole
from cexec.gate.access.caller_limits import CallerLimits
from cexec.gate.access.key_rows import add_token, revoke_keys
from cexec.gate.access.rates import CallerRates
from cexec.gate.jobs.application import GateApplication
from cexec.gate.jobs.desk import Desk
from cexec.gate.jobs.engine import Engine, EngineSettings
from cexec.gate.rpc.door import Door
from cexec.gate.rpc.grpc_server import GrpcServer
from cexec.gate.rpc.tls_front import TlsFront
from cexec.gate.rpc.wire.cexec_pb2_grpc import ClusterStub
from cexec.gate.server import listen
from cexec.gate.store.database import Database
from cexec.gate.store.output_files import OutputFiles

LIMITS = CallerLimits(look=0.1)


class RpcServer:
    """One server."""

    def __init__(
        self,
        directory: Path,
        keys: Sequence[str | os.PathLike[str]],
        *,
        tls: tuple[str, str, str | None] | None = None,
        limits: CallerLimits = LIMITS,
        settings: EngineSettings | None = None,
        address: str = "127.0.0.1:0",
    ) -> None:
        self.path = str(directory / "state.sqlite")
        self.audit = directory / "audit"
        self._keys = keys
        self._address = address
        self._files = str(directory / "outputs")
        self._tls = tls
        self._limits = limits
        self._settings = settings or EngineSettings()
        self._ready = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    def __enter__(self) -> RpcServer:
        self._thread.start()
        self._ready.wait(30)
        if self._error is not None:
            raise self._error
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join(30)
        assert not self._thread.is_alive()
        if self._error is not None:
            raise self._error

    async def _serve(self) -> None:
        self.loop = asyncio.get_running_loop()
        self._stopped = asyncio.Event()
        try:
            with (
                closing(Database(self.path, sole=True)) as database,
                closing(Audit(open_audit(str(self.audit)))) as log,
            ):
                applications = [GateApplication(os.fspath(key)) for key in self._keys]
                self.engine = Engine(database, OutputFiles(self._files), applications, self._settings)
                self.engine.start()
                rates = CallerRates(self._limits.rate, self._limits.burst)
                certificate, key, client_ca = self._tls or ("", "", None)
                front = TlsFront(certificate, key, client_ca) if client_ca else None
                door = Door(database, log, self._limits, rates, front=front)
                listener = listen("127.0.0.1", 0) if client_ca else None
                server = GrpcServer(
                    self._address, self.engine, Desk(self.engine), door,
                    tls=(certificate, key) if self._tls else None, front=front, listener=listener,
                )  # fmt: skip
                await server.start()
                self.port, self.inner_port = server.port, server.inner_port
                self._front = front
                self._ready.set()
                await self._stopped.wait()
                await server.stop()
                await self.engine.close()
        except BaseException as error:
            self._error = error
            self._ready.set()

    @property
    def front(self) -> TlsFront:
        assert self._front is not None
        return self._front

    def token(self, name: str = "ci", role: TokenRole = TokenRole.SUBMITTER, apps: frozenset[str] | None = None) -> str:
        return str(self.change(lambda connection: add_token(connection, name, role, apps, time()).text))

    def revoke(self, who: str) -> None:
        self.change(lambda connection: revoke_keys(connection, who, time()))

    def jobs(self) -> int:
        """How many jobs were started; a worker tells of one that is over when it comes to that."""
        return int(self.change(lambda connection: connection.execute("SELECT count(*) FROM job").fetchone()[0]))

    def change(self, what: Any) -> Any:
        with closing(Database(self.path, sole=False)) as database:
            return database.write_now(what)

    @contextmanager
    def stub(self, token: str | None, credentials: grpc.ChannelCredentials | None = None) -> Iterator[Any]:
        """The service, for a caller with this token."""
        target = f"localhost:{self.port}" if credentials else f"127.0.0.1:{self.port}"
        channel = grpc.secure_channel(target, credentials) if credentials else grpc.insecure_channel(target)
        with channel:
            found = ClusterStub(  # type: ignore[no-untyped-call]
                channel if token is None else grpc.intercept_channel(channel, _Bearer(token))
            )
            yield found


class _Details(grpc.ClientCallDetails):
    """The details of a call, with other metadata."""

    def __init__(self, details: Any, metadata: tuple[tuple[str, str], ...]) -> None:
        self.method, self.timeout, self.metadata = details.method, details.timeout, metadata
        self.credentials, self.wait_for_ready = details.credentials, details.wait_for_ready
        self.compression = details.compression


class _Bearer(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor, grpc.StreamStreamClientInterceptor):
    """Adds the token to every call."""

    def __init__(self, token: str) -> None:
        self._metadata = (("authorization", f"Bearer {token}"),)

    def _with_token(self, go_on: Any, details: Any, request: Any) -> Any:
        metadata = (*(details.metadata or ()), *self._metadata)
        return go_on(_Details(details, metadata), request)

    intercept_unary_unary = intercept_unary_stream = intercept_stream_stream = _with_token  # type: ignore[assignment]


def moves(process: psutil.Process) -> bool:
    """Returns True if a process has written something in half a second."""
    before = process.io_counters().write_chars
    threading.Event().wait(0.5)
    return bool(process.io_counters().write_chars != before)
