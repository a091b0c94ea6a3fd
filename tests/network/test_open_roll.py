"""`cexec --all` while its census goes on: when jobs begin, lost answers, a stopped client, and signals."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from typing import Any, Self

import pytest

from cexec.protocol.base.keys import OwnerKey, WorkerKey
from cexec.protocol.base.limits import UDP_PORT
from cexec.protocol.datagrams import datagram
from cexec.protocol.datagrams.announcement import CENSUS, RUN_ALL
from cexec.protocol.datagrams.opened_announcement import open_announcement
from cexec.system.storage.keyfile import read_key
from tests.conftest import MakeLab, StartService
from tests.environment import LOOPBACK_GROUP, clean_environment, command
from tests.fake_worker import LOOPBACK
from tests.needs import require_tool
from tests.service import Application
from tests.waiting import PATIENCE, all_asleep, wait_until

NAMES = ("ann", "bob", "cid")
STOPPED = 4.0  # seconds, longer than a worker waits for an answer to its offer
PIPES: dict[str, Any] = {
    "stdin": subprocess.DEVNULL,
    "stdout": subprocess.PIPE,
    "stderr": subprocess.PIPE,
    "text": True,
}


class Overheard:
    """Hears the announcements on the loopback group, as a worker does, and says nothing."""

    def __init__(self, application: Application) -> None:
        key = read_key(os.fspath(application.secret), (OwnerKey,), "")
        assert isinstance(key, OwnerKey)
        self._key: WorkerKey = key.worker_key("ear")
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind((LOOPBACK_GROUP, UDP_PORT))
        self._socket.setblocking(False)
        self._kinds: list[int] = []

    def kinds(self) -> list[int]:
        """Returns the kinds of all announcements so far, in the order of their coming."""
        while True:
            try:
                data = self._socket.recv(2048)
            except BlockingIOError:
                return self._kinds
            parsed = datagram.parse(data, [self._key.mac1_key])
            if parsed is not None and parsed.kind == datagram.ANNOUNCEMENT:
                self._kinds.append(open_announcement(self._key, parsed.inner).announcement.kind)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()


@pytest.fixture
def overheard(application: Application) -> Iterator[Overheard]:
    with Overheard(application) as made:
        yield made


def test_the_job_is_announced_before_the_census_is_over(
    application: Application, service: StartService, overheard: Overheard
) -> None:
    service("cat", environment=LOOPBACK)
    done = application.run("--all", input=b"x", environment=LOOPBACK)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"x", b"")
    kinds = overheard.kinds()
    assert kinds[0] == CENSUS and CENSUS in kinds[kinds.index(RUN_ALL) :]


def test_the_job_is_not_announced_before_as_many_are_there_as_are_expected(
    application: Application, service: StartService, overheard: Overheard
) -> None:
    service("cat", environment=LOOPBACK)
    done = application.run("--all", "--expect", "2", environment=LOOPBACK)
    assert done.returncode == 111 and b"nothing has been started" in done.stderr
    assert set(overheard.kinds()) == {CENSUS}


def test_a_worker_whose_answers_are_lost_gets_the_job_once(
    lab: MakeLab, service: StartService, application: Application
) -> None:
    require_tool("nft")
    client, *hosts = lab(3).hosts
    options = [["--name", name, "-j", "1"] for name in NAMES]
    services = [service("cat", host=host, options=one) for host, one in zip(hosts, options, strict=False)]
    hosts[1].drop(100, hook="output")
    time.sleep(1)  # a worker says its uptime in whole seconds, and 0 could mean that it started after the job
    done = application.run("--all", "--tag", input=b"x", host=client)
    assert (done.returncode, done.stderr) == (0, b"")
    assert sorted(done.stdout.splitlines()) == [b"ann: x", b"bob: x"]
    for one in services:
        one.wait_for(" finished ")
        assert len([line for line in one.lines if " accepted " in line]) == 1


def test_a_client_that_is_stopped_in_the_census_runs_every_job_once_and_blames_nobody(
    lab: MakeLab, service: StartService, application: Application
) -> None:
    client, *hosts = lab(len(NAMES) + 1).hosts
    options = [["--name", name, "-j", "1"] for name in NAMES]
    services = [service("echo", "done", host=host, options=one) for host, one in zip(hosts, options, strict=True)]
    argv = command("cexec", "--all", "--tag", application.public)
    process = client.popen(argv, env=clean_environment(), **PIPES)
    wait_until(lambda: any(" accepted " in line for one in services for line in one.lines), pause=0.002)
    process.send_signal(signal.SIGSTOP)
    time.sleep(STOPPED)
    process.send_signal(signal.SIGCONT)
    output, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, errors) == (0, "")
    assert sorted(output.splitlines()) == [f"{name}: done" for name in NAMES]
    for one in services:
        one.wait_for(" finished ")
        assert len([line for line in one.lines if " started " in line]) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("begun", [False, True], ids=["asking", "announced"])
def test_a_signal_before_the_first_start_ends_the_client_at_once(
    application: Application, service: StartService, overheard: Overheard, number: signal.Signals, begun: bool
) -> None:
    """Either too few workers are there, or the only one is busy."""
    options = ["--on", "a", "--expect", "1"] if begun else ["--expect", "2"]
    worker = service("cat", options=["-j", "1", "--name", "a"], environment=LOOPBACK)
    argv, environment = application.client(environment=LOOPBACK)
    with subprocess.Popen(argv, env=environment, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as occupant:
        worker.wait_for(" started ")
        client = subprocess.Popen([*argv, *options, "--all"], env=environment, **PIPES)
        wait_until(lambda: (RUN_ALL if begun else CENSUS) in overheard.kinds())
        wait_until(lambda: all_asleep(client.pid))  # it waits in its loop
        client.send_signal(number)
        assert client.communicate(timeout=PATIENCE) == ("", "")
        assert client.returncode == -number
        occupant.communicate()
    assert len([line for line in worker.lines if " started " in line]) == 1
