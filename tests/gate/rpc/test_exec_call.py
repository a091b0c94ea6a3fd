"""Exec: bytes both ways, back-pressure both ways, and nothing that runs on when the caller has gone."""

from __future__ import annotations

import queue
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import psutil
import pytest

from cexec.gate.rpc.wire import cexec_pb2 as wire
from tests.gate.rpc.servers import RpcServer, moves
from tests.service import Service
from tests.waiting import PATIENCE, wait_until

CHUNK = bytes(256 * 1024)


def first(script: str, *args: str, **more: Any) -> wire.ExecRequest:
    return wire.ExecRequest(start=wire.StartJobRequest(command=script, args=args, **more))


def stdin(data: bytes) -> wire.ExecRequest:
    return wire.ExecRequest(stdin=data)


END = wire.ExecRequest(stdin_end=wire.StdinEnd())


def converse(cluster: Any, *messages: wire.ExecRequest) -> tuple[bytes, bytes, wire.Job, list[str]]:
    """The outputs, the job at its end, and the kinds of the answers."""
    answers = list(cluster.Exec(iter(messages), timeout=PATIENCE))
    outputs = (b"".join(getattr(one, name) for one in answers) for name in ("stdout", "stderr"))
    return (*outputs, answers[-1].exit, [str(one.WhichOneof("message")) for one in answers])


def test_a_conversation(cluster: Any) -> None:
    out, err, job, kinds = converse(
        cluster, first('cat; echo "$0" >&2; exit 5', "said", stdin=b"one "), stdin(b"two "), stdin(b"three"), END
    )
    assert (out, err, job.exit_status, job.state) == (b"one two three", b"said\n", 5, wire.JOB_STATE_FAILED)
    assert kinds.count("started") == 1 and kinds.count("exit") == 1 and kinds[-1] == "exit"


def test_the_end_of_the_messages_is_the_end_of_the_input(cluster: Any) -> None:
    out, _, job, _ = converse(cluster, first("cat"), stdin(b"x"))
    assert (out, job.state) == (b"x", wire.JOB_STATE_SUCCEEDED)


def test_a_program_that_reads_nothing_ends_all_the_same(cluster: Any) -> None:
    out, _, job, _ = converse(cluster, first("exec <&-; echo done"), *[stdin(CHUNK)] * 20)
    assert (out, job.exit_status) == (b"done\n", 0)


def test_a_signal(cluster: Any) -> None:
    words: queue.SimpleQueue[wire.ExecRequest | None] = queue.SimpleQueue()
    words.put(first('trap "echo heard; exit 7" INT; echo ready; while :; do sleep 0.05; done'))
    answers = cluster.Exec(iter(words.get, None), timeout=PATIENCE)
    assert next(one.stdout for one in answers if one.stdout) == b"ready\n"
    words.put(wire.ExecRequest(signal="SIGINT"))
    rest = list(answers)
    words.put(None)
    assert b"".join(one.stdout for one in rest) == b"heard\n" and rest[-1].exit.exit_status == 7


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([], "start: is missing"),
        ([stdin(b"x")], "start: is missing"),
        ([first("cat"), first("cat")], "start: is not what follows a start"),
        ([first("cat"), wire.ExecRequest()], "message: is not what follows a start"),
        ([first("cat"), wire.ExecRequest(signal="SIGFOO")], "SIGFOO cannot be sent"),
        ([first("cat", worker_id="x")], "worker_id: is no UUID"),
    ],
)
def test_wrong_messages_end_the_call_and_the_job(
    cluster: Any, worker: Service, messages: list[wire.ExecRequest], words: str
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        list(cluster.Exec(iter(messages), timeout=PATIENCE))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT and words in (caught.value.details() or "")
    wait_until(lambda: not worker.started())


def test_a_caller_that_hangs_up_leaves_nothing(cluster: Any, server: RpcServer, worker: Service) -> None:
    call = cluster.Exec(iter([first("echo begun; exec sleep 1000")]), timeout=PATIENCE)
    job = next(one.started for one in call if one.WhichOneof("message") == "started")
    call.cancel()
    wait_until(lambda: not worker.started())
    ended = cluster.GetJob(wire.GetJobRequest(id=job.id, wait={"seconds": 50}), timeout=PATIENCE).job
    assert (ended.state, ended.reason) == (wire.JOB_STATE_CANCELLED, "the caller of Exec has gone")


CLIENT = """
import sys, time
import grpc
from cexec.gate.rpc.wire import cexec_pb2 as wire
from cexec.gate.rpc.wire.cexec_pb2_grpc import ClusterStub

def messages():
    yield wire.ExecRequest(start=wire.StartJobRequest(command="while :; do cat; done"))
    while True:
        yield wire.ExecRequest(stdin=bytes(65536))

channel = grpc.insecure_channel(sys.argv[1])
for answer in ClusterStub(channel).Exec(messages(), metadata=[("authorization", "Bearer " + sys.argv[2])]):
    print(answer.WhichOneof("message"), flush=True)
"""


def test_a_caller_that_is_killed_in_the_middle_leaves_no_orphan(server: RpcServer, token: str, worker: Service) -> None:
    argv = [sys.executable, "-c", CLIENT, f"127.0.0.1:{server.port}", token]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as client:
        assert client.stdout is not None
        while client.stdout.readline() != b"stdout\n":
            assert client.poll() is None
        client.kill()
        while client.stdout.read(65536):
            pass
    wait_until(lambda: not worker.started())


def test_a_revoked_token_ends_its_calls_and_their_jobs(server: RpcServer, worker: Service) -> None:
    with server.stub(server.token("leaver")) as stub:
        call = stub.Exec(iter([first("exec sleep 1000")]), timeout=PATIENCE)
        next(call)
        server.revoke("leaver")
        with pytest.raises(grpc.RpcError) as caught:
            list(call)
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    wait_until(lambda: not worker.started())


def endless() -> Iterator[wire.ExecRequest]:
    yield first("cat >/dev/null & exec sleep 1000")


def test_a_caller_that_does_not_read_keeps_the_program_waiting(cluster: Any, worker: Service) -> None:
    """Two writers of 200 MB each: the server's memory grows by windows, not by what they write."""
    before = psutil.Process().memory_info().rss
    script = "head -c 200000000 /dev/zero; echo past >&2; exec sleep 1000"
    call = cluster.Exec(iter([first(script)]), timeout=120)
    next(one for one in call if one.stdout)
    writer = next(one for one in worker.started() if one.name() == "head")
    wait_until(lambda: writer.status() == psutil.STATUS_SLEEPING and not moves(writer))
    assert psutil.Process().memory_info().rss - before < 40_000_000
    assert writer.is_running()
    call.cancel()
    wait_until(lambda: not worker.started())


def test_a_program_that_does_not_read_keeps_the_caller_waiting(cluster: Any, worker: Service) -> None:
    given = 0

    def messages() -> Iterator[wire.ExecRequest]:
        nonlocal given
        yield first("exec sleep 1000")
        while given < 200_000_000:
            given += len(CHUNK)
            yield stdin(CHUNK)

    call = cluster.Exec(messages(), timeout=120)
    next(call)
    settled = -1
    while settled != given:
        settled = given
        threading.Event().wait(0.7)
    assert len(CHUNK) <= given < 30_000_000
    call.cancel()
    wait_until(lambda: not worker.started())


def test_much_both_ways(cluster: Any) -> None:
    size = 64 * len(CHUNK)
    out, _, job, _ = converse(cluster, first("cat"), *[stdin(CHUNK)] * 64, END)
    assert (len(out), job.state) == (size, wire.JOB_STATE_SUCCEEDED)
