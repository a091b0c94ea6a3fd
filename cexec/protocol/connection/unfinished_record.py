"""The rule that tells a record whose length was changed on the way from one whose rest has yet to come.

A receiver that believes a changed length waits for bytes that were never sent, so it asks the peer (PING).  A peer
sends the rest of a record before anything else.  If its answer arrives alone, and the record is unfinished still, the
length is wrong.  A peer that is stopped, or whose network is away, does not answer, and nothing is concluded.
docs/protocol.md section 4.1.

Contract: pure.  `received(size, answer, now)` is told of bytes that end in the middle of a record; a record with a PONG
has `answer` bytes.  `ended()` says that a record is complete.  `next_timeout()` is None while there is nothing to ask.
`handle_timeout(now)` returns True if the peer is to be asked, and raises `ProtocolError` for a wrong length.
"""

from __future__ import annotations

from cexec.errors import ProtocolError

QUIET = 0.5  # seconds (ours) without a byte in the middle of a record after which the peer is asked
ANSWERS = 2  # (ours) that must have come alone: one part of a record may happen to be as long as an answer


class UnfinishedRecord:
    """The rule for one direction of one connection."""

    __slots__ = ("_answer", "_answers", "_arrived", "_asked", "_due")

    def __init__(self) -> None:
        self._answer = 0
        self.ended()

    def ended(self) -> None:
        self._due: float | None = None
        self._asked = False
        self._answers = 0
        self._arrived = 0  # bytes since the peer was asked

    def received(self, size: int, answer: int, now: float) -> None:
        self._answer = answer
        self._arrived += size
        self._due = now + QUIET

    def next_timeout(self) -> float | None:
        return self._due

    def handle_timeout(self, now: float) -> bool:
        if self._due is None or now < self._due:
            return False
        self._answers = self._answers + 1 if self._asked and self._arrived == self._answer else 0
        if self._answers == ANSWERS:
            raise ProtocolError("record has a length that was changed on the way")
        self._due, self._asked, self._arrived = None, True, 0
        return True
