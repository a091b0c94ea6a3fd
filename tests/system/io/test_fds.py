"""Descriptors of strangers are read and written without ever waiting, and are afterwards as they were."""

from __future__ import annotations

import errno
import fcntl
import os
import pty
import select
import socket
import tempfile
import tty
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cexec.system.io import fds, opened_fds
from cexec.system.io.fds import PIPE_SIZE, SAFE_WRITE, EmptySource, FileSource, Sink, Source, own_pipe
from cexec.system.io.opened_fds import open_sink, open_source
from cexec.system.io.special_fds import CautiousSink, CautiousSource

pytestmark = pytest.mark.usefixtures("process_end")

NOBODY = 65534  # a user that owns nothing
Ends = tuple[int, int]  # one to read from, one to write to


def pipe() -> Ends:
    return os.pipe()


def named_pipe() -> Ends:
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "pipe")
        os.mkfifo(path)
        reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        os.set_blocking(reading, True)
        return reading, os.open(path, os.O_WRONLY)


def keyboard() -> Ends:
    """A terminal to read from."""
    master, slave = pty.openpty()
    tty.setraw(slave)
    return slave, master


def screen() -> Ends:
    """A terminal to write to."""
    slave, master = keyboard()
    return master, slave


def socket_pair() -> Ends:
    one, other = socket.socketpair()
    return one.detach(), other.detach()


Opener = Callable[[Callable[[], Ends]], Ends]


@pytest.fixture
def ends() -> Iterator[Opener]:
    """Makes descriptors that are closed at the end."""
    made: list[int] = []

    def make(kind: Callable[[], Ends]) -> Ends:
        both = kind()
        made.extend(both)
        return both

    yield make
    for fd in made:
        try:
            os.close(fd)
        except OSError:
            pass  # the test has closed it


def read(source: Source, size: int = 1 << 20) -> bytes | None:
    buffer = memoryview(bytearray(size))
    count = source.read_into(buffer)
    return None if count is None else bytes(buffer[:count])


def flags(fd: int) -> int:
    return fcntl.fcntl(fd, fcntl.F_GETFL)


def capacity(fd: int) -> int:
    return fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ)


def fill(sink: Sink) -> int:
    """Writes until there is no room, also after the pipe was enlarged; how many bytes that took.

    A pipe or socket has no room from here on. A terminal may have some a moment later: a thread of the kernel
    carries what was written to its other end.
    """
    total, refused = 0, 0
    while refused < 2:
        size = sink.write(memoryview(bytes(SAFE_WRITE)))
        total += size
        refused = 0 if size else refused + 1
    return total


def drain(fd: int, size: int) -> None:
    """Reads exactly so much."""
    while size:
        size -= len(os.read(fd, size))


# What is shared with strangers


@pytest.mark.parametrize("kind", [pipe, named_pipe, keyboard, screen, socket_pair])
def test_a_source_never_waits_and_leaves_the_descriptor_as_it_was(ends: Opener, kind: Callable[[], Ends]) -> None:
    reading, writing = ends(kind)
    before = flags(reading)
    source = open_source(reading)
    assert read(source) is None
    os.write(writing, b"hello")
    assert read(source) == b"hello"
    assert read(source) is None
    assert flags(reading) == before
    assert not before & os.O_NONBLOCK
    source.close()
    assert flags(reading) == before  # still open
    os.write(writing, b"for the next one")
    assert os.read(reading, 100) == b"for the next one"


@pytest.mark.parametrize("kind", [pipe, named_pipe, screen, socket_pair])
def test_a_sink_never_waits_and_leaves_the_descriptor_as_it_was(ends: Opener, kind: Callable[[], Ends]) -> None:
    reading, writing = ends(kind)
    before = flags(writing)
    sink = open_sink(writing)
    taken = fill(sink)  # it returns, so a write without room did not wait
    assert taken == sink.count > 0
    assert flags(writing) == before
    assert not before & os.O_NONBLOCK
    drain(reading, taken)
    assert sink.write(memoryview(b"x")) == 1
    sink.close()
    assert flags(writing) == before


@pytest.mark.parametrize("kind", [pipe, socket_pair])
def test_the_end_is_an_empty_read(ends: Opener, kind: Callable[[], Ends]) -> None:
    reading, writing = ends(kind)
    source = open_source(reading)
    os.close(writing)
    assert read(source) == b""


