"""The rule that tells a vanished host from a silent peer.  docs/protocol.md section 4.4.

A peer's kernel acknowledges bytes even if the peer itself is stopped or does not read; the kernel of a host that has
vanished acknowledges nothing.  So a peer is dead when bytes were outstanding, and nothing was acknowledged, for
LONGEST_SILENCE.  TCP keep-alive watches an idle connection and counts the same seconds.

Contract: pure.  `stepped(now)` says that bytes may have been sent.  When it, or `due(now)`, is true, the owner asks the
kernel and passes the answer to `looked`, which raises `SilentPeerError` for a dead peer.  `next_timeout()` is None
while nothing is outstanding, so an idle connection costs no wake-up.
"""

from __future__ import annotations

from cexec.errors import SilentPeerError

LONGEST_SILENCE = 15.0  # seconds (protocol)
LOOK_INTERVAL = 5.0  # seconds (ours) between two looks while bytes are outstanding
LEAST_INTERVAL = 0.1  # seconds (ours): the kernel counts in ticks, so a closer look shows nothing new


class Silence:
    """The rule for one connection."""

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
        """Takes the kernel's answer: whether it waits for an acknowledgement, and seconds since the last one."""
        if not outstanding:
            self._look = self._since = None
            return
        # The last acknowledgement may be old because nothing was sent since: both clocks must have run for long enough.
        self._since = max(now if self._since is None else self._since, now - age)
        if now - self._since >= LONGEST_SILENCE:
            raise SilentPeerError(f"peer's machine has not answered for {LONGEST_SILENCE:.0f} seconds")
        self._look = now + min(LOOK_INTERVAL, max(LEAST_INTERVAL, self._since + LONGEST_SILENCE - now))
