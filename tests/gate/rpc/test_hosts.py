"""The whole of it over four hosts: mutual TLS, a script on a chosen worker, and its output while it counts.

The caller is a program that knows the service by its generated code alone.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from cexec.gate.access.tls import make_client, make_materials
from tests.environment import ROOT, clean_environment, command
from tests.gate.tokens import make_token
from tests.lab import Host, Lab
from tests.needs import require_namespaces
from tests.service import Application, Service
from tests.waiting import PATIENCE, wait_until

GATE, FIRST, SECOND, CALLER = 1, 2, 3, 4  # hosts

BEGIN = """
import sys, time
import grpc
from google.protobuf.duration_pb2 import Duration
from cexec.gate.rpc.wire import cexec_pb2 as wire
from cexec.gate.rpc.wire.cexec_pb2_grpc import ClusterStub

address, *files = sys.argv[1:]
authority, key, chain = (open(name, "rb").read() for name in files)
channel = grpc.secure_channel(address, grpc.ssl_channel_credentials(authority, key, chain))
cluster = ClusterStub(channel)
"""
COUNT = (
    BEGIN
    + """
workers = {one.name: one for one in cluster.ListWorkers(wire.ListWorkersRequest()).workers}
assert sorted(workers) == ["first", "second"], sorted(workers)
for name in ("second", "first"):
    started = cluster.StartJob(wire.StartJobRequest(
        worker_id=workers[name].worker_id, command="bash", path="examples/scripts/count.sh", args=["4", "0.8"])).job
    begin = time.monotonic()
    lines = []
    for answer in cluster.StreamOutput(wire.StreamOutputRequest(id=started.id, follow=True)):
        lines += [(line, time.monotonic() - begin) for line in answer.data.decode().split()]
    job = answer.job
    assert [line for line, _ in lines] == ["1", "2", "3", "4"], lines
    assert lines[0][1] < lines[-1][1] - 0.5, lines  # it came while it counted
    assert job.state == wire.JOB_STATE_SUCCEEDED and job.worker.startswith(name + "@"), job
endless = cluster.StartJob(wire.StartJobRequest(command="bash", path="count.sh", args=["1000"])).job
next(cluster.StreamOutput(wire.StreamOutputRequest(id=endless.id, follow=True)))
stopped = cluster.StopJob(wire.StopJobRequest(id=endless.id)).job
assert stopped.state == wire.JOB_STATE_CANCELLED, stopped
refused = cluster.StartJob(wire.StartJobRequest(command="bash", path="../../etc/passwd")).job
job = cluster.GetJob(wire.GetJobRequest(id=refused.id, wait=Duration(seconds=30))).job
assert job.exit_status == 100, job
print("counted")
"""
)
LIST = BEGIN + "print(len(cluster.ListJobs(wire.ListJobsRequest(), timeout=20).jobs))"
PIPE = (
    BEGIN
    + """
def messages():
    yield wire.ExecRequest(start=wire.StartJobRequest(command="bash", path="count.sh", args=["1000", "0.1"]))
    time.sleep(1000)

for answer in cluster.Exec(messages()):
    print(answer.WhichOneof("message"), flush=True)
"""
)


class Site:
    """`cgate --grpc` on the first host, two workers, and callers on the fourth."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        lab = stack.enter_context(Lab(4))
        self.hosts = lab.hosts
        self.tls, self.state = directory / "tls", directory / "state"
        application = Application(directory)
        options = ["--allow-args", "-j", "4", "--name"]
        program = [str(ROOT / "examples" / "scripts-of"), str(ROOT / "examples" / "scripts")]
        self.workers = {}
        for name, number in (("first", FIRST), ("second", SECOND)):
            worker = Service(application, program, [*options, name], lab.host(number))
            stack.callback(worker.close)
            self.workers[name] = worker
        gate = lab.host(GATE)
        make_materials(str(self.tls), [gate.address], client="scheduler")
        make_client(str(self.tls), "nobody")
        make_token(self.state, "scheduler")
        self.address = f"{gate.address}:8043"
        files = [f"--{name}={self.tls / file}" for name, file in
                 (("tls-cert", "server.pem"), ("tls-key", "server.key"), ("client-ca", "ca.pem"))]  # fmt: skip
        argv = command("cgate", "--state", self.state, "--grpc", self.address, *files, application.public)
        self.log = directory / "log"
        with self.log.open("w") as log:
            process = gate.popen(argv, env=clean_environment(), stdin=subprocess.DEVNULL, stderr=log)
        stack.callback(process.wait, PATIENCE)
        stack.callback(process.terminate)
        wait_until(lambda: f"and by gRPC at {self.address}" in self.log.read_text(), explain=self.log.read_text)

    def argv(self, code: str, client: str) -> list[str]:
        files = [str(self.tls / name) for name in ("ca.pem", f"{client}.key", f"{client}.pem")]
        return [sys.executable, "-c", code, self.address, *files]

    @property
    def caller(self) -> Host:
        return self.hosts[CALLER - 1]

    def call(self, code: str, client: str = "client") -> subprocess.CompletedProcess[str]:
        argv = self.argv(code, client)
        return self.caller.run(argv, env=clean_environment(), capture_output=True, text=True, timeout=PATIENCE)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    require_namespaces()
    with ExitStack() as stack:
        yield Site(tmp_path_factory.mktemp("site"), stack)


def test_a_script_runs_on_a_chosen_worker_and_is_seen_while_it_counts(site: Site) -> None:
    ended = site.call(COUNT)
    assert (ended.returncode, ended.stdout) == (0, "counted\n"), ended.stderr
    wait_until(lambda: not any(worker.started() for worker in site.workers.values()))


def test_without_a_token_of_that_name_nothing_is_done(site: Site) -> None:
    ended = site.call(LIST, "nobody")
    assert ended.returncode == 1
    assert "PERMISSION_DENIED" in ended.stderr and "no valid token is called 'nobody'" in ended.stderr


def test_a_caller_that_is_killed_in_the_middle_of_exec_leaves_no_orphan(site: Site) -> None:
    pipes = {"stdout": subprocess.PIPE, "stdin": subprocess.DEVNULL}
    client: Any
    with site.caller.popen(site.argv(PIPE, "client"), env=clean_environment(), **pipes) as client:
        while client.stdout.readline() != b"stdout\n":
            assert client.poll() is None
        client.kill()
    wait_until(lambda: not any(worker.started() for worker in site.workers.values()))