@pytest.mark.parametrize("kind", [pipe, socket_pair])
def test_a_reader_that_has_gone_is_an_error(ends: Opener, kind: Callable[[], Ends]) -> None:
    reading, writing = ends(kind)
    sink = open_sink(writing)
    os.close(reading)
    with pytest.raises(BrokenPipeError):
        sink.write(memoryview(b"x"))
    assert sink.count == 0


@pytest.mark.parametrize("kind", [pipe, named_pipe])
def test_a_writer_that_had_gone_before_we_looked_has_ended(ends: Opener, kind: Callable[[], Ends]) -> None:
    """Regression: a named pipe, opened again after that, was waited for for ever."""
    reading, writing = ends(kind)
    os.write(writing, b"hello")
    os.close(writing)
    source = open_source(reading)
    poll = select.poll()
    poll.register(source.fileno(), select.POLLIN)
    assert poll.poll(0) and read(source) == b"hello"
    assert poll.poll(0) and read(source) == b""
    source.close()


def test_a_terminal_that_hangs_up_ends(ends: Opener) -> None:
    reading, writing = ends(keyboard)
    source = open_source(reading)
    os.close(writing)
    assert read(source) == b""


def test_the_other_end_of_a_terminal_is_not_opened_again(ends: Opener) -> None:
    """Regression: opening /dev/ptmx makes a new terminal, and what was written to that was lost."""
    reading, writing = ends(keyboard)
    sink = open_sink(writing)
    assert sink.write(memoryview(b"hello")) == 5
    assert os.read(reading, 100) == b"hello"
    sink.close()


def test_null_ends_at_once_and_takes_everything() -> None:
    null = os.open(os.devnull, os.O_RDWR)
    before = flags(null)
    assert read(open_source(null)) == b""
    assert open_sink(null).write(memoryview(bytes(300_000))) == 300_000
    assert flags(null) == before
    os.close(null)


def test_a_full_device_is_an_error() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    with pytest.raises(OSError) as caught:
        open_sink(full).write(memoryview(b"x"))
    assert caught.value.errno == errno.ENOSPC
    os.close(full)


def test_the_wrong_end_of_a_pipe_is_an_error(ends: Opener) -> None:
    """Regression: opened again through /proc it became the right one, and bytes went where nobody had meant them to."""
    reading, writing = ends(pipe)
    with pytest.raises(OSError) as caught:
        open_sink(reading).write(memoryview(b"x"))
    assert caught.value.errno == errno.EBADF
    source = open_source(writing)
    assert source.fileno() == -1  # always ready, so that the error is found
    with pytest.raises(OSError) as caught:
        read(source)
    assert caught.value.errno == errno.EBADF


def test_a_file_for_reading_is_not_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"data")
    fd = os.open(tmp_path / "file", os.O_RDONLY)
    with pytest.raises(OSError) as caught:
        open_sink(fd).write(memoryview(b"x"))
    assert caught.value.errno == errno.EBADF
    os.close(fd)


# Where a pipe cannot be opened again


@pytest.fixture
def cannot_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opened_fds, "open_again", lambda fd, status, flags: None)


@pytest.mark.usefixtures("cannot_open")
@pytest.mark.parametrize("kind", [pipe, keyboard])
def test_a_source_that_cannot_be_opened_again_never_waits_either(ends: Opener, kind: Callable[[], Ends]) -> None:
    reading, writing = ends(kind)
    source = open_source(reading)
    assert isinstance(source, CautiousSource)
    assert read(source) is None
    os.write(writing, b"hello")
    assert read(source) == b"hello"
    source.close()
    assert flags(reading) == flags(reading) & ~os.O_NONBLOCK


