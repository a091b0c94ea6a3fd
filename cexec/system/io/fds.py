"""Descriptors as ends of streams: `Source` gives bytes, `Sink` takes them, and neither ever blocks.

Contract: `read_into` returns the number of bytes, 0 at the end, None when there is nothing now; `write` returns how
many bytes were taken, 0 when there is no room now; both raise `OSError` for real failures.  A pipe is enlarged when it
turns out to be too small for its stream, and not before: Linux counts all pipes of a user and gives one who has too
many of them only tiny ones.  `opened_fds` makes the ends of descriptors that were given to us.
"""

from __future__ import annotations

import os
import sys
from time import monotonic

SAFE_WRITE = 4096  # bytes: PIPE_BUF of Linux; a pipe that poll calls writable has room for this much
PIPE_SIZE = 512 * 1024  # bytes (ours): what a fast stream's pipe is enlarged to, see docs/performance.md
USUAL_PIPE_SIZE = 64 * 1024  # bytes of a pipe in Linux; if this much is queued, the writer was blocked on us
FEW = 1024  # bytes (ours) for which no large buffer is needed
BLOCKED = (BlockingIOError, InterruptedError)


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
        except BLOCKED:
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
        except BLOCKED:
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


def unread(fd: int) -> int:
    """Returns the number of bytes that wait in a pipe; 0 if the system does not say."""
    import fcntl
    import termios

    try:
        return int.from_bytes(fcntl.ioctl(fd, termios.FIONREAD, bytes(4)), sys.byteorder)
    except OSError:
        return 0
