"""The kernel's knowledge of the machine at the other end of a TCP connection, and the rule of silence for it.

Contract: `unacknowledged(connection)` reads the kernel's state; `Liveness` joins it to `HostSilence` (the rule) for
owners of one connection: `stepped` after every step of the pump, `handle_timeout` when `next_timeout` is due, which
raises `SilentPeerError`.  This needs Linux: elsewhere
`unacknowledged` never reports anything, and only the kernel's own timeout ends a dead connection.
docs/protocol.md section 4.4.
"""

from __future__ import annotations

import _socket
import sys

from cexec.net.sockets import hurry
from cexec.protocol.connection.silence import HostSilence

_TCP_INFO: int | None = getattr(_socket, "TCP_INFO", None)
# struct tcp_info of <linux/tcp.h>: offsets of an octet, and of two numbers of 32 bits in the machine's byte order
_PROBES, _UNACKED, _LAST_ACK, _SIZE = 3, 24, 56, 60


class Liveness:
    """One connection and its rule."""

    __slots__ = ("_connection", "_silence")

    def __init__(self, connection: _socket.socket) -> None:
        self._connection = connection
        self._silence = HostSilence()
        hurry(connection)

    def stepped(self, now: float) -> None:
        """Notes that the pump may have sent something."""
        self._silence.stepped(now)

    def next_timeout(self) -> float | None:
        """Returns when `handle_timeout` is due; None while nothing is outstanding."""
        return self._silence.next_timeout()

    def handle_timeout(self, now: float) -> None:
        """Asks the kernel when it is time; raises `SilentPeerError` for a dead peer."""
        if self._silence.due(now):
            self._silence.looked(*unacknowledged(self._connection), now)


def unacknowledged(connection: _socket.socket) -> tuple[bool, float]:
    """Returns whether the peer's kernel owes an acknowledgement (of data or of a probe), and the last one's age."""
    if _TCP_INFO is None:
        return False, 0.0
    try:
        info = connection.getsockopt(_socket.IPPROTO_TCP, _TCP_INFO, _SIZE)
    except OSError:
        return False, 0.0  # not TCP, or already closed; the next read reports that
    if len(info) < _SIZE:
        return False, 0.0
    unacked = int.from_bytes(info[_UNACKED : _UNACKED + 4], sys.byteorder)
    last = int.from_bytes(info[_LAST_ACK : _LAST_ACK + 4], sys.byteorder)
    return bool(unacked or info[_PROBES]), last / 1000
