"""Descriptors as ends of streams: `Source` gives bytes, `Sink` takes them, and neither ever blocks.

Contract: `read_into` returns the number of bytes, 0 at the end, None when there is nothing now; `write` returns how
many bytes were taken, 0 when there is no room now; both raise `OSError` for real failures.  O_NONBLOCK is set only on
open files that are ours: descriptors that were given to us are shared with strangers, so a pipe or a terminal is
opened again through /proc/self/fd, a socket gets MSG_DONTWAIT, a regular file is read at its own offset.  Where a
pipe cannot be opened again (another user's, or no /proc) we look before each read or write, and write in pieces that a
writable pipe has room for.  A pipe is enlarged when it turns out to be too small for its stream, and not before: Linux
counts all pipes of a user and gives one who has too many of them only tiny ones.
"""

from __future__ import annotations

import _socket
import _stat as stat
import errno
import os
import select
import sys
from time import monotonic

SAFE_WRITE = 4096  # bytes: PIPE_BUF of Linux; a pipe that poll calls writable has room for this much
PIPE_SIZE = 512 * 1024  # bytes (ours): what a fast stream's pipe is enlarged to, see docs/performance.md
USUAL_PIPE_SIZE = 64 * 1024  # bytes of a pipe in Linux; if this much is queued, the writer was blocked on us
_NEW_TERMINAL = os.makedev(5, 2)  # /dev/ptmx, the other end of a pseudo-terminal: each open of it makes a new one
FEW = 1024  # bytes (ours) for which no large buffer is needed
_BLOCKED = (BlockingIOError, InterruptedError)


class Source:
    """Bytes from a descriptor.  `shared`: the descriptor is not ours and stays open.

    `few`: no more than FEW bytes are expected before the end, which another read will find at once.
    """

    few = False
    later = 0.0  # see `rests_until`; 0 for a source that does not rest
    idle = False  # True for a source without a descriptor that has nothing now: its owner lets the pump step again

    def __init__(self, fd: int, *, shared: bool = False) -> None:
        self.fd = fd
        self._shared = shared
        self._enlarged = False

    def fileno(self) -> int:
        return self.fd

    def read_into(self, view: memoryview) -> int | None:
        try:
            size = os.readv(self.fd, [view])
        except _BLOCKED:
            return None
        if size >= USUAL_PIPE_SIZE and not self._enlarged:
            self._enlarged = True
            enlarge(self.fd)
        return size

    def whole(self, most: int) -> bytes | None:
        """Returns all bytes that are left, if they are in memory and at most so many; nothing is read by this."""
        return None

    def rests_until(self) -> float:
        """Returns the time of monotonic() before which `fileno` is not to be polled, although it is readable; or 0."""
        if self.later and monotonic() >= self.later:
            self.later = 0.0
        return self.later

    @property
    def ends_with_hangup(self) -> bool:
        """True for the pipe of a program: once poll reports a hang-up and no bytes, there will be none."""
        return False

    @property
    def hung_up(self) -> bool:
        """At the end: whether the other side reads no more either, where there are two directions."""
        return False

    def abandon(self) -> None:
        """Nobody wants any more of it."""
        self.close()

    def close(self) -> None:
        """No more will be read."""
        if self.fd >= 0 and not self._shared:
            os.close(self.fd)
        self.fd = -1


class CautiousSource(Source):
    """A shared descriptor that cannot be made non-blocking: it is read only if there is something to read."""

    def read_into(self, view: memoryview) -> int | None:
        return super().read_into(view) if _ready(self.fd, select.POLLIN) else None


class TerminalSource(CautiousSource):
    """A terminal.  While it is not ours to read, nothing is read, and `rests_until` says when to look again.

    The process ignores SIGTTIN, so a read that comes too late fails with EIO, which means later, too.
    """

    def __init__(self, fd: int, *, shared: bool = False) -> None:
        super().__init__(fd, shared=shared)
        self._failed = False  # the last read, although we were in the foreground

    def read_into(self, view: memoryview) -> int | None:
        from cexec.system.io.foreground import PAUSE, in_foreground  # most inputs are none

        self.later = 0.0
        front = in_foreground(self.fd)
        try:
            size = super().read_into(view) if front else None
        except OSError as error:
            if error.errno != errno.EIO or self._failed:
                raise
            size, front = None, False
            self._failed = in_foreground(self.fd)
        else:
            self._failed = False
        if not front:
            self.later = monotonic() + PAUSE
        return size


