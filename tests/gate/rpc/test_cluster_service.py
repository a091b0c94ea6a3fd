"""The methods of `cexec.v1.Cluster` on a real service: jobs, their outputs, their ends, workers."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from cexec.gate.rpc.status_codes import DETAILS, DOMAIN
from cexec.gate.rpc.wire import cexec_pb2 as wire
from tests.gate.rpc.servers import RpcServer
from tests.service import Service
from tests.waiting import PATIENCE, wait_until

MINUTE = Duration(seconds=60)
UNKNOWN: Any = 77  # a value of an enumeration that a newer caller may know


def start(cluster: Any, script: str, *args: str, **more: Any) -> wire.Job:
    job: wire.Job = cluster.StartJob(wire.StartJobRequest(command=script, args=args, **more), timeout=PATIENCE).job
    return job


def ended(cluster: Any, job: wire.Job) -> wire.Job:
    found: wire.Job = cluster.GetJob(wire.GetJobRequest(id=job.id, wait=MINUTE), timeout=PATIENCE).job
    return found


def output(cluster: Any, job: wire.Job, **more: Any) -> bytes:
    answers = cluster.StreamOutput(wire.StreamOutputRequest(id=job.id, **more), timeout=PATIENCE)
    return b"".join(one.data for one in answers)


def failure(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        answer = call()
        list(answer)  # of a stream
    return caught.value.code(), caught.value.details() or ""


def test_a_job_from_start_to_end(cluster: Any, worker: Service) -> None:
    started = start(cluster, 'cat; echo "$0" "$PEER_WHAT" >&2; exit 3', "arg", stdin=b"in", environment={"WHAT": "x"})
    assert started.state == wire.JOB_STATE_QUEUED and started.owner == "tests" and started.app == "app"
    job = ended(cluster, started)
    assert (job.state, job.exit_status, job.attempts) == (wire.JOB_STATE_FAILED, 3, 1)
    assert job.worker.startswith("one@") and job.args == ['cat; echo "$0" "$PEER_WHAT" >&2; exit 3', "arg"]
    assert job.submitted.ToMilliseconds() <= job.started.ToMilliseconds() <= job.ended.ToMilliseconds()
    assert output(cluster, job) == b"in"
    assert output(cluster, job, stream=wire.STREAM_STDERR) == b"arg x\n"
    assert output(cluster, job, stream=wire.STREAM_STDERR, offset=4) == b"x\n"


def test_command_path_and_args_are_the_words(cluster: Any) -> None:
    job = start(cluster, 'echo "$0:$1:$2"', "b", "c", path="a")
    assert ended(cluster, job).exit_status == 0
    assert output(cluster, job) == b"a:b:c\n"


def test_a_job_that_succeeds(cluster: Any) -> None:
    job = ended(cluster, start(cluster, "true"))
    assert job.state == wire.JOB_STATE_SUCCEEDED and job.HasField("exit_status") and job.exit_status == 0


def test_an_idempotency_key_starts_one_job(cluster: Any) -> None:
    first = start(cluster, "echo once", idempotency_key="k1")
    assert start(cluster, "echo once", idempotency_key="k1").id == first.id
    code, words = failure(lambda: start(cluster, "echo twice", idempotency_key="k1"))
    assert code is grpc.StatusCode.INVALID_ARGUMENT and "came with another request before" in words


def test_a_job_is_stopped(cluster: Any, worker: Service) -> None:
    job = start(cluster, "echo begun; sleep 1000")
    wait_until(lambda: output(cluster, job) == b"begun\n")
    stopped = cluster.StopJob(wire.StopJobRequest(id=job.id), timeout=PATIENCE).job
    assert (stopped.state, stopped.HasField("exit_status")) == (wire.JOB_STATE_CANCELLED, False)
    assert "cancelled by tests" in stopped.reason
    again = cluster.StopJob(wire.StopJobRequest(id=job.id), timeout=PATIENCE).job
    assert again == stopped
    wait_until(lambda: not worker.started())


def test_a_signal_reaches_the_program(cluster: Any) -> None:
    job = start(cluster, 'trap "echo heard; exit 7" TERM; echo ready; while :; do sleep 0.05; done')
    wait_until(lambda: output(cluster, job) == b"ready\n")
    cluster.Signal(wire.SignalRequest(id=job.id, signal="SIGTERM"), timeout=PATIENCE)
    assert ended(cluster, job).exit_status == 7
    killed = start(cluster, "echo ready; exec sleep 1000")
    wait_until(lambda: output(cluster, killed) == b"ready\n")
    cluster.Signal(wire.SignalRequest(id=killed.id, signal="int"), timeout=PATIENCE)
    found = ended(cluster, killed)
    assert (found.state, found.signal, found.HasField("exit_status")) == (wire.JOB_STATE_FAILED, "SIGINT", False)


def test_an_output_is_followed_while_it_grows(cluster: Any, tmp_path: Path) -> None:
    go = tmp_path / "go"
    job = start(cluster, f"echo 1; until test -e {go}; do sleep 0.05; done; echo 2; sleep 0.3; echo 3")
    answers = cluster.StreamOutput(wire.StreamOutputRequest(id=job.id, follow=True), timeout=PATIENCE)
    first = next(answers)
    assert (first.offset, first.data) == (0, b"1\n")
    assert not cluster.GetJob(wire.GetJobRequest(id=job.id)).job.HasField("ended")
    go.touch()
    rest = list(answers)
    assert b"".join(one.data for one in rest) == b"2\n3\n"
    assert rest[-1].job.state == wire.JOB_STATE_SUCCEEDED and rest[-1].offset == 6
    later = list(cluster.StreamOutput(wire.StreamOutputRequest(id=job.id, follow=True, offset=2), timeout=PATIENCE))
    assert b"".join(one.data for one in later) == b"2\n3\n" and later[-1].job.id == job.id


def test_jobs_are_listed_page_by_page(cluster: Any) -> None:
    made = [start(cluster, "true").id for _ in range(5)]
    for id in made:
        ended(cluster, wire.Job(id=id))
    found: list[str] = []
    mark = ""
    while len(found) < 5:
        page = cluster.ListJobs(wire.ListJobsRequest(page_size=2, page_token=mark), timeout=PATIENCE)
        assert len(page.jobs) == 2
        found += [job.id for job in page.jobs]
        mark = page.next_page_token
    assert found[:5] == made[::-1]
    running = cluster.ListJobs(wire.ListJobsRequest(state=wire.JOB_STATE_RUNNING), timeout=PATIENCE)
    assert not running.jobs and not running.next_page_token


def test_workers_are_listed(cluster: Any) -> None:
    (worker,) = cluster.ListWorkers(wire.ListWorkersRequest(), timeout=PATIENCE).workers
    assert (worker.name, worker.app, worker.slots, worker.health) == ("one", "app", 8, "ok")
    assert len(worker.worker_id) == 36 and worker.attributes["os"] == "linux"
    assert abs(worker.since.seconds + worker.uptime.seconds - time.time()) < 5


def test_a_job_for_one_instance(cluster: Any) -> None:
    (worker,) = cluster.ListWorkers(wire.ListWorkersRequest(), timeout=PATIENCE).workers
    job = ended(cluster, start(cluster, "echo here", worker_id=worker.worker_id.upper()))
    assert (job.state, job.worker_id) == (wire.JOB_STATE_SUCCEEDED, worker.worker_id) and job.pool
    other = worker.worker_id[:-4] + "0000"
    code, words = failure(lambda: start(cluster, "echo there", worker_id=other))
    assert code is grpc.StatusCode.NOT_FOUND and "nothing was started" in words


@pytest.mark.parametrize(
    ("method", "request_", "code", "words"),
    [
        ("GetJob", wire.GetJobRequest(), "INVALID_ARGUMENT", "id: is empty"),
        ("GetJob", wire.GetJobRequest(id="absent"), "NOT_FOUND", "there is no job absent"),
        ("StopJob", wire.StopJobRequest(id="absent"), "NOT_FOUND", "there is no job absent"),
        ("Signal", wire.SignalRequest(id="absent", signal="SIGTERM"), "NOT_FOUND", "there is no job absent"),
        ("Signal", wire.SignalRequest(id="absent"), "INVALID_ARGUMENT", "signal: is empty"),
        ("Signal", wire.SignalRequest(id="absent", signal="SIGFOO"), "INVALID_ARGUMENT", "SIGFOO cannot be sent"),
        ("StreamOutput", wire.StreamOutputRequest(id="absent"), "NOT_FOUND", "there is no job absent"),
        ("StreamOutput", wire.StreamOutputRequest(id="a", stream=UNKNOWN), "INVALID_ARGUMENT", "stream: is no output"),
        ("StartJob", wire.StartJobRequest(app="other"), "NOT_FOUND", "no application is called other"),
        ("StartJob", wire.StartJobRequest(worker_id="x"), "INVALID_ARGUMENT", "worker_id: is no UUID"),
        ("StartJob", wire.StartJobRequest(path="x"), "INVALID_ARGUMENT", "command: is empty"),
        ("StartJob", wire.StartJobRequest(weight=9999), "INVALID_ARGUMENT", "weight: is at most 1000"),
        ("StartJob", wire.StartJobRequest(args=["\0"]), "INVALID_ARGUMENT", "args: contain a NUL"),
        ("StartJob", wire.StartJobRequest(time_limit=Duration(seconds=-1)), "INVALID_ARGUMENT", "time_limit: is more"),
        ("StartJob", wire.StartJobRequest(needs={"cpus": "x"}), "INVALID_ARGUMENT", "cpus takes a number"),
        ("ListJobs", wire.ListJobsRequest(state=UNKNOWN), "INVALID_ARGUMENT", "state: is no state"),
        ("ListWorkers", wire.ListWorkersRequest(app="other"), "NOT_FOUND", "no application is called other"),
        ("WatchWorkers", wire.WatchWorkersRequest(app="other"), "NOT_FOUND", "no application is called other"),
    ],
)
def test_what_is_wrong_is_told_and_nothing_is_started(
    cluster: Any, server: RpcServer, method: str, request_: Any, code: str, words: str
) -> None:
    before = server.jobs()
    found, told = failure(lambda: getattr(cluster, method)(request_, timeout=PATIENCE))
    assert found.name == code and words in told
    assert server.jobs() == before


def test_an_error_has_details(cluster: Any) -> None:
    from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
    from google.rpc.status_pb2 import Status

    with pytest.raises(grpc.RpcError) as caught:
        cluster.StartJob(wire.StartJobRequest(weight=9999, worker_id="x"), timeout=PATIENCE)
    metadata: Any = caught.value.trailing_metadata()
    (packed,) = [value for name, value in metadata if name == DETAILS]
    status = Status.FromString(packed)
    info, bad = ErrorInfo(), BadRequest()
    assert status.details[0].Unpack(info) and status.details[1].Unpack(bad)
    assert (info.domain, info.reason) == (DOMAIN, "INVALID")
    assert [one.field for one in bad.field_violations] == ["worker_id", "weight"]
    assert status.message == caught.value.details()


def test_an_offset_behind_the_end(cluster: Any) -> None:
    job = ended(cluster, start(cluster, "printf abc"))
    code, words = failure(lambda: output(cluster, job, offset=4))
    assert (code, words) == (grpc.StatusCode.OUT_OF_RANGE, "that is behind the end, which is at byte 3")
    assert output(cluster, job, offset=3) == b""


def test_changes_are_lines_of_the_audit(cluster: Any, server: RpcServer) -> None:
    job = ended(cluster, start(cluster, "true"))
    wait_until(lambda: f"job {job.id} started" in server.audit.read_text())
    (line,) = [line for line in server.audit.read_text().splitlines() if job.id in line]
    assert 'what="gRPC StartJob" status=OK' in line and "who=tests(submitter,#" in line and "from=127.0.0.1:" in line
    assert "GetJob" not in server.audit.read_text()
