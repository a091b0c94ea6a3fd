"""The streams of a job.  One half of a stream sends under the peer's credit, the other receives under ours.

Contract: counters and states only, no data.  A half ends once, in one of the three ways of docs/protocol.md section
4.3.  A peer that exceeds its credit, goes on after the end, or tells of other endings than ours, causes a
`ProtocolError`.
"""

from __future__ import annotations

from cexec.common_errors import ProtocolError
from cexec.protocol.base.limits import INITIAL_WINDOW
from cexec.protocol.connection import frames
from cexec.protocol.connection.frames import ENDED, READER_CLOSED, STREAM_BROKEN, Ending
from cexec.protocol.connection.options import READS, WRITES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from cexec.protocol.connection.frames import Stream

OPEN = 0  # else one of frames.ENDED, READER_CLOSED, STREAM_BROKEN
# Bytes (ours).  With less credit no record is made: a small record costs nearly as much CPU time as a large one, and
# the peer gives new credit long before its window is used up.
LEAST_CREDIT = 64 * 1024
LARGEST_CREDIT = 1 << 40  # bytes (ours): a peer that grants more is broken, not fast


class Outgoing:
    """`credit`: bytes that may be sent now; `count`: bytes sent; `read`: bytes that the peer's reader took."""

    __slots__ = ("count", "credit", "number", "read", "state")

    def __init__(self, number: int, window: int) -> None:
        self.number = number
        self.credit = window
        self.count = 0
        self.read = 0
        self.state = OPEN

    def send(self, size: int) -> None:
        if self.state != OPEN or size > self.credit:
            raise ValueError("stream has ended, or there is no credit for so much")
        self.credit -= size
        self.count += size

    def grant(self, size: int) -> None:
        self.credit += size
        if self.credit > LARGEST_CREDIT:
            raise ProtocolError("peer gives more credit than is possible")

    def reader_closed(self, count: int) -> bool:
        """Notes that the peer's reader has gone after `count` bytes; returns True if the stream was open until now."""
        if count > self.count:
            raise ProtocolError("peer read more than was sent")
        if self.state != OPEN:
            return False
        self.state, self.read = READER_CLOSED, count
        return True

    def agrees(self, ending: Ending) -> bool:
        """Returns True if the peer's report is possible: it closed the stream, or reports the ending that we sent."""
        return ending.ending in (READER_CLOSED, self.state) and ending.count <= self.count

    def finish(self, ending: Ending) -> None:
        """Takes over from the exit frame how many bytes were read."""
        self.read = ending.count
        if self.state == OPEN:
            self.state = READER_CLOSED

    def ending(self, direction: int) -> Ending:
        return Ending(self.number, direction, self.state, self.read if self.state == READER_CLOSED else self.count)


class Incoming:
    """`received` and `consumed` count bytes; `window` is the credit that the peer has left."""

    __slots__ = ("_unacknowledged", "_worth", "consumed", "number", "received", "state", "window")

    def __init__(self, number: int, window: int) -> None:
        self.number = number
        self.window = window
        self._worth = window // 4  # bytes of credit that are worth a frame
        self.received = 0
        self.consumed = 0
        self.state = OPEN
        self._unacknowledged = 0

    def receive(self, size: int) -> bool:
        """Accounts for arriving data; returns False if it must be discarded because our reader has gone."""
        if size > self.window or size == 0:
            raise ProtocolError("peer sent more than its credit")
        if self.state in (ENDED, STREAM_BROKEN):
            raise ProtocolError("peer sent data after the end of its stream")
        self.window -= size
        if self.state == READER_CLOSED:
            return False
        self.received += size
        return True

    def consume(self, size: int) -> bool:
        """Notes that data was passed on; returns True if `grant` is now worth a frame."""
        if size > self.received - self.consumed:
            raise ValueError("more is consumed than was received")
        self.consumed += size
        self._unacknowledged += size
        return self._unacknowledged >= self._worth and self.state == OPEN

    def grant(self) -> int:
        """Returns the credit to be granted to the peer now; 0 if it needs none."""
        if self.state != OPEN:
            return 0
        credit, self._unacknowledged = self._unacknowledged, 0
        self.window += credit
        return credit

    def end(self, count: int) -> bool:
        """Notes the end of the peer's writer; returns False if our reader has gone already."""
        if self.state == READER_CLOSED:
            return False
        if self.state != OPEN or count != self.received:
            raise ProtocolError("stream ended twice, or without all its bytes")
        self.state = ENDED
        return True

    def break_off(self) -> bool:
        if self.state == READER_CLOSED:
            return False
        if self.state != OPEN:
            raise ProtocolError("stream ended twice")
        self.state = STREAM_BROKEN
        return True

    def stop_reading(self) -> bool:
        """Notes that our reader has gone; returns True if the peer has to be told."""
        if self.state != OPEN:
            return False
        self.state = READER_CLOSED
        return True

    def agrees(self, ending: Ending) -> bool:
        """Returns True if both sides report the same ending.  Streams that we abandoned are not compared."""
        if self.state == READER_CLOSED:
            return True
        return ending.ending == self.state and (self.state == STREAM_BROKEN or ending.count == self.received)

    def ending(self, direction: int) -> Ending:
        return Ending(self.number, direction, self.state, self.consumed)