class NamedPipeSource(Source):
    """A named pipe: `again` is our own open file of it, and does not wait.

    It is not the one to poll: opened when all writers had gone it would never say so.
    """

    def __init__(self, fd: int, again: int) -> None:
        super().__init__(fd, shared=True)
        self._again = Source(again)

    def read_into(self, view: memoryview) -> int | None:
        return self._again.read_into(view)

    def close(self) -> None:
        self._again.close()
        super().close()


class FileSource(Source):
    """A regular file, read from the offset that it had, which is moved only at the end (docs/protocol.md section 7)."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd, shared=True)
        self.start = os.lseek(fd, 0, os.SEEK_CUR)
        self.position = self.start
        self._file = fd

    def read_into(self, view: memoryview) -> int | None:
        size = os.preadv(self._file, [view], self.position)
        self.position += size
        return size

    @property
    def size(self) -> int:
        """Bytes from the beginning of the stream to the present end of the file."""
        return max(0, os.fstat(self._file).st_size - self.start)

    def rewind(self) -> None:
        """Everything is read again: another attempt."""
        self.position = self.start
        self.fd = self._file

    def move_offset(self, used: int) -> None:
        """The reader took `used` bytes: what shares the descriptor goes on from there."""
        os.lseek(self._file, self.start + used, os.SEEK_SET)


class SocketSource(Source):
    """A socket that is shared with strangers."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd, shared=True)
        self._socket = _borrow(fd)

    def read_into(self, view: memoryview) -> int | None:
        try:
            return self._socket.recv_into(view, len(view), _socket.MSG_DONTWAIT)
        except _BLOCKED:
            return None

    def close(self) -> None:
        self._socket.detach()
        super().close()


class EmptySource(Source):
    """Nothing to read: the end comes at once."""

    few = True

    def __init__(self) -> None:
        super().__init__(-1, shared=True)

    def whole(self, most: int) -> bytes | None:
        return b""

    def read_into(self, view: memoryview) -> int | None:
        return 0


class Sink:
    """Takes bytes to a descriptor.  `count`: bytes written."""

    def __init__(self, fd: int, *, shared: bool = False) -> None:
        self.fd = fd
        self.count = 0
        self._shared = shared
        self._enlarged = False

    def fileno(self) -> int:
        return self.fd

    def write(self, view: memoryview) -> int:
        try:
            size = os.write(self.fd, view)
        except _BLOCKED:
            size = 0
        if size < len(view) and not self._enlarged:
            self._enlarged = True
            enlarge(self.fd)
        self.count += size
        return size

    def keep_size(self) -> None:
        """Leaves a pipe as it is, also if it turns out to be small."""
        self._enlarged = True

    def close(self) -> None:
        """No more will be written: a reader at the other end of a pipe of ours sees the end."""
        if self.fd >= 0 and not self._shared:
            os.close(self.fd)
        self.fd = -1


class CautiousSink(Sink):
    """A shared descriptor that cannot be made non-blocking: little at a time is written, and only if there is room."""

    def write(self, view: memoryview) -> int:
        return super().write(view[:SAFE_WRITE]) if _ready(self.fd, select.POLLOUT) else 0


