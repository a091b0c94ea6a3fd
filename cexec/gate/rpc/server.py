"""The gRPC server of `cgate`: the cluster's service, health and reflection, on one address.

Contract: `GrpcServer.start` listens, or raises `LocalError`; `stop` lets calls end for a moment and ends the rest.
Health and reflection need no token, because they say nothing of jobs; over TLS with a client authority they need a
certificate, as everything does.  One event loop, and no fork in this process: gRPC's threads survive neither.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from cexec.errors import LocalError
from cexec.gate.rpc.cluster_service import Cluster
from cexec.gate.rpc.wire import cexec_pb2
from cexec.gate.rpc.wire.cexec_pb2_grpc import add_ClusterServicer_to_server
from cexec.system.reason import reason_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cexec.gate.jobs.desk import Desk
    from cexec.gate.jobs.engine import Engine
    from cexec.gate.rpc.door import Door

SERVICE = cexec_pb2.DESCRIPTOR.services_by_name["Cluster"].full_name
LARGEST_MESSAGE = 64 << 20  # bytes (ours): a whole standard input, as over HTTP
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
    """`address`: numeric, with the port."""

    def __init__(
        self, address: str, engine: Engine, desk: Desk, door: Door, credentials: grpc.ServerCredentials | None
    ) -> None:
        self._server = grpc.aio.server(options=OPTIONS)
        self._health = health.aio.HealthServicer()
        add_ClusterServicer_to_server(  # type: ignore[no-untyped-call]  # it is generated
            Cluster(engine, desk, door), self._server
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection((SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server)
        try:
            if credentials is None:
                self.port = self._server.add_insecure_port(address)
            else:
                self.port = self._server.add_secure_port(address, credentials)
        except RuntimeError:
            self.port = 0
        if not self.port:
            raise LocalError(f"cannot listen at {address} for gRPC: is the port taken?")
        self.address = f"{address.rpartition(':')[0]}:{self.port}"

    async def start(self) -> None:
        """Serves from now on."""
        for name in ("", SERVICE):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        await self._server.start()

    async def stop(self) -> None:
        """Ends all calls."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(STOP_PATIENCE)


def read_credentials(certificate: str, key: str, client_ca: str | None) -> grpc.ServerCredentials:
    """Returns TLS by these files, whose owner and content `access.tls.server_context` has checked."""
    contents: list[bytes | None] = []
    for path in (certificate, key, client_ca):
        try:
            contents.append(None if path is None else _read(path))
        except OSError as error:
            raise LocalError(f"cannot read {path}: {reason_of(error)}") from None
    chain, secret, authority = contents
    assert chain is not None and secret is not None
    return grpc.ssl_server_credentials([(secret, chain)], authority, authority is not None)


def _read(path: str) -> bytes:
    with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC), "rb") as file:
        return file.read()
