"""The program's descriptors: a pipe or a socketpair for every stream of GO, and which end is whose.

Contract: `open_streams` makes all of them, gives our ends to the pump, and returns the program's, by descriptor number;
`close_ends` closes these once the program has them.  A descriptor that the client did not have is not there, so the
program finds it closed.  Raises `OSError`.  docs/protocol.md sections 4.2 (GO) and 4.3.
"""

from __future__ import annotations

import os
import select
import socket

from cexec.protocol.frames import FILE, PIPE, READS, WRITES
from cexec.system.fds import Sink, Source, own_pipe, unread

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from cexec.protocol.frames import Stream
    from cexec.system.pump import Pump

READING, WRITING = socket.SHUT_RD, socket.SHUT_WR  # the halves of our end
_DRAINED = 65536  # bytes (ours) at a time


class PipeSink(Sink):
    """Our end of a pipe that the program reads; knows also when it is closed how much was never read."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self._rest = -1

    def unread(self) -> int:
        return unread(self._rest if self.fd < 0 else self.fd)

    def close(self) -> None:
        if self.fd >= 0:
            try:  # another reader, so that the pipe stays; we do not read
                self._rest = os.open(f"/proc/self/fd/{self.fd}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError:
                pass  # no /proc
        super().close()


class PairSource(Source):
    """The reading half of our end of a socketpair: when nobody reads on, the program's writes fail as in a pipe."""

    def __init__(self, pair: Pair) -> None:
        super().__init__(pair.fd, shared=True)
        self._pair = pair

    @property
    def hung_up(self) -> bool:
        poll = select.poll()
        poll.register(self.fd, 0)
        return any(mask & select.POLLHUP for _, mask in poll.poll(0))

    def close(self) -> None:
        super().close()
        self._pair.close(READING)


class PairSink(Sink):
    """The writing half: when it is closed the program reads the end, and can still write."""

    def __init__(self, pair: Pair) -> None:
        super().__init__(pair.fd, shared=True)
        self._pair = pair

    def close(self) -> None:
        super().close()
        self._pair.close(WRITING)


class Pair:
    """Our end of a socketpair, closed when both of its halves are."""

    def __init__(self, end: socket.socket, halves: set[int]) -> None:
        self.fd = end.fileno()
        self._end = end
        self._open = halves

    def close(self, half: int) -> None:
        if half not in self._open:
            return
        self._open.discard(half)
        try:
            self._end.shutdown(half)
        except OSError:
            pass  # the program has closed its end already
        if not self._open:
            self._drain()
            self._end.close()

    def _drain(self) -> None:
        """What is unread when a socket is closed would give the program ECONNRESET instead of EPIPE."""
        try:
            while self._end.recv(_DRAINED):
                pass
        except OSError:
            pass  # nothing more


def open_streams(pump: Pump, streams: list[Stream]) -> dict[int, int]:
    """Our ends go to the pump, the program's are returned; the same one for descriptors that are duplicates."""
    ends: dict[int, int] = {}
    try:
        for stream in streams:
            if stream.kind == FILE:
                continue
            if stream.same_as != stream.number:
                ends[stream.number] = ends[stream.same_as]
            elif stream.kind == PIPE:
                ends[stream.number] = _open_pipe(pump, stream)
            else:
                ends[stream.number] = _open_pair(pump, stream)
    except OSError:
        close_ends(ends)
        raise
    return ends


def close_ends(ends: Mapping[int, int]) -> None:
    for fd in set(ends.values()):
        os.close(fd)


def _open_pipe(pump: Pump, stream: Stream) -> int:
    reading, writing = own_pipe()
    ours, theirs = (writing, reading) if stream.directions == READS else (reading, writing)
    os.set_blocking(ours, False)
    if stream.directions == READS:
        pump.sinks[stream.number] = PipeSink(ours)
    else:
        pump.sources[stream.number] = Source(ours)
    return theirs


def _open_pair(pump: Pump, stream: Stream) -> int:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    wanted = {WRITING: stream.directions & READS, READING: stream.directions & WRITES}
    pair = Pair(ours, {half for half, given in wanted.items() if given})
    if wanted[WRITING]:
        pump.sinks[stream.number] = PairSink(pair)
    if wanted[READING]:
        pump.sources[stream.number] = PairSource(pair)
    return theirs.detach()
