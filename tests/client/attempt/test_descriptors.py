"""The descriptors that the program gets; looking at them disturbs no other process."""

from __future__ import annotations

import fcntl
import os
import select
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cexec.client.attempt import descriptors as client_descriptors
from cexec.client.attempt.descriptors import Descriptor, inspect, occupy_standard
from cexec.protocol.connection.options import PIPE, READS, SOCKET, WRITES


@pytest.fixture
def path(tmp_path: Path) -> Path:
    result = tmp_path / "file"
    result.write_bytes(b"0123456789")
    return result


@pytest.fixture
def fds(path: Path) -> Iterator[list[int]]:
    """Descriptors that are closed at the end."""
    result: list[int] = []
    yield result
    for fd in result:
        os.close(fd)


def found(*fds: int, environ: dict[str, str] | None = None, excluded: tuple[int, ...] = ()) -> dict[int, Descriptor]:
    return {d.fd: d for d in inspect(max(fds), excluded, environ or {}) if d.fd in fds}


def test_directions_are_those_that_a_descriptor_was_opened_for(path: Path, fds: list[int]) -> None:
    fds += [os.open(path, flags) for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR)]
    streams = [descriptor.stream() for descriptor in found(*fds).values()]
    assert [stream.directions for stream in streams] == [READS, WRITES, READS | WRITES]
    assert [stream.kind for stream in streams] == [PIPE, PIPE, SOCKET]


def test_standard_descriptors_have_one_direction_even_on_a_terminal() -> None:
    main, terminal = os.openpty()
    script = "from cexec.client.attempt.descriptors import inspect; print([d.directions for d in inspect(2, [], {})])"
    with subprocess.Popen([sys.executable, "-c", script], stdin=terminal, stdout=terminal, stderr=terminal) as child:
        os.close(terminal)
        child.wait(20)
    assert os.read(main, 100).strip() == b"[1, 2, 2]"
    os.close(main)


def test_a_standard_output_that_cannot_be_written_is_as_closed() -> None:
    script = (
        "import sys; from cexec.client.attempt.descriptors import inspect; "
        "print([d.fd for d in inspect(2, [], {})], file=sys.stderr)"
    )
    with open("/dev/null", "rb") as null:
        result = subprocess.run([sys.executable, "-c", script], stdout=null, stderr=subprocess.PIPE, timeout=20)
    assert result.stderr == b"[0, 2]\n"


def test_what_is_never_forwarded(path: Path, fds: list[int]) -> None:
    with socket.socket() as listening, socket.socket() as unconnected, select.epoll() as epoll:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        directory = os.open(path.parent, os.O_RDONLY)
        nowhere = os.open(path, os.O_PATH)
        event = os.eventfd(0)
        key = os.open(path, os.O_RDONLY)
        jobserver = os.pipe()
        fds += [directory, nowhere, event, key, *jobserver]
        makeflags = f" -j8 --jobserver-auth={jobserver[0]},{jobserver[1]}"
        kept = found(*fds, listening.fileno(), epoll.fileno(), environ={"MAKEFLAGS": makeflags}, excluded=(key,))
        assert kept == {}
        assert found(unconnected.fileno()) == {}
        assert list(found(*jobserver)) == list(jobserver)  # without make they are a pipe as any other


def test_duplicates_are_told_from_two_opens_of_one_file(path: Path, fds: list[int]) -> None:
    for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR):
        one, other = os.open(path, flags), os.open(path, flags)
        copy = os.dup(one)
        fds += [one, other, copy]
        assert [d.same_as for d in found(one, other, copy).values()] == [one, other, one]


def test_pipes_are_known_by_their_inode(fds: list[int]) -> None:
    reading, writing = os.pipe()
    fds += [reading, writing, os.dup(writing)]
    assert [d.same_as for d in found(*fds).values()] == [reading, writing, writing]


def test_without_locks_two_outputs_at_one_offset_are_taken_for_one(
    path: Path, fds: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_descriptors, "share_locks", lambda one, other: None)
    fds += [os.open(path, os.O_WRONLY), os.open(path, os.O_WRONLY)]
    assert [d.same_as for d in found(*fds).values()] == [fds[0], fds[0]]
    os.lseek(fds[1], 1, os.SEEK_SET)
    assert [d.same_as for d in found(*fds).values()] == fds
    inputs = [os.open(path, os.O_RDONLY), os.open(path, os.O_RDONLY)]
    fds += inputs
    assert [d.same_as for d in found(*inputs).values()] == inputs


def test_a_file_that_somebody_has_locked_is_no_obstacle(path: Path, fds: list[int]) -> None:
    fds += [os.open(path, os.O_WRONLY), os.open(path, os.O_WRONLY)]
    holder = "import fcntl, sys; f = open(sys.argv[1], 'r+'); fcntl.lockf(f, fcntl.LOCK_EX); print(); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", holder, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stdout.readline()
        assert [d.same_as for d in found(*fds).values()] == [fds[0], fds[0]]
        process.communicate()


def test_looking_leaves_no_lock(path: Path, fds: list[int]) -> None:
    fds += [os.open(path, os.O_WRONLY), os.open(path, os.O_WRONLY)]
    found(*fds)
    fcntl.lockf(fds[1], fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_looking_moves_no_offset_under_a_process_that_writes_meanwhile(path: Path) -> None:
    """Regression: the offset was moved and moved back to see whether two descriptors share it, as `> out 2>&1` do; what
    another job with the same output wrote in between was written over."""
    script = "import os\nfor number in range(30000): os.write(1, b'%05d\\n' % number)"
    with path.open("wb") as file:
        out, err = file.fileno(), os.dup(file.fileno())
        with subprocess.Popen([sys.executable, "-c", script], stdout=file) as writer:
            while writer.poll() is None:
                assert found(out, err)[err].same_as in (out, err)
        os.close(err)
    assert path.read_bytes() == b"".join(b"%05d\n" % number for number in range(30000))


def test_standard_descriptors_that_are_closed_are_not_ours_to_use() -> None:
    """Regression: with `2>&-` a socket got number 2, and a message for the person was sent to the worker."""
    script = (
        "import os\n"
        "from cexec.client.attempt.descriptors import inspect, occupy_standard\n"
        "before = [d.fd for d in inspect(2, [], {})]\n"
        "occupy_standard()\n"
        "after = [os.readlink(f'/proc/self/fd/{fd}') for fd in range(3)]\n"
        "os.write(9, repr((before, after)).encode())\n"
    )
    command = f"exec {sys.executable} -c '{script.replace(chr(39), chr(39) + chr(34) + chr(39) + chr(34) + chr(39))}'"
    result = subprocess.run(["sh", "-c", f"{command} 9>&1 <&- >&- 2>&-"], capture_output=True, timeout=20)
    assert result.stdout.decode() == repr(([], ["/dev/null"] * 3))


def test_open_standard_descriptors_stay_what_they_are() -> None:
    before = [os.fstat(fd) for fd in range(3)]
    occupy_standard()
    assert [os.fstat(fd).st_ino for fd in range(3)] == [status.st_ino for status in before]
