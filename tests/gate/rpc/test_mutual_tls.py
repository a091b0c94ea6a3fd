"""Mutual TLS: the common name of the caller's certificate is a token's name, and nobody else comes in."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from cexec.gate.access.caller import TokenRole
from cexec.gate.access.tls import make_client, make_materials
from cexec.gate.rpc.wire import cexec_pb2 as wire
from cexec.gate.rpc.wire.cexec_pb2_grpc import ClusterStub
from tests.gate.rpc.servers import RpcServer, moves
from tests.service import Application, Service
from tests.waiting import PATIENCE, wait_until

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
    tls = str(ours / "server.pem"), str(ours / "server.key"), str(ours / "ca.pem")
    with RpcServer(tmp_path_factory.mktemp("guarded"), [application.public], tls=tls) as started:
        for name, role in (
            ("ci", TokenRole.SUBMITTER),
            ("viewer", TokenRole.VIEWER),
            ("old", TokenRole.ADMIN),
            ("gone", TokenRole.ADMIN),
        ):
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
    guarded: RpcServer, place: Path, name: str, code: grpc.StatusCode, words: str
) -> None:
    before = guarded.jobs()
    with guarded.stub(None, caller(place, name)) as stub, pytest.raises(grpc.RpcError) as caught:
        start(stub)
    assert caught.value.code() is code and words in (caught.value.details() or "")
    assert guarded.jobs() == before


NOT_OURS = "the client certificate is not of the authority that cgate was given (--client-ca)"


@pytest.mark.parametrize(
    ("name", "of", "words"),
    [
        ("", "ours", "this needs a client certificate of the authority that cgate was given (--client-ca)"),
        ("client", "theirs", NOT_OURS),
        ("old", "ours", "the client certificate has expired on "),
        ("server", "ours", "the certificate is not one for clients"),
    ],
    ids=["none", "another authority", "expired", "a server's"],
)
def test_a_certificate_that_does_not_count_is_told_why_and_starts_nothing(
    guarded: RpcServer, place: Path, name: str, of: str, words: str
) -> None:
    before = guarded.jobs()
    with guarded.stub(guarded.token(f"extra-{of}-{name}"), caller(place, name, of)) as stub:  # a token does not help
        for _ in range(2):
            with pytest.raises(grpc.RpcError) as caught:
                start(stub)
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
            assert (caught.value.details() or "").startswith(words)
        with pytest.raises(grpc.RpcError) as caught:
            list(stub.WatchWorkers(wire.WatchWorkersRequest(), timeout=PATIENCE))
        assert (caught.value.details() or "").startswith(words)
    assert guarded.jobs() == before


def test_health_needs_a_certificate_too(guarded: RpcServer, place: Path) -> None:
    for name, code in (("client", None), ("", grpc.StatusCode.UNAUTHENTICATED)):
        with grpc.secure_channel(f"localhost:{guarded.port}", caller(place, name)) as channel:
            check: Any = health_pb2_grpc.HealthStub(channel)
            if code is None:
                assert check.Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE).status == 1
                continue
            with pytest.raises(grpc.RpcError) as caught:
                check.Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE)
            assert caught.value.code() is code


def test_the_port_behind_the_front_is_for_nobody(guarded: RpcServer, place: Path) -> None:
    inner = guarded.inner_port
    with grpc.insecure_channel(f"127.0.0.1:{inner}") as channel:
        stub: Any = ClusterStub(channel)  # type: ignore[no-untyped-call]
        metadata = [("authorization", f"Bearer {guarded.token('thief')}")]
        with pytest.raises(grpc.RpcError) as caught:
            stub.ListJobs(wire.ListJobsRequest(), metadata=metadata, timeout=PATIENCE)
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert "this port is not for callers" in (caught.value.details() or "")


def test_the_audit_has_the_callers_address(guarded: RpcServer, place: Path) -> None:
    with guarded.stub(None, caller(place, "client")) as stub:
        job = start(stub)
    wait_until(lambda: f"job {job.id} started" in guarded.audit.read_text())
    (line,) = [line for line in guarded.audit.read_text().splitlines() if job.id in line]
    assert "who=ci(submitter,#" in line and f":{guarded.inner_port} " not in line


def test_much_both_ways_through_tls(guarded: RpcServer, place: Path) -> None:
    chunk, count = bytes(256 * 1024), 64
    messages = [wire.ExecRequest(start=wire.StartJobRequest(command="cat"))]
    messages += [wire.ExecRequest(stdin=chunk)] * count
    with guarded.stub(None, caller(place, "client")) as stub:
        answers = list(stub.Exec(iter(messages), timeout=PATIENCE))
    assert sum(len(one.stdout) for one in answers) == len(chunk) * count
    assert answers[-1].exit.state == wire.JOB_STATE_SUCCEEDED


def test_a_caller_that_does_not_read_keeps_the_front_small(guarded: RpcServer, place: Path, worker: Service) -> None:
    before = psutil.Process().memory_info().rss
    script = "head -c 300000000 /dev/zero; exec sleep 1000"
    with guarded.stub(None, caller(place, "client")) as stub:
        call = stub.Exec(iter([wire.ExecRequest(start=wire.StartJobRequest(command=script))]), timeout=120)
        next(one for one in call if one.stdout)
        writer = next(one for one in worker.started() if one.name() == "head")
        wait_until(lambda: writer.status() == psutil.STATUS_SLEEPING and not moves(writer))
        assert psutil.Process().memory_info().rss - before < 60_000_000
        call.cancel()
    wait_until(lambda: not worker.started())


@pytest.mark.parametrize("data", [b"", b"\x16\x03\x01", b"GET / HTTP/1.1\r\n\r\n", bytes(5000)])
def test_strangers_who_speak_no_tls(guarded: RpcServer, data: bytes) -> None:
    front = guarded.front
    with socket.create_connection(("127.0.0.1", guarded.port)) as stranger:
        stranger.sendall(data)
        stranger.shutdown(socket.SHUT_WR)
        while stranger.recv(1000):
            pass
    wait_until(lambda: not front.handshakes)


def test_a_token_in_the_metadata_is_judged_by_itself(guarded: RpcServer, place: Path) -> None:
    metadata = [("authorization", "Bearer x")]
    with guarded.stub(None, caller(place, "client")) as stub, pytest.raises(grpc.RpcError) as caught:
        stub.ListJobs(wire.ListJobsRequest(), metadata=metadata, timeout=PATIENCE)
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_plain_text_does_not_come_in(guarded: RpcServer) -> None:
    with guarded.stub("x") as stub, pytest.raises(grpc.RpcError) as caught:
        start(stub)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
