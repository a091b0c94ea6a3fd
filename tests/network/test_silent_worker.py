"""A worker that says nothing, at any point: the client waits for those that do, and for nobody for ever."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time

import pytest

from cexec.protocol.connection import frames
from tests.conftest import StartService
from tests.environment import local_environment
from tests.fake_worker import LOOPBACK, SLOW, Connection, FakeWorker
from tests.service import Application
from tests.waiting import PATIENCE

SHORT_PATIENCE = """
import sys
from cexec.client import request
from cexec.commands import cexec
request.LEAST_IDLE_TIMEOUT = 0.0
sys.exit(cexec.main(sys.argv[1:]))
"""


@pytest.mark.parametrize("started", [False, True])
def test_a_worker_that_wins_and_stalls_is_dead_after_a_time(application: Application, started: bool) -> None:
    def play(connection: Connection) -> None:
        connection.take()
        if started:
            connection.start()
        connection.wait_for_end()

    argv = [sys.executable, "-c", SHORT_PATIENCE, os.fspath(application.public), "--retries", "0"]
    environment = local_environment({**LOOPBACK, "CEXEC_TIMEOUT_PINGPONG": "1"})
    with FakeWorker(application, play, attempts=1):
        start = time.monotonic()
        result = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, env=environment, timeout=60)
    assert result.returncode == 111
    assert b"failed: peer has been silent for 1 seconds; " in result.stderr
    assert time.monotonic() - start >= 1


def test_a_worker_that_answers_pings_is_alive_although_its_program_says_nothing(application: Application) -> None:
    answered = threading.Event()

    def play(connection: Connection) -> None:
        connection.take().start()
        for _ in range(3):
            assert connection.next_frame()[0] == frames.PING
            connection.frame(frames.PONG)
        answered.set()
        connection.read()
        connection.end(1, 2).exit(3).wait_for_end()

    argv = [sys.executable, "-c", SHORT_PATIENCE, os.fspath(application.public), "--retries", "0"]
    environment = local_environment({**LOOPBACK, "CEXEC_TIMEOUT_PINGPONG": "4"})
    with FakeWorker(application, play, attempts=1):
        client = subprocess.Popen(argv, stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
        assert answered.wait(PATIENCE)
        assert client.poll() is None
        _, said = client.communicate(timeout=20)
    assert (client.returncode, said) == (3, b"")


def test_workers_that_connect_and_say_nothing_delay_nobody_for_long(
    application: Application, service: StartService
) -> None:
    """More of them than the client looks at side by side: each has three seconds to prove itself."""

    def play(connection: Connection) -> None:
        client = connection.socket.getpeername()
        others = [socket.create_connection(client) for _ in range(70)]
        connection.wait_for_end()
        for other in others:
            other.close()

    service("cat", environment=SLOW)
    with FakeWorker(application, play, attempts=1):
        result = application.run(input=b"input", environment=LOOPBACK)
    assert (result.returncode, result.stdout, result.stderr) == (0, b"input", b"")


def test_a_worker_that_proves_itself_and_never_confirms_delays_nobody(
    application: Application, service: StartService
) -> None:
    def play(connection: Connection) -> None:
        connection.shake()
        connection.wait_for_end()

    service("cat", environment=SLOW)
    with FakeWorker(application, play, attempts=1):
        result = application.run(input=b"input", environment=LOOPBACK)
    assert (result.returncode, result.stdout, result.stderr) == (0, b"input", b"")
