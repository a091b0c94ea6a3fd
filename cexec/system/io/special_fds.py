"""Ends of streams that must not wait, although their descriptors are shared with strangers and stay as they are.

Contract: as in `fds`.  A socket gets MSG_DONTWAIT.  Where a pipe or a terminal cannot be opened again (another user's,
or no /proc) we look before each read or write, and write in pieces that a writable pipe has room for.
"""

from __future__ import annotations

import _socket
import errno
import os
import select
from time import monotonic

from cexec.system.io.fds import BLOCKED, SAFE_WRITE, Sink, Source


class CautiousSource(Source):
    """A shared descriptor that cannot be made non-blocking: it is read only if there is something to read."""

    def read_into(self, view: memoryview) -> int | None:
        return super().read_into(view) if ready_now(self.fd, select.POLLIN) else None


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


class SocketSource(Source):
    """A socket that is shared with strangers."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd, shared=True)
        self._socket = borrow(fd)

    def read_into(self, view: memoryview) -> int | None:
        try:
            return self._socket.recv_into(view, len(view), _socket.MSG_DONTWAIT)
        except BLOCKED:
            return None

    def close(self) -> None:
        self._socket.detach()
        super().close()


class CautiousSink(Sink):
    """A shared descriptor that cannot be made non-blocking: little at a time is written, and only if there is room."""

    def write(self, view: memoryview) -> int:
        return super().write(view[:SAFE_WRITE]) if ready_now(self.fd, select.POLLOUT) else 0


class TwoWaySink(Sink):
    """A file that the program also reads: bytes belong at the program's offset, which is not known here."""

    def write(self, view: memoryview) -> int:
        raise OSError(errno.ESPIPE, os.strerror(errno.ESPIPE))


class SocketSink(Sink):
    """A socket that is shared with strangers."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd, shared=True)
        self._socket = borrow(fd)

    def write(self, view: memoryview) -> int:
        try:
            size = self._socket.send(view, _socket.MSG_DONTWAIT)
        except BLOCKED:
            return 0
        self.count += size
        return size

    def close(self) -> None:
        self._socket.detach()
        super().close()


def ready_now(fd: int, wanted: int) -> bool:
    """Returns True if a read or write would not wait, also if it would fail."""
    poll = select.poll()
    poll.register(fd, wanted)
    return bool(poll.poll(0))


def borrow(fd: int) -> _socket.socket:
    """A socket object around a descriptor that stays somebody else's: never closed, only detached."""
    return _socket.socket(fileno=fd)
