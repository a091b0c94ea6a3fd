"""Descriptors that leaked in: what cannot be carried is passed over, and what can goes with the job."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from cexec.client.attempt.descriptors import inspect, look_again
from cexec.protocol.connection.options import READS, WRITES
from tests.leaks import RESET, Leaks


@pytest.fixture
def leaks(tmp_path: Path) -> Iterator[Leaks]:
    with ExitStack() as stack:
        yield Leaks(stack, tmp_path)


def looked_at(fd: int) -> tuple[list[int], list[str]]:
    passed: list[str] = []
    kept = [one.fd for one in inspect(fd, [], {}, passed) if one.fd == fd]
    return kept, [text for text in passed if text.startswith(f"{fd} ")]


@pytest.mark.parametrize("name", Leaks.BAD)
def test_what_cannot_be_carried_is_passed_over(leaks: Leaks, name: str) -> None:
    fd = leaks.open(name)
    kept, passed = looked_at(fd)
    assert kept == [] and len(passed) == 1, passed


@pytest.mark.parametrize("name", Leaks.GOOD)
def test_what_can_be_carried_goes_with_the_job(leaks: Leaks, name: str) -> None:
    fd = leaks.open(name)
    assert looked_at(fd) == ([fd], [])


def test_looking_uses_up_nothing(leaks: Leaks, tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_bytes(b"0123456789")
    fd = os.open(path, os.O_RDONLY)
    os.lseek(fd, 3, os.SEEK_SET)
    one, other = socket.socketpair()
    other.send(b"waiting")
    for known in (fd, one.fileno()):
        assert looked_at(known) == ([known], [])
    assert (os.read(fd, 2), one.recv(20)) == (b"34", b"waiting")
    os.close(fd)
    one.close()
    other.close()


def test_the_reasons_are_told(leaks: Leaks) -> None:
    texts = {
        name: looked_at(leaks.open(name))[1][0].partition(" ")[2] for name in ("closed pty", "unconnected", "namespace")
    }
    assert texts == {
        "closed pty": "(a terminal without its other side)",
        "unconnected": "(a socket without a peer)",
        "namespace": "(a file that is no plain one: illegal seek)",
    }


def test_what_fails_later_is_noticed_by_the_last_look(leaks: Leaks) -> None:
    one, other = leaks.connection()
    copy = os.dup(one.fileno())
    kept = [d for d in inspect(255, [], {}) if d.fd in (one.fileno(), copy)]
    assert [d.directions for d in kept] == [READS | WRITES] * 2
    gone: list[str] = []
    assert look_again(kept, gone) == kept and gone == []
    other.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    other.close()
    select.select([one], [], [], 10)
    assert look_again(kept, gone) == [] and len(gone) == 2
    os.close(copy)


def jobserver_of(environ: dict[str, str], *fds: int) -> list[int]:
    return [one.fd for one in inspect(max(fds), [], environ) if one.fd in fds]


@pytest.mark.parametrize("variable", ["MAKEFLAGS", "MFLAGS", "CARGO_MAKEFLAGS", "NINJAFLAGS"])
@pytest.mark.parametrize(
    "word", ["--jobserver-auth={},{}", "--jobserver-fds={},{}", "-- --jobserver-fds={0},{1} --jobserver-auth={0},{1}"]
)
def test_every_jobserver_is_left_alone(variable: str, word: str) -> None:
    """Under whatever numbers its pipe is open."""
    reading, writing = os.pipe()
    copy = os.dup(reading)
    other = os.pipe()
    environ = {variable: f" -j8 {word.format(reading, writing)}"}
    assert jobserver_of(environ, reading, writing, copy, *other) == list(other)
    for fd in (reading, writing, copy, *other):
        os.close(fd)


def test_a_jobserver_with_a_name_is_left_alone(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    fd = os.open(tmp_path / "fifo", os.O_RDWR)
    assert jobserver_of({"MAKEFLAGS": f"-j2 --jobserver-auth=fifo:{tmp_path}/fifo"}, fd) == []
    assert jobserver_of({"MAKEFLAGS": f"-j2 --jobserver-auth=fifo:{tmp_path}/absent"}, fd) == [fd]
    os.close(fd)


def test_a_file_under_a_number_that_make_has_closed_is_forwarded(tmp_path: Path) -> None:
    """make closes its pipe for a command that is no make, and a recipe may use the number for itself."""
    fd = os.open(tmp_path, os.O_RDONLY | os.O_TMPFILE | os.O_RDWR)
    assert jobserver_of({"MAKEFLAGS": f"-j2 --jobserver-auth={fd},{fd + 1}"}, fd) == [fd]
    os.close(fd)
