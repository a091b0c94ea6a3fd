"""The two halves of a stream: one sends under the peer's credit, the other receives under ours.

Contract: counters and states only, no data.  A half ends once, in one of the three ways of docs/protocol.md section
4.3.  A peer that exceeds its credit, or goes on after the end, causes a `ProtocolError`.
"""

from __future__ import annotations

from cexec.errors import ProtocolError
from cexec.protocol.connection.frames import ENDED, READER_CLOSED, STREAM_BROKEN, Ending

OPEN = 0  # else one of frames.ENDED, READER_CLOSED, STREAM_BROKEN
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

    __slots__ = ("_unacknowledged", "_whole", "consumed", "number", "received", "state", "window")

    def __init__(self, number: int, window: int) -> None:
        self.number = number
        self.window = self._whole = window
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
        return self.state == OPEN and self._unacknowledged >= self._whole // 4

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
