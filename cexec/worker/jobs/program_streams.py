"""The program's descriptors: a pipe or a socketpair for every stream of GO, and a terminal if the job asks for one.

Contract: `ProgramStreams.open` makes all of them, gives our ends to the pump, and returns the program's, by descriptor
number; `release` closes these once the program has them.  `terminal` is the job's terminal, if it has one.  A
descriptor that the client did not have is not there, so the program finds it closed.  `AbandonedOutputs` are those
whose reader at the client has gone.  Raises `OSError`.  docs/protocol.md sections 4.2 (GO), 4.3 and 4.5.
"""

from __future__ import annotations

import os
import select
import socket
from time import monotonic
from typing import TYPE_CHECKING

from cexec.protocol.connection.frames import FIRST_FILE
from cexec.protocol.connection.options import FILE, PIPE, READS, WRITES
from cexec.protocol.connection.streams import OPEN
from cexec.protocol.connection.terminal_request import ERROR, INPUT, OUTPUT
from cexec.system.io.fds import PIPE_SIZE, SAFE_WRITE, Sink, Source, own_pipe, unread
from cexec.worker.jobs.job_terminal import JobTerminal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cexec.net.pump import Pump
    from cexec.protocol.connection.frames import Stream
    from cexec.protocol.connection.terminal_request import TerminalRequest

READING, WRITING = socket.SHUT_RD, socket.SHUT_WR  # the halves of our end
_DRAINED = 65536  # bytes (ours) at a time: all that a pipe usually holds
PATIENCE = 2.0  # seconds (ours) for which a program's output is taken after its reader has gone: most end sooner
_LARGEST_REST = PIPE_SIZE  # bytes (ours) that are taken in this time: so much may have been in the pipe already


class ProgramStreams:
    """All streams of one job but its files."""

    def __init__(self, pump: Pump) -> None:
        self._pump = pump
        self._inputs: dict[int, PipeSink] = {}
        self._abandoned = AbandonedOutputs(pump)
        self.terminal: JobTerminal | None = None

    def open(self, streams: list[Stream], terminal: TerminalRequest | None = None) -> dict[int, int]:
        """Makes them, and returns the program's ends."""
        if terminal is not None:
            self.terminal = JobTerminal(self._pump, terminal)
        ends = _open_streams(self._pump, streams, self._abandoned, self.terminal)
        self._inputs = {number: sink for number, sink in self._pump.sinks.items() if isinstance(sink, PipeSink)}
        return ends

    def outputs_open(self) -> bool:
        """Returns True if the program, or a process that it has started, may still write."""
        halves = self._pump.session.outgoing
        return any(half.state == OPEN for number, half in halves.items() if number < FIRST_FILE)

    def next_timeout(self) -> float | None:
        """When to call `advance` although nothing has happened."""
        due = self._abandoned.next_timeout()
        again = None if self.terminal is None else self.terminal.next_timeout()
        return again if due is None else due if again is None else min(due, again)

    def advance(self, now: float) -> None:
        """Follows each step of the pump."""
        self._abandoned.advance(now)
        if self.terminal is not None:
            self.terminal.advance()

    def release(self, ends: Mapping[int, int]) -> None:
        """Closes the program's ends, because it has them, or will never have them."""
        for sink in self._inputs.values():
            sink.program_has_it()
        _close_ends(ends)

    def program_ended(self) -> None:
        """A terminal ends with the program that leads its session; pipes end when nobody can write to them."""
        if self.terminal is not None:
            self.terminal.program_ended()

    def hang_up(self) -> bool:
        """Closes the terminal; returns True if there was one."""
        if self.terminal is not None:
            self.terminal.hang_up()
        return self.terminal is not None

    def settle(self) -> None:
        """Closes all inputs once the program has ended, and tells the session how much of them was not read."""
        for stream in list(self._pump.sinks):
            self._pump.close_sink(stream)
        for stream, sink in self._inputs.items():
            self._pump.session.left_unread(stream, sink.unread())
        self._abandoned.settle()


class PipeSink(Sink):
    """Our end of a pipe that the program reads.  Also after it is closed it can tell how much was never read.

    `reading` is the program's end, which is open until `program_has_it`.
    """

    def __init__(self, fd: int, reading: int) -> None:
        super().__init__(fd)
        self._reading = reading
        self._rest = -1
        self._blocks = True  # a write would wait for room

    def program_has_it(self) -> None:
        """The program's end is closed here: from now on its writer must hear when nobody reads any more."""
        self._reading = -1

    def unread(self) -> int:
        """Returns the number of bytes that the program has not read; to be called once, after its end."""
        if not self.count:
            return 0  # nothing was ever in it: most jobs have no input
        fd = self._rest if self.fd < 0 else self.fd
        left = unread(fd) if fd >= 0 else 0  # without /proc nobody knows
        if self._rest >= 0:
            os.close(self._rest)
            self._rest = -1
        return left

    def write(self, view: memoryview) -> int:
        # Before the program starts a pipe is empty, and has room for that much.
        if self._blocks and (self._reading < 0 or self.count or len(view) > SAFE_WRITE):
            self._blocks = False
            os.set_blocking(self.fd, False)
        return Sink.write(self, view)

    def close(self) -> None:
        if self.fd >= 0 and self.count:
            try:  # another reader, so that the pipe stays; we do not read
                self._rest = os.dup(self._reading) if self._reading >= 0 else _reader_of(self.fd)
            except OSError:
                pass  # no /proc
        super().close()


def _reader_of(fd: int) -> int:
    """Opens a pipe for reading of which only the writing end is open here."""
    return os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)


