"""N3 for inputs: some can be given again, and offsets end where the program stopped reading."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cexec.client.attempt.descriptors import Descriptor, inspect
from cexec.client.attempt.inputs import Inputs
from cexec.protocol.connection.frames import ENDED, READER_CLOSED, Ending
from cexec.protocol.connection.streams import Outgoing

pytestmark = pytest.mark.usefixtures("process_end")

Open = Callable[..., int]


@pytest.fixture
def opened() -> Iterator[Open]:
    """Opens files as descriptors, which are closed when the test ends."""
    fds: list[int] = []

    def keep(what: Path | int, flags: int = os.O_RDONLY) -> int:
        fds.append(os.open(what, flags) if isinstance(what, Path) else what)
        return fds[-1]

    yield keep
    for fd in fds:
        try:
            os.close(fd)
        except OSError:
            pass


def described(*fds: int) -> list[Descriptor]:
    return [descriptor for descriptor in inspect(255, [], {}) if descriptor.fd in fds]


def inputs(*fds: int, spool: int = 1000) -> Inputs:
    return Inputs(described(*fds), no_stdin=False, spool=spool)


def read(made: Inputs, fd: int, size: int = 1000) -> bytes:
    buffer = memoryview(bytearray(size))
    return bytes(buffer[: made.sources()[fd].read_into(buffer)])


def used(fd: int, size: int) -> dict[int, Outgoing]:
    """Returns the session's half of an input of which the program took `size` bytes."""
    half = Outgoing(fd, 1000)
    half.send(size)
    half.finish(Ending(fd, 1, READER_CLOSED, size))
    return {fd: half}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "input"
    path.write_bytes(b"0123456789")
    return path


def test_a_file_is_given_again_from_its_initial_offset_which_does_not_move(file: Path, opened: Open) -> None:
    fd = opened(file)
    os.lseek(fd, 3, os.SEEK_SET)
    made = inputs(fd)
    assert read(made, fd, 4) == b"3456"
    assert made.obstacle() == ""
    made.rewind()
    assert read(made, fd) == b"3456789"
    assert os.lseek(fd, 0, os.SEEK_CUR) == 3


@pytest.mark.parametrize("change", ["grows", "shrinks", "is written over"])
def test_a_file_that_changes_is_not_given_again(file: Path, opened: Open, change: str) -> None:
    fd = opened(file)
    os.utime(file, ns=(0, 0))
    made = inputs(fd)
    if change == "grows":
        file.write_bytes(b"0123456789a")
    elif change == "shrinks":
        os.truncate(file, 5)
    else:
        file.write_bytes(b"9876543210")
    assert made.obstacle() == f"the file that is descriptor {fd} has changed meanwhile"


def test_a_file_that_is_replaced_is_still_the_one_that_was_opened(file: Path, opened: Open) -> None:
    fd = opened(file)
    made = inputs(fd)
    file.unlink()
    file.write_bytes(b"another")
    assert made.obstacle() == ""
    assert read(made, fd) == b"0123456789"


def test_a_pipe_is_given_again_from_the_spool(opened: Open) -> None:
    reading, writing = os.pipe()
    opened(writing)
    made = inputs(opened(reading))
    os.write(writing, b"hello")
    assert read(made, reading) == b"hello"
    assert made.obstacle() == ""
    made.rewind()
    assert read(made, reading) == b"hello"


def test_a_pipe_whose_spool_has_overflowed_says_how_much_is_kept(opened: Open) -> None:
    reading, writing = os.pipe()
    opened(writing)
    made = inputs(opened(reading), spool=4)
    os.write(writing, b"hello")
    read(made, reading)
    assert made.obstacle() == (
        f"5 bytes of descriptor {reading} cannot be given again; CEXEC_SPOOL, which is 4, says how many are kept"
    )


def test_a_pipe_that_is_no_longer_kept_says_so(opened: Open) -> None:
    reading, writing = os.pipe()
    opened(writing)
    made = inputs(opened(reading))
    os.write(writing, b"hello")
    read(made, reading)
    made.forget()
    made.forget()
    assert made.obstacle() == f"descriptor {reading} has been read and is no longer kept"


def test_a_socket_is_spooled_and_stays_blocking(opened: Open) -> None:
    one, other = socket.socketpair()
    with one, other:
        made = inputs(one.fileno())
        other.sendall(b"hello")
        assert read(made, one.fileno()) == b"hello"
        made.rewind()
        assert read(made, one.fileno()) == b"hello"
        assert os.get_blocking(one.fileno())


def test_no_stdin_is_at_its_end_at_once() -> None:
    descriptor = Descriptor(0, 1, 0, (0, 0), os.O_RDONLY)
    made = Inputs([descriptor], no_stdin=True, spool=0)
    assert read(made, 0) == b""
    assert made.obstacle() == ""


def test_input_that_cannot_be_read_is_empty() -> None:
    """Regression: under nohup at a terminal, which opens /dev/null for writing as standard input, every job failed."""
    script = (
        "from cexec.client.attempt.descriptors import inspect; from cexec.client.attempt.inputs import Inputs\n"
        "made = Inputs(inspect(0, [], {}), no_stdin=False, spool=100)\n"
        "print(made.sources()[0].read_into(memoryview(bytearray(10))), repr(made.obstacle()))"
    )
    with open("/dev/null", "wb") as null:
        result = subprocess.run([sys.executable, "-c", script], stdin=null, capture_output=True, timeout=20)
    assert (result.stdout, result.stderr) == (b"0 ''\n", b"")


def test_a_duplicate_has_no_bytes_of_its_own(file: Path, opened: Open) -> None:
    fd = opened(file)
    copy = opened(os.dup(fd))
    assert list(inputs(fd, copy).sources()) == [fd]


def test_the_shared_offset_moves_by_what_was_used(file: Path, opened: Open) -> None:
    fd = opened(file)
    os.lseek(fd, 2, os.SEEK_SET)
    made = inputs(fd)
    read(made, fd)  # all that there is, but the program took only five bytes
    made.move_offsets(used(fd, 5))
    assert os.read(fd, 10) == b"789"


def test_the_shared_offset_moves_to_the_end_of_what_was_read_whole(file: Path, opened: Open) -> None:
    fd = opened(file)
    made = inputs(fd)
    half = Outgoing(fd, 1000)
    half.send(10)
    half.state = ENDED
    half.finish(Ending(fd, 1, ENDED, 10))
    made.move_offsets({fd: half})
    assert os.read(fd, 10) == b""


def test_an_offset_that_our_own_output_has_moved_is_left_where_it_is(file: Path, opened: Open) -> None:
    """Regression: `3<>file` was moved back to its start, and the next command overwrote the job's output."""
    fd = opened(file, os.O_RDWR)
    made = inputs(fd)
    os.write(fd, b"abcdef")
    made.move_offsets(used(fd, 0))
    os.write(fd, b"!")
    assert file.read_bytes() == b"abcdef!789"
