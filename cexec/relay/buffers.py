"""Buffers between two sockets: pipes, whose bytes stay in the kernel, or memory.

Contract: `Buffers.take` returns an empty buffer, `give_back` takes it again, with or without bytes in it.  A buffer is
filled only while it is empty.  `fill` returns how many bytes came, 0 at the end, None if nothing has come yet; `drain`
returns how many bytes were taken, None if the socket takes nothing now.  Both raise the `OSError` of the socket.  Pipes
and splice are Linux's; elsewhere, where a container's filter of system calls forbids splice, or when descriptors run
out, a buffer is memory.
"""

from __future__ import annotations

import errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket

PIPE_SIZE = 256 * 1024  # bytes (ours): measured, larger ones are no faster; what a user may have is shared by all pipes
MEMORY_SIZE = 64 * 1024  # bytes (ours)
IDLE_PIPES = 32  # (ours) that are kept for the next one
_F_SETPIPE_SZ = 1031  # <linux/fcntl.h>
_FLAGS = getattr(os, "SPLICE_F_MOVE", 1) | getattr(os, "SPLICE_F_NONBLOCK", 2)


def _may_splice() -> bool:
    """Asks about descriptors that are none."""
    try:
        os.splice(-1, -1, 1)
    except AttributeError:
        return False
    except OSError as error:
        return error.errno == errno.EBADF
    return True


class MemoryBuffer:
    """Bytes in memory."""

    __slots__ = ("_data",)

    def __init__(self, data: bytes = b"") -> None:
        self._data = data

    @property
    def held(self) -> int:
        """Bytes in it."""
        return len(self._data)

    def fill(self, source: _socket.socket) -> int | None:
        try:
            self._data = source.recv(MEMORY_SIZE)
        except BlockingIOError:
            return None
        return len(self._data)

    def drain(self, target: _socket.socket) -> int | None:
        try:
            sent: int = target.send(self._data)
        except BlockingIOError:
            return None
        self._data = self._data[sent:]
        return sent

    def close(self) -> None:
        self._data = b""


class PipeBuffer:
    """Bytes in a pipe."""

    __slots__ = ("_reading", "_writing", "held")

    def __init__(self) -> None:
        self.held = 0
        self._reading, self._writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        from fcntl import fcntl

        try:
            fcntl(self._writing, _F_SETPIPE_SZ, PIPE_SIZE)
        except OSError:
            pass  # this user's pipes have reached their limit together, so this one keeps its size

    def fill(self, source: _socket.socket) -> int | None:
        try:
            self.held = os.splice(source.fileno(), self._writing, PIPE_SIZE, flags=_FLAGS)
        except BlockingIOError:
            return None
        return self.held

    def drain(self, target: _socket.socket) -> int | None:
        # All that there is and no more: the kernel keeps a last small packet back when more seems to follow.
        try:
            taken = os.splice(self._reading, target.fileno(), self.held, flags=_FLAGS)
        except BlockingIOError:
            return None
        self.held -= taken
        return taken

    def close(self) -> None:
        os.close(self._reading)
        os.close(self._writing)


Buffer = MemoryBuffer | PipeBuffer


class Buffers:
    """The buffers of one relay.  A connection without bytes on their way holds none."""

    def __init__(self, *, splice: bool | None = None) -> None:
        """`splice`: there may be pipes; None: if this process may use them."""
        self._splice = _may_splice() if splice is None else splice
        self._idle: list[PipeBuffer] = []

    def take(self) -> Buffer:
        if self._idle:
            return self._idle.pop()
        if self._splice:
            try:
                return PipeBuffer()
            except OSError:
                pass
        return MemoryBuffer()

    def give_back(self, buffer: Buffer) -> None:
        if isinstance(buffer, PipeBuffer) and not buffer.held and len(self._idle) < IDLE_PIPES:
            self._idle.append(buffer)
        else:
            buffer.close()

    def close(self) -> None:
        """Closes the pipes that are kept; others can be taken all the same."""
        while self._idle:
            self._idle.pop().close()
