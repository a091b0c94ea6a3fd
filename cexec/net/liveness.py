"""Whether the machine at the other end of a TCP connection still answers while bytes are on their way to it.

Contract: `Liveness` is told of every step of the pump by `stepped` and asked at `next_timeout`, which is None while
nothing is outstanding, so an idle connection costs no wake-up; `handle_timeout` raises `SilentPeerError` when the
peer's kernel has acknowledged nothing for LONGEST_SILENCE.  A peer that is stopped, or does not read, has a kernel that
answers, also to the probes of a closed window: it is alive.  An idle connection is for TCP keep-alive to watch, which
counts the same 15 s.  Linux; elsewhere the kernel's own patience is all there is.  docs/protocol.md section 4.4.
"""

from __future__ import annotations

import _socket
import sys

from cexec.errors import SilentPeerError

LONGEST_SILENCE = 15.0  # seconds (protocol)
LOOK_INTERVAL = 5.0  # seconds (ours) between two looks while bytes are outstanding
LEAST_INTERVAL = 0.1  # seconds (ours), as the kernel's clock has no more than ticks

_TCP_INFO: int | None = getattr(_socket, "TCP_INFO", None)
_TCP_RTO_MAX_MS = 44  # <linux/tcp.h> of 6.15
_LONGEST_INTERVAL = 5000  # milliseconds (ours) between two attempts of the kernel to reach a silent peer
# struct tcp_info of <linux/tcp.h>: offsets of an octet, and of two numbers of 32 bits in the machine's byte order
_PROBES, _UNACKED, _LAST_ACK, _SIZE = 3, 24, 56, 60


class Liveness:
    """One connection."""

    __slots__ = ("_connection", "_look", "_since")

    def __init__(self, connection: _socket.socket) -> None:
        self._connection = connection
        self._look: float | None = None
        self._since: float | None = None  # when bytes were first seen to be outstanding, of those that still are
        if _TCP_INFO is not None:
            try:  # else a link that has come back is noticed only after as long as it was down
                connection.setsockopt(_socket.IPPROTO_TCP, _TCP_RTO_MAX_MS, _LONGEST_INTERVAL)
            except OSError:
                pass  # an older kernel, or no TCP

    def stepped(self, now: float) -> None:
        """The pump may have sent something."""
        if self._look is None and _TCP_INFO is not None:
            self._look = now + LOOK_INTERVAL

    def next_timeout(self) -> float | None:
        return self._look

    def handle_timeout(self, now: float) -> None:
        """Looks, when it is time."""
        if self._look is None or now < self._look:
            return
        waiting, silence = unacknowledged(self._connection)
        if not waiting:
            self._look = self._since = None
            return
        # The last acknowledgement may be old because nothing was sent since: both clocks must have run for long enough.
        self._since = max(now if self._since is None else self._since, now - silence)
        if now - self._since >= LONGEST_SILENCE:
            raise SilentPeerError(f"peer's machine has not answered for {LONGEST_SILENCE:.0f} seconds")
        self._look = now + min(LOOK_INTERVAL, max(LEAST_INTERVAL, self._since + LONGEST_SILENCE - now))


def unacknowledged(connection: _socket.socket) -> tuple[bool, float]:
    """Whether the peer's kernel owes an acknowledgement, of data or of a probe; seconds since its last one."""
    if _TCP_INFO is None:
        return False, 0.0
    try:
        info = connection.getsockopt(_socket.IPPROTO_TCP, _TCP_INFO, _SIZE)
    except OSError:
        return False, 0.0  # no TCP connection, or none any more, as the next read will tell
    if len(info) < _SIZE:
        return False, 0.0
    unacked = int.from_bytes(info[_UNACKED : _UNACKED + 4], sys.byteorder)
    last = int.from_bytes(info[_LAST_ACK : _LAST_ACK + 4], sys.byteorder)
    return bool(unacked or info[_PROBES]), last / 1000
