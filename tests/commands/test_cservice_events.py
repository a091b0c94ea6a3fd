"""What cservice tells of its jobs, and how it stops.  Real processes on this machine only."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.conftest import StartService
from tests.environment import command, local_environment
from tests.service import Application
from tests.waiting import PATIENCE

# The log


def test_the_log_tells_each_job_from_its_acceptance_to_its_end(application: Application, service: StartService) -> None:
    worker = service("sh", "-c", "cat; exit 3")
    assert application.run(input=b"12345").returncode == 3
    finished = worker.wait_for(" finished ")
    accepted, started = worker.wait_for(" accepted "), worker.wait_for(" started ")
    job = re.search(r"job=([0-9a-f]{32}) attempt=1 name=default ", accepted)
    assert job is not None
    for line in (accepted, started, finished):
        assert abs(datetime.fromisoformat(line.split()[0]).timestamp() - time.time()) < 60
        assert re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d [a-z]+ ", line)
        assert f" job={job[1]} attempt=1 name=default " in line
    assert re.search(r" client=127\.0\.0\.1:\d+$", accepted)
    assert re.search(r" pid=\d+$", started)
    assert " status=3 sent=5 received=5 " in finished


def test_a_job_that_is_announced_with_another_key_is_told_once(
    application: Application, service: StartService, tmp_path: Path
) -> None:
    worker = service("cat")
    other = Application(tmp_path, "other")
    for _ in range(2):
        assert other.run(environment={"CEXEC_TIMEOUT_ACCEPT": "0.3"}).returncode == 111
    told = worker.wait_for(" another-key ")
    assert told.endswith(
        f' client=127.0.0.1 reason="a job was announced with another key than {application.fingerprint}; '
        "ckeygen --show tells a key file's\""
    )
    assert application.run(input=b"x").stdout == b"x"
    worker.wait_for(" finished ")
    assert len([line for line in worker.lines if " another-key " in line]) == 1


def test_log_json_is_one_object_a_line(application: Application, service: StartService) -> None:
    worker = service("true", options=["--log", "json", "--name", "w1", "-j", "2"])
    before = time.time()
    assert application.run().returncode == 0
    worker.wait_for('"finished"')
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
    events = [json.loads(line) for line in worker.lines]
    events = [event for event in events if event["event"] != "waiting"]  # for what may be left of the job
    assert [event["event"] for event in events] == ["ready", "accepted", "started", "finished", "stopping"]
    assert all(abs(event["time"] - before) < 60 for event in events)
    ready, accepted, started, finished, _ = events
    assert (ready["name"], ready["slots"], ready["command"]) == ("w1", 2, f"cexec {application.public}")
    assert ready["fingerprint"] == application.fingerprint and "127.255.255.255" in ready["addresses"]
    assert accepted["job"] == started["job"] == finished["job"]
    assert (accepted["attempt"], finished["status"]) == (1, 0)


def test_a_log_that_cannot_be_written_does_not_end_the_worker(application: Application) -> None:
    argv = command("cservice", application.secret, "echo", "well")
    with open("/dev/full", "wb") as full, subprocess.Popen(argv, env=local_environment(), stderr=full) as worker:
        try:
            assert [application.run().stdout for _ in range(2)] == [b"well\n"] * 2
            worker.terminate()
            assert worker.wait(PATIENCE) == 0
        finally:
            worker.kill()


# Stopping


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_worker_stops_at_once_and_well(number: int, service: StartService) -> None:
    worker = service("true")
    began = time.monotonic()
    worker.signal(number)
    assert worker.wait() == 0
    assert time.monotonic() - began < 20
    assert worker.lines[-1].endswith(" stopping jobs=0")


def start_slow_job(application: Application) -> subprocess.Popen[bytes]:
    argv, environment = application.client()
    argv[2:2] = ["--retries", "0"]
    pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    client = subprocess.Popen(argv, env=environment, **pipes)
    assert client.stderr is not None
    assert client.stderr.readline() == b"running\n"
    return client


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_once_running_jobs_finish_and_no_new_one_begins(
    number: int, application: Application, service: StartService, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    worker = service("sh", "-c", f"echo running >&2; until test -e {go}; do sleep 0.05; done; echo done")
    with start_slow_job(application) as client:
        worker.signal(number)
        assert worker.wait_for(" stopping ").endswith(" jobs=1")
        assert 'reason="1 job still runs; Ctrl-C again ends it (or SIGTERM)"' in worker.wait_for(" waiting ")
        late = application.run(environment={"CEXEC_TIMEOUT_ACCEPT": "0.3"})
        assert (late.returncode, late.stdout) == (111, b"")
        go.touch()
        assert client.communicate(timeout=PATIENCE) == (b"done\n", b"")
        assert client.returncode == 0
    assert worker.wait() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_twice_running_jobs_are_ended(number: int, application: Application, service: StartService) -> None:
    worker = service("sh", "-c", "echo running >&2; sleep 60; echo done")
    with start_slow_job(application) as client:
        for event in (" stopping ", " ending "):
            worker.signal(number)
            worker.wait_for(event)
        assert worker.wait() == 0
        output, errors = client.communicate(timeout=PATIENCE)
        assert (client.returncode, output) == (111, b"")
        assert print(errors) or (errors.count(b"\n") == 1 and b"failed: " in errors)
    assert worker.started() == []


def test_cservice_listens_on_no_tcp_port(service: StartService) -> None:
    worker = service("true")
    connections = psutil.Process(worker.pid).net_connections("inet")
    assert [one for one in connections if one.type == socket.SOCK_STREAM] == []
