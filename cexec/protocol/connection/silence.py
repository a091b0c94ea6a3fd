"""These rules say what silence means: of a peer, of its host, and in the middle of a record.

`PeerSilence`: a peer that says nothing is asked (PING).  It is given up when it has not answered for its idle timeout.
`HostSilence`: a peer's kernel acknowledges bytes even if the peer itself is stopped or does not read; the kernel of a
host that has vanished acknowledges nothing.  So a peer is dead when bytes were outstanding, and nothing was
acknowledged, for LONGEST_SILENCE.  TCP keep-alive watches an idle connection and counts the same seconds.
`UnfinishedRecord`: a receiver that believes a length which was changed on the way waits for bytes that were never sent,
so it asks the peer.  A peer sends the rest of a record before anything else.  If its answer arrives alone, and the
record is unfinished still, the length is wrong.  A peer that is stopped, or whose network is away, does not answer, and
nothing is concluded.

Contract: pure rules for one connection; time is an argument.  docs/protocol.md sections 4.1 and 4.4.
"""

from __future__ import annotations

from cexec.common_errors import ProtocolError
from cexec.protocol.base.limits import PING_INTERVAL

LONGEST_SILENCE = 15.0  # seconds (protocol)
LOOK_INTERVAL = 5.0  # seconds (ours) between two looks while bytes are outstanding
LEAST_INTERVAL = 0.1  # seconds (ours): the kernel counts in ticks, so a closer look shows nothing new
QUIET = 0.5  # seconds (ours) without a byte in the middle of a record after which the peer is asked
ANSWERS = 2  # (ours) that must have come alone: one part of a record may happen to be as long as an answer


class PeerSilence:
    """The rule for a peer, whose frames are `heard`.  Also notices that this process was stopped."""

    __slots__ = ("_asked", "_heard", "_idle_timeout", "_interval", "_looked", "_unfinished")

    def __init__(self, idle_timeout: float, now: float) -> None:
        self._idle_timeout = idle_timeout
        self._interval = min(PING_INTERVAL, idle_timeout / 2)
        self._heard = self._looked = now
        self._asked = False
        self._unfinished: UnfinishedRecord | None = None

    def heard(self, now: float) -> None:
        """Notes a frame, with which its record is complete."""
        self._heard, self._asked, self._unfinished = now, False, None

    def part_received(self, size: int, answer: int, now: float) -> None:
        """Notes bytes that end in the middle of a record; a record with a PONG has `answer` bytes."""
        if self._unfinished is None:
            self._unfinished = UnfinishedRecord(answer)
        self._unfinished.received(size, now)

    def next_timeout(self) -> float:
        """Returns when to call `handle_timeout`, early enough for it to notice that this process was stopped."""
        due = self._heard + (self._idle_timeout if self._asked else self._interval)
        look = self._looked + self._interval
        if look < due:
            due = look
        if self._unfinished is not None and self._unfinished.due is not None:
            return min(due, self._unfinished.due)
        return due

    def handle_timeout(self, now: float) -> bool:
        """Returns True if the peer is to be asked.

        Raises `SilentPeerError` if it has been silent for too long, and `ProtocolError` if a record has another length
        than it says.
        """
        ask = self._unfinished is not None and self._unfinished.handle_timeout(now)
        slept, self._looked = now - self._looked > 2 * self._interval, now
        if slept:
            # This process was stopped: what the peer sent in the meantime has yet to be read.
            self._heard, self._asked = now, False
        elif self._asked and now >= self._heard + self._idle_timeout:
            from cexec.errors import SilentPeerError  # here and below, because most peers answer

            raise SilentPeerError(f"peer has been silent for {self._idle_timeout:.0f} seconds")
        elif not self._asked and now >= self._heard + self._interval:
            self._asked = ask = True
        return ask


class UnfinishedRecord:
    """The rule for one record of which a part has come.  A record with the peer's answer has `answer` bytes.

    `due` is when to call `handle_timeout`; None while there is nothing to wait for.
    """

    __slots__ = ("_answer", "_answers", "_arrived", "_asked", "due")

    def __init__(self, answer: int) -> None:
        self._answer = answer
        self.due: float | None = None
        self._asked = False
        self._answers = 0
        self._arrived = 0  # bytes since the peer was asked

    def received(self, size: int, now: float) -> None:
        self._arrived += size
        self.due = now + QUIET

    def handle_timeout(self, now: float) -> bool:
        """Returns True if the peer is to be asked; raises `ProtocolError` for a wrong length."""
        if self.due is None or now < self.due:
            return False
        self._answers = self._answers + 1 if self._asked and self._arrived == self._answer else 0
        if self._answers == ANSWERS:
            raise ProtocolError("record has a length that was changed on the way")
        self.due, self._asked, self._arrived = None, True, 0
        return True


class HostSilence:
    """The rule for a host.

    `stepped(now)` says that bytes may have been sent.  When it, or `due(now)`, is true, the owner asks the kernel and
    passes the answer to `looked`.  While nothing is outstanding, a connection costs no wake-up.
    """

    __slots__ = ("_look", "_since")

    def __init__(self) -> None:
        self._look: float | None = None
        self._since: float | None = None  # since when bytes are outstanding and nothing is acknowledged

    def stepped(self, now: float) -> bool:
        """Notes that bytes may have been sent, after each step of the pump; returns True if a look is due."""
        if self._look is None:
            self._look = now + LOOK_INTERVAL
            return False
        return now >= self._look

    def next_timeout(self) -> float | None:
        """Returns when the next look is due."""
        return self._look

    def due(self, now: float) -> bool:
        """Returns True if the kernel is to be asked now."""
        return self._look is not None and now >= self._look

    def looked(self, outstanding: bool, age: float, now: float) -> None:
        """Takes the kernel's answer: whether it waits for an acknowledgement, and seconds since the last one.

        Raises `SilentPeerError` for a dead peer.
        """
        if not outstanding:
            self._look = self._since = None
            return
        # The last acknowledgement may be old because nothing was sent since: both clocks must have run for long enough.
        self._since = max(now if self._since is None else self._since, now - age)
        if now - self._since >= LONGEST_SILENCE:
            from cexec.errors import SilentPeerError

            raise SilentPeerError(f"peer's machine has not answered for {LONGEST_SILENCE:.0f} seconds")
        self._look = now + min(LOOK_INTERVAL, max(LEAST_INTERVAL, self._since + LONGEST_SILENCE - now))