class SocketSink(Sink):
    """A socket that is shared with strangers."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd, shared=True)
        self._socket = _borrow(fd)

    def write(self, view: memoryview) -> int:
        try:
            size = self._socket.send(view, _socket.MSG_DONTWAIT)
        except _BLOCKED:
            return 0
        self.count += size
        return size

    def close(self) -> None:
        self._socket.detach()
        super().close()


def open_source(fd: int) -> Source:
    """A source for a descriptor that somebody gave us."""
    if not _allows(fd, os.O_RDONLY):
        return Source(-1, shared=True)  # its first read fails, whereas poll would never call the descriptor readable
    status = os.fstat(fd)
    mode = status.st_mode
    if stat.S_ISREG(mode):
        return FileSource(fd)
    if stat.S_ISSOCK(mode):
        return SocketSource(fd)
    reopened = open_again(fd, status, os.O_RDONLY)
    if os.isatty(fd):
        return TerminalSource(fd, shared=True) if reopened is None else TerminalSource(reopened)
    if reopened is None:
        return CautiousSource(fd, shared=True)
    return NamedPipeSource(fd, reopened) if stat.S_ISFIFO(mode) and _has_name(fd) else Source(reopened)


def open_sink(fd: int) -> Sink:
    """A sink for a descriptor that somebody gave us."""
    status = os.fstat(fd)
    mode = status.st_mode
    if stat.S_ISREG(mode) or not _allows(fd, os.O_WRONLY):
        return Sink(fd, shared=True)
    if stat.S_ISSOCK(mode):
        return SocketSink(fd)
    reopened = open_again(fd, status, os.O_WRONLY)
    if reopened is not None:
        return Sink(reopened)
    waits = stat.S_ISFIFO(mode) or os.isatty(fd)  # and not /dev/null
    return CautiousSink(fd, shared=True) if waits else Sink(fd, shared=True)


def own_pipe() -> tuple[int, int]:
    """A pipe for a child: both ends close-on-exec; the caller makes its own end non-blocking."""
    return os.pipe()


def enlarge(fd: int) -> None:
    """Asks for a large pipe buffer; what the kernel refuses, or is no pipe, is no harm."""
    import fcntl

    try:
        if fcntl.fcntl(fd, fcntl.F_GETPIPE_SZ) < PIPE_SIZE:
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
    except (OSError, AttributeError):
        pass


def _allows(fd: int, access: int) -> bool:
    """Returns True if the descriptor was opened for this: a pipe's wrong end, opened again, becomes the other end."""
    import fcntl

    return fcntl.fcntl(fd, fcntl.F_GETFL) & (os.O_WRONLY | os.O_RDWR) in (access, os.O_RDWR)


def open_again(fd: int, status: os.stat_result, flags: int) -> int | None:
    """The same pipe or terminal as an open file of our own, non-blocking."""
    terminal = os.isatty(fd) and status.st_rdev != _NEW_TERMINAL
    if not (stat.S_ISFIFO(status.st_mode) or terminal):
        return None
    try:
        return os.open(f"/proc/self/fd/{fd}", flags | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return None


def _has_name(fd: int) -> bool:
    """Returns True if a pipe has been opened by its name."""
    return not os.readlink(f"/proc/self/fd/{fd}").startswith("pipe:")


def half_close(fd: int) -> None:
    """The reader at the other end of a socket sees the end; the other direction goes on."""
    borrowed = _borrow(fd)
    try:
        borrowed.shutdown(_socket.SHUT_WR)
    except OSError:
        pass  # the other end has gone already
    borrowed.detach()


def give_up(fd: int) -> None:
    """Closes a descriptor that somebody gave us; its number stays taken, so that nothing of ours gets it."""
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    os.dup2(null, fd, inheritable=False)
    os.close(null)


def unread(fd: int) -> int:
    """Returns the number of bytes that wait in a pipe; 0 if the system does not say."""
    import fcntl
    import termios

    try:
        return int.from_bytes(fcntl.ioctl(fd, termios.FIONREAD, bytes(4)), sys.byteorder)
    except OSError:
        return 0


def _ready(fd: int, wanted: int) -> bool:
    """Returns True if a read or write would not wait, also if it would fail."""
    poll = select.poll()
    poll.register(fd, wanted)
    return bool(poll.poll(0))


def _borrow(fd: int) -> _socket.socket:
    """A socket object around a descriptor that stays somebody else's: never closed, only detached."""
    return _socket.socket(fileno=fd)
