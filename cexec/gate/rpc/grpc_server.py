"""The gRPC server of `cgate`: the cluster's service, health and reflection, on one address.

Contract: `GrpcServer.start` listens, or raises `LocalError`; `stop` lets calls end for a moment and ends the rest.
Health and reflection need no token, because they say nothing of jobs; over TLS with a client authority they need a
certificate, as everything does.  One event loop, and no fork in this process: gRPC's threads survive neither.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from cexec.errors import LocalError
from cexec.gate.rpc.cluster_service import ClusterMethods
from cexec.gate.rpc.refusal import add_refusal
from cexec.gate.rpc.wire import cexec_pb2
from cexec.gate.rpc.wire.cexec_pb2_grpc import add_ClusterServicer_to_server
from cexec.system.reason import reason_of

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from cexec.gate.jobs.desk import Desk
    from cexec.gate.jobs.engine import Engine
    from cexec.gate.rpc.door import Door
    from cexec.gate.rpc.tls_front import TlsFront

SERVICE = cexec_pb2.DESCRIPTOR.services_by_name["Cluster"].full_name
LARGEST_MESSAGE = 64 << 20  # bytes (ours): a whole standard input, as over HTTP
INNER = "127.0.0.1:0"  # where a server listens that is behind a front
STOP_PATIENCE = 2.0  # seconds (ours)
OPTIONS: Sequence[tuple[str, int]] = (
    ("grpc.max_receive_message_length", LARGEST_MESSAGE),
    ("grpc.max_send_message_length", LARGEST_MESSAGE),
    ("grpc.so_reuseport", 0),  # otherwise a second cgate would share the port, and take half of the calls
    # A caller whose host has vanished is noticed after 20 + 10 seconds.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
)


class GrpcServer:
    """Serves at `address`, numeric with its port; or, behind a `front`, at `listener`, where callers use mutual TLS."""

    def __init__(
        self,
        address: str,
        engine: Engine,
        desk: Desk,
        door: Door,
        *,
        tls: tuple[str, str] | None = None,
        front: TlsFront | None = None,
        listener: socket.socket | None = None,
    ) -> None:
        """`tls`: certificate and key of a server whose callers have tokens only."""
        self._front, self._listener = front, listener
        self._server = grpc.aio.server(options=OPTIONS)
        self._health = health.aio.HealthServicer()
        add_ClusterServicer_to_server(  # type: ignore[no-untyped-call]  # it is generated
            ClusterMethods(engine, desk, door), self._server
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection((SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server)
        if front is None or listener is None:
            self._refusing = None
            self.port = self.inner_port = _listen(self._server, address, None if tls is None else _credentials(*tls))
        else:
            self._refusing = grpc.aio.server(options=OPTIONS)
            add_refusal(self._refusing, front)
            self.inner_port = _listen(self._server, INNER, None)
            self.port = int(listener.getsockname()[1])
        self.address = f"{address.rpartition(':')[0]}:{self.port}"

    async def start(self) -> None:
        """Serves from now on."""
        for name in ("", SERVICE):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        await self._server.start()
        if self._front is not None and self._refusing is not None and self._listener is not None:
            refusing = _listen(self._refusing, INNER, None)
            await self._refusing.start()
            await self._front.start(self._listener, self.inner_port, refusing)

    async def stop(self) -> None:
        """Ends all calls."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(STOP_PATIENCE)
        if self._front is not None and self._refusing is not None:
            self._front.close()
            await self._refusing.stop(0)


def _listen(server: grpc.aio.Server, address: str, credentials: grpc.ServerCredentials | None) -> int:
    """Returns the port."""
    try:
        port = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
    except RuntimeError:
        port = 0
    if not port:
        raise LocalError(f"cannot listen at {address} for gRPC: is the port taken?")
    return port


def _credentials(certificate: str, key: str) -> grpc.ServerCredentials:
    """Returns TLS by these files, whose owner and content `access.tls.server_context` has checked."""
    try:
        chain, secret = _read(certificate), _read(key)
    except OSError as error:
        raise LocalError(f"cannot read {error.filename}: {reason_of(error)}") from None
    return grpc.ssl_server_credentials([(secret, chain)])


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()