class AbandonedOutputs:
    """Outputs whose reader at the client has gone.

    They are not closed at once.  In a local pipeline a program whose output fits into the pipe ends well, although its
    reader has gone.  So a little more output is taken, for a while.  If the program writes no more, it has not noticed
    anything, and the session is told so.  Else the output is closed: the program's next write fails, and a poll for
    that event returns.
    """

    def __init__(self, pump: Pump) -> None:
        self._pump = pump
        self._outputs: dict[int, _Abandoned] = {}  # by descriptor

    def add(self, stream: int, source: Source) -> None:
        self._outputs[source.fd] = _Abandoned(stream, source)
        self._pump.watch(source.fd)

    def next_timeout(self) -> float | None:
        """When to call `advance` although nothing has happened."""
        return min((output.deadline for output in self._outputs.values()), default=None)

    def advance(self, now: float) -> None:
        """Follows each step of the pump."""
        for fd, output in list(self._outputs.items()):
            ended = fd in self._pump.ready and not output.discard()
            if ended or output.size >= _LARGEST_REST or now >= output.deadline:
                self._close(fd, ended)

    def settle(self) -> None:
        """Closes all, because the program has ended."""
        for fd in list(self._outputs):
            self._close(fd)

    def _close(self, fd: int, ended: bool = False) -> None:
        output = self._outputs.pop(fd)
        if ended or _hung_up(fd):
            self._pump.session.ended_unnoticed(output.stream)
        self._pump.unwatch(fd)
        output.source.close()


class _Abandoned:
    """One of them."""

    def __init__(self, stream: int, source: Source) -> None:
        self.stream = stream
        self.source = source
        self.size = 0  # of what has been taken
        self.deadline = monotonic() + PATIENCE

    def discard(self) -> bool:
        """Reads and forgets; returns False at the end of the output."""
        size = self.source.read_into(memoryview(bytearray(_DRAINED)))
        self.size += size or 0
        return size != 0


class OutputSource(Source):
    """Our end of a pipe that the program writes."""

    def __init__(self, fd: int, stream: int, abandoned: AbandonedOutputs) -> None:
        super().__init__(fd)
        self._stream = stream
        self._abandoned = abandoned
        self._waits = True  # a read would wait for bytes

    def read_into(self, view: memoryview) -> int | None:
        if self._waits:  # only now: many programs write nothing
            self._waits = False
            os.set_blocking(self.fd, False)
        return Source.read_into(self, view)

    @property
    def ends_with_hangup(self) -> bool:
        return True

    def abandon(self) -> None:
        self._abandoned.add(self._stream, self)


class PairSource(OutputSource):
    """The reading half of our end of a socketpair: when nobody reads on, the program's writes fail as in a pipe."""

    def __init__(self, pair: Pair, stream: int, abandoned: AbandonedOutputs) -> None:
        super().__init__(pair.fd, stream, abandoned)
        self._waits = False  # the other half has seen to that
        self._shared = True
        self._pair = pair

    def read_into(self, view: memoryview) -> int | None:
        try:
            return super().read_into(view)
        except ConnectionResetError:
            return 0  # the program has closed its end with bytes unread; everything that it wrote has come before

    @property
    def ends_with_hangup(self) -> bool:
        return False  # there may be bytes as well

    @property
    def hung_up(self) -> bool:
        return _hung_up(self.fd)

    def close(self) -> None:
        super().close()
        self._pair.close(READING)


class PairSink(Sink):
    """The writing half.  When it is closed, the program reads the end and can still write."""

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
        """Reads the rest: bytes that are unread at the close would give the program ECONNRESET instead of EPIPE."""
        try:
            while self._end.recv(_DRAINED):
                pass
        except OSError:
            pass  # nothing more


def _open_streams(
    pump: Pump, streams: list[Stream], abandoned: AbandonedOutputs, terminal: JobTerminal | None = None
) -> dict[int, int]:
    """Gives our ends to the pump and returns the program's; duplicated descriptors get the same one."""
    ends: dict[int, int] = {}
    try:
        if terminal is not None:
            ends = dict.fromkeys((INPUT, OUTPUT, ERROR), terminal.end())
        for stream in streams:
            if stream.kind == FILE or stream.number in ends:
                continue
            if stream.same_as != stream.number:
                ends[stream.number] = ends[stream.same_as]
            elif stream.kind == PIPE:
                ends[stream.number] = _open_pipe(pump, stream, abandoned)
            else:
                ends[stream.number] = _open_pair(pump, stream, abandoned)
    except OSError:
        _close_ends(ends)
        raise
    return ends


def _close_ends(ends: Mapping[int, int]) -> None:
    for fd in set(ends.values()):
        os.close(fd)


def _open_pipe(pump: Pump, stream: Stream, abandoned: AbandonedOutputs) -> int:
    reading, writing = own_pipe()
    ours, theirs = (writing, reading) if stream.directions == READS else (reading, writing)
    if stream.directions == READS:
        pump.sinks[stream.number] = PipeSink(ours, theirs)
    else:
        pump.sources[stream.number] = OutputSource(ours, stream.number, abandoned)
    return theirs


def _open_pair(pump: Pump, stream: Stream, abandoned: AbandonedOutputs) -> int:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    wanted = {WRITING: stream.directions & READS, READING: stream.directions & WRITES}
    pair = Pair(ours, {half for half, given in wanted.items() if given})
    if wanted[WRITING]:
        pump.sinks[stream.number] = PairSink(pair)
    if wanted[READING]:
        pump.sources[stream.number] = PairSource(pair, stream.number, abandoned)
    return theirs.detach()


def _hung_up(fd: int) -> bool:
    """Returns True if nobody has the other end open any more; there may still be bytes to read."""
    poll = select.poll()
    poll.register(fd, 0)
    return any(mask & select.POLLHUP for _, mask in poll.poll(0))
