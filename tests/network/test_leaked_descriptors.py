"""A job does not fail because of descriptors that leaked in; those that the user means go with it."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.fake_worker import LOOPBACK, Connection, FakeWorker
from tests.leaks import RESET, Leaks
from tests.service import Application, Shell
from tests.waiting import PATIENCE


@pytest.fixture
def leaks(tmp_path: Path) -> Iterator[Leaks]:
    with ExitStack() as stack:
        yield Leaks(stack, tmp_path)


def start(argv: Sequence[str], environment: dict[str, str], fds: dict[int, int]) -> subprocess.Popen[bytes]:
    """A client with these descriptors of ours under these numbers."""
    high = {number: os.dup2(fd, 100 + number, inheritable=True) for number, fd in fds.items()}
    outer = "import os, sys\n" + "".join(f"os.dup2({fd}, {number}); os.close({fd})\n" for number, fd in high.items())
    try:
        return subprocess.Popen(
            [sys.executable, "-S", "-c", outer + "os.execv(sys.argv[1], sys.argv[1:])", *argv],
            env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            pass_fds=list(high.values()),
        )  # fmt: skip
    finally:
        for fd in high.values():
            os.close(fd)


def test_a_job_with_everything_that_leaks_is_a_job_as_any_other(shell: Shell, leaks: Leaks) -> None:
    names = [name for name in Leaks.BAD if name not in ("tun", "kvm", "random numbers", "log device", "memory")]
    fds = {5 + at: leaks.open(name) for at, name in enumerate(names)}
    argv, environment = shell.client("ls /proc/self/fd; echo end", "--explain")
    client = start(argv, environment, fds)
    out, err = client.communicate(timeout=PATIENCE)
    assert client.returncode == 0, err.decode()
    assert out.split()[:3] == [b"0", b"1", b"2"] and not {b"%d" % number for number in fds} & set(out.split())
    (line,) = [line for line in err.decode().splitlines() if "descriptors that the program does not get" in line]
    assert all(f" {number} (" in line for number in fds)


@pytest.mark.parametrize("name", [*Leaks.BAD, *Leaks.GOOD])
def test_no_descriptor_that_the_program_does_not_touch_fails_or_keeps_a_job(
    shell: Shell, leaks: Leaks, name: str
) -> None:
    """Regression: a closed pseudo-terminal, a reset socket, /dev/kvm and others failed it, /dev/hwrng kept it."""
    argv, environment = shell.client("sleep 0.2; echo end")
    client = start(argv, environment, {7: leaks.open(name)})
    try:
        out, err = client.communicate(timeout=PATIENCE)
        assert (client.returncode, out) == (0, b"end\n"), err.decode()
    finally:
        client.kill()
        client.communicate()


def test_what_a_user_means_still_goes_with_the_job(shell: Shell, leaks: Leaks) -> None:
    one, other = leaks.connection()
    other.sendall(b"hello\n")
    argv, environment = shell.client("read word <&7; echo $word >&7")
    client = start(argv, environment, {7: one.fileno()})
    assert client.communicate(timeout=PATIENCE)[1] == b"" and client.returncode == 0
    assert other.recv(20) == b"hello\n"


def reset(peer: socket.socket, ours: socket.socket) -> None:
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    peer.close()
    assert select.select([ours], [], [], PATIENCE)[0]


@pytest.mark.parametrize("late", [False, True], ids=["before GO", "after GO"])
def test_before_go_a_failure_is_passed_over_and_after_it_is_the_jobs(
    application: Application, leaks: Leaks, late: bool
) -> None:
    one, other = leaks.connection()
    numbers: list[int] = []
    told = threading.Event()

    def play(connection: Connection) -> None:
        if not late:
            reset(other, one)
        connection.take()
        assert connection.go is not None
        numbers.extend(stream.number for stream in connection.go.streams)
        connection.start()
        if late:
            reset(other, one)
        else:
            connection.end(1, 2).exit(0)
        told.set()
        connection.wait_for_end()

    argv, environment = application.client("--retries", "0", environment=LOOPBACK)
    with FakeWorker(application, play, attempts=1):
        client = start(argv, environment, {7: one.fileno()})
        err = client.communicate(timeout=PATIENCE)[1].decode()
    assert told.is_set() and (7 in numbers) == late
    assert client.returncode == (111 if late else 0), err
    assert ("cannot read from descriptor 7: connection reset by peer" in err) == late


STANDARD = {"closed": "<&-", "a file": f"<{__file__}", "closed with an output": "<&- 2>&-"}


@pytest.mark.parametrize("how", STANDARD)
def test_with_n_standard_input_is_empty_whatever_it_was(shell: Shell, how: str) -> None:
    argv, environment = shell.client("cat <&0 && echo end", "-n")
    result = subprocess.run(
        ["sh", "-c", f'exec "$@" {STANDARD[how]}', "sh", *argv], env=environment, capture_output=True
    )
    assert (result.returncode, result.stdout) == (0, b"end\n"), result.stderr.decode()


def test_with_n_another_descriptor_of_the_same_file_keeps_its_input(shell: Shell) -> None:
    argv, environment = shell.client("cat; cat <&3", "-n")
    result = subprocess.run(
        ["sh", "-c", 'exec "$@" 3<&0', "sh", *argv], env=environment, input=b"kept\n", capture_output=True
    )
    assert (result.returncode, result.stdout) == (0, b"kept\n"), result.stderr.decode()


def test_with_n_a_key_may_come_by_standard_input(shell: Shell) -> None:
    argv, environment = shell.client("cat && echo end", "-n")
    words = [word if word != os.fspath(shell.application.public) else "/dev/stdin" for word in argv]
    with shell.application.public.open("rb") as key:
        result = subprocess.run(words, env=environment, stdin=key, capture_output=True)
    assert (result.returncode, result.stdout) == (0, b"end\n"), result.stderr.decode()