class StreamHalves:
    """The halves of a job's streams that are on this side, by stream number."""

    __slots__ = ("incoming", "outgoing")

    def __init__(self, streams: Iterable[Stream] = (), *, worker: bool = False) -> None:
        """`worker`: this side has the program, so that what it reads comes in."""
        reads, writes = (READS, WRITES) if worker else (WRITES, READS)
        own = [stream for stream in streams if stream.same_as == stream.number]
        self.incoming = {s.number: Incoming(s.number, INITIAL_WINDOW) for s in own if s.directions & reads}
        self.outgoing = {s.number: Outgoing(s.number, INITIAL_WINDOW) for s in own if s.directions & writes}

    def receive_data(self, stream: int, size: int) -> bool:
        """Accounts for arriving data; returns False if it must be discarded because our reader has gone."""
        half = self.incoming.get(stream)
        if half is None:
            raise ProtocolError("data on a stream that does not exist")
        return half.receive(size)

    def receive(self, kind: int, stream: int, body: memoryview) -> bool:
        """Takes any other frame of a stream; returns True if it is an event."""
        if kind in (frames.END, frames.BROKEN):
            reading = self.incoming.get(stream)
            if reading is None:
                raise ProtocolError("end of a stream that does not exist")
            return reading.end(frames.parse_number(body, 8)) if kind == frames.END else reading.break_off()
        writing = self.outgoing.get(stream)
        if writing is None:
            raise ProtocolError("credit for a stream that does not exist")
        if kind == frames.CREDIT:
            writing.grant(frames.parse_number(body, 4))
            return False
        return writing.reader_closed(frames.parse_number(body, 8))

    def stop(self) -> list[Ending]:
        """Reads no more; returns how every stream of a program ended."""
        for half in self.incoming.values():
            half.stop_reading()
        endings = [half.ending(WRITES) for half in self.outgoing.values()]
        return endings + [half.ending(READS) for half in self.incoming.values()]

    def take_endings(self, endings: list[Ending]) -> None:
        """Takes the program's endings.

        Raises `ProtocolError` unless both sides agree how every stream ended and how many bytes it carried (N1).
        """
        told = {(ending.number, ending.direction): ending for ending in endings}
        if len(told) != len(endings) or len(told) != len(self.incoming) + len(self.outgoing):
            raise ProtocolError("exit frame does not name every stream once")
        for number, reading in self.incoming.items():
            ending = told.get((number, WRITES))
            if ending is None or not reading.agrees(ending):
                raise ProtocolError(f"stream {number} was cut short")
        for number, writing in self.outgoing.items():
            ending = told.get((number, READS))
            if ending is None or not writing.agrees(ending):
                raise ProtocolError(f"stream {number} was not read as it was written")
            writing.finish(ending)