@pytest.mark.usefixtures("cannot_open")
def test_a_pipe_that_cannot_be_opened_again_is_written_in_pieces_that_fit(ends: Opener) -> None:
    """Regression: when poll calls a pipe writable it has room for one page; the second write of 4096 bytes waited."""
    reading, writing = ends(pipe)
    sink = open_sink(writing)
    assert isinstance(sink, CautiousSink)
    assert sink.write(memoryview(bytes(100_000))) == SAFE_WRITE
    fill(sink)
    assert sink.write(memoryview(bytes(100_000))) == 0
    os.read(reading, SAFE_WRITE)
    assert sink.write(memoryview(bytes(100_000))) == SAFE_WRITE
    assert sink.write(memoryview(bytes(100_000))) == 0
    os.close(reading)
    with pytest.raises(BrokenPipeError):
        sink.write(memoryview(b"x"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_users_pipe_is_such_a_pipe(ends: Opener) -> None:
    reading, writing = ends(pipe)
    child = os.fork()
    if child == 0:
        try:
            os.setuid(NOBODY)
            kinds = type(open_source(reading)), type(open_sink(writing))
            os._exit(0 if kinds == (CautiousSource, CautiousSink) else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# Files


def open_file(directory: Path, data: bytes, offset: int = 0) -> int:
    path = directory / "file"
    path.write_bytes(data)
    fd = os.open(path, os.O_RDWR)
    os.lseek(fd, offset, os.SEEK_SET)
    return fd


def test_a_file_is_read_from_its_offset_which_stays(tmp_path: Path) -> None:
    fd = open_file(tmp_path, b"0123456789", offset=3)
    source = open_source(fd)
    assert isinstance(source, FileSource)
    assert read(source, 4) == b"3456"
    assert read(source) == b"789"
    assert read(source) == b""
    assert os.lseek(fd, 0, os.SEEK_CUR) == 3
    source.move_offset(2)
    assert os.lseek(fd, 0, os.SEEK_CUR) == 5
    os.close(fd)


def test_a_file_can_be_read_again_even_when_it_was_closed(tmp_path: Path) -> None:
    fd = open_file(tmp_path, b"0123456789", offset=3)
    source = open_source(fd)
    assert isinstance(source, FileSource)
    assert read(source) == b"3456789"
    source.close()
    assert source.fileno() == -1
    source.rewind()
    assert read(source) == b"3456789"
    source.close()
    source.move_offset(7)
    assert os.lseek(fd, 0, os.SEEK_CUR) == 10
    os.close(fd)


def test_a_file_that_grows_is_read_on(tmp_path: Path) -> None:
    fd = open_file(tmp_path, b"first")
    source = open_source(fd)
    assert read(source) == b"first"
    os.pwrite(fd, b"second", 5)
    assert read(source) == b"second"
    os.close(fd)


def test_a_file_is_written_at_the_shared_offset(tmp_path: Path) -> None:
    fd = open_file(tmp_path, b"0123456789", offset=3)
    other = os.dup(fd)
    assert open_sink(fd).write(memoryview(b"abc")) == 3
    os.write(other, b"def")
    assert (tmp_path / "file").read_bytes() == b"012abcdef9"
    os.close(fd)
    os.close(other)


# Ours


def test_a_pipe_of_ours_is_closed_by_its_ends() -> None:
    reading, writing = own_pipe()
    assert not os.get_inheritable(reading)
    assert not os.get_inheritable(writing)
    source, sink = Source(reading), Sink(writing)
    source.close()
    sink.close()
    source.close()  # again: nothing, and nobody else's descriptor
    sink.close()
    for fd in (reading, writing):
        with pytest.raises(OSError):
            os.fstat(fd)


def test_an_empty_source_is_at_its_end() -> None:
    source = EmptySource()
    assert source.fileno() == -1
    assert read(source) == b""
    source.close()


# Pipes that are too small


def test_a_pipe_that_was_found_full_is_enlarged(ends: Opener) -> None:
    reading, writing = ends(pipe)
    usual = capacity(reading)
    source = open_source(reading)
    os.write(writing, bytes(usual - 1))
    read(source)
    assert capacity(reading) == usual
    os.write(writing, bytes(usual))
    read(source)
    assert capacity(reading) == PIPE_SIZE
    source.close()


def test_a_pipe_that_did_not_take_everything_is_enlarged(ends: Opener) -> None:
    reading, writing = ends(pipe)
    usual = capacity(reading)
    sink = open_sink(writing)
    sink.write(memoryview(bytes(usual)))
    assert capacity(reading) == usual
    assert sink.write(memoryview(b"x")) == 0
    assert capacity(reading) == PIPE_SIZE
    assert sink.write(memoryview(b"x")) == 1
    sink.close()


def test_a_pipe_that_is_larger_already_is_left_alone(ends: Opener) -> None:
    reading, writing = ends(pipe)
    fcntl.fcntl(reading, fcntl.F_SETPIPE_SZ, 2 * PIPE_SIZE)
    sink = open_sink(writing)
    fill(sink)
    assert capacity(reading) == 2 * PIPE_SIZE
    sink.close()


def test_what_is_no_pipe_is_not_enlarged(tmp_path: Path) -> None:
    fd = open_file(tmp_path, b"")
    fds.enlarge(fd)
    os.close(fd)
