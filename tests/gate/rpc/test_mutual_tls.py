"""Mutual TLS: the common name of the caller's certificate is a token's name, and nobody else comes in."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest

from cexec.gate.access.identity import Role
from cexec.gate.access.tls import make_client, make_materials
from cexec.gate.rpc.server import read_credentials
from cexec.gate.rpc.wire import cexec_pb2 as wire
from tests.gate.rpc.servers import RpcServer
from tests.service import Application, Service
from tests.waiting import PATIENCE

LONG_AGO = datetime.now(UTC) - timedelta(days=10_000)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("tls")
    make_materials(str(directory / "ours"), [], client="ci")
    make_materials(str(directory / "theirs"), [], client="ci")
    for name in ("viewer", "unknown", "gone"):
        make_client(str(directory / "ours"), name)
    make_client(str(directory / "ours"), "old", LONG_AGO)
    return directory


@pytest.fixture(scope="module")
def guarded(
    server: RpcServer, application: Application, place: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RpcServer]:
    """`server` has set the variables of this process."""
    ours = place / "ours"
    credentials = read_credentials(*(str(ours / name) for name in ("server.pem", "server.key", "ca.pem")))
    directory = tmp_path_factory.mktemp("guarded")
    with RpcServer(directory, [application.public], credentials=credentials) as started:
        for name, role in (("ci", Role.SUBMITTER), ("viewer", Role.VIEWER), ("old", Role.ADMIN), ("gone", Role.ADMIN)):
            started.token(name, role)
        started.revoke("gone")
        yield started


def caller(place: Path, name: str, of: str = "ours") -> grpc.ChannelCredentials:
    """What a caller with this certificate brings; all of them trust the server."""
    authority = (place / "ours" / "ca.pem").read_bytes()
    if not name:
        return grpc.ssl_channel_credentials(authority)
    key, chain = ((place / of / f"{name}.{ending}").read_bytes() for ending in ("key", "pem"))
    return grpc.ssl_channel_credentials(authority, key, chain)


def start(stub: Any) -> wire.Job:
    job: wire.Job = stub.StartJob(wire.StartJobRequest(command="echo safe"), timeout=PATIENCE).job
    return job


def test_the_common_name_is_the_tokens(guarded: RpcServer, place: Path) -> None:
    with guarded.stub(None, caller(place, "client")) as stub:
        job = start(stub)
        assert job.owner == "ci"
        answers = stub.StreamOutput(wire.StreamOutputRequest(id=job.id, follow=True), timeout=PATIENCE)
        assert b"".join(one.data for one in answers) == b"safe\n"
        assert stub.StopJob(wire.StopJobRequest(id=job.id), timeout=PATIENCE).job.state == wire.JOB_STATE_SUCCEEDED


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("unknown", grpc.StatusCode.PERMISSION_DENIED, "no valid token is called 'unknown', which is the common name"),
        ("gone", grpc.StatusCode.PERMISSION_DENIED, "no valid token is called 'gone'"),
        ("viewer", grpc.StatusCode.PERMISSION_DENIED, "this needs a token with the role submitter; yours is viewer"),
    ],
)
def test_a_name_without_a_right_starts_nothing(
    guarded: RpcServer, place: Path, worker: Service, name: str, code: grpc.StatusCode, words: str
) -> None:
    before = sum(" accepted " in line for line in worker.lines)
    with guarded.stub(None, caller(place, name)) as stub, pytest.raises(grpc.RpcError) as caught:
        start(stub)
    assert caught.value.code() is code and words in (caught.value.details() or "")
    assert sum(" accepted " in line for line in worker.lines) == before


@pytest.mark.parametrize(
    ("name", "of"), [("", "ours"), ("client", "theirs"), ("old", "ours")], ids=["none", "another authority", "expired"]
)
def test_a_certificate_that_does_not_count_ends_the_connection(
    guarded: RpcServer, place: Path, worker: Service, name: str, of: str
) -> None:
    """gRPC lets a server only end the handshake, so the caller's own library says what was wrong."""
    before = sum(" accepted " in line for line in worker.lines)
    with guarded.stub(None, caller(place, name, of)) as stub, pytest.raises(grpc.RpcError) as caught:
        start(stub)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert sum(" accepted " in line for line in worker.lines) == before


def test_a_token_in_the_metadata_is_judged_by_itself(guarded: RpcServer, place: Path) -> None:
    metadata = [("authorization", "Bearer x")]
    with guarded.stub(None, caller(place, "client")) as stub, pytest.raises(grpc.RpcError) as caught:
        stub.ListJobs(wire.ListJobsRequest(), metadata=metadata, timeout=PATIENCE)
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_plain_text_does_not_come_in(guarded: RpcServer) -> None:
    with guarded.stub("x") as stub, pytest.raises(grpc.RpcError) as caught:
        start(stub)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
