"""The announcements that a relay has heard: whose they are, and where workers connect for them.

Contract: `AnnouncementTable` finds an announcement's entries, one for each source that it was heard from, by its mac1.
Its size is bounded, in all and for each host: `crowded` names the entry that has to go before one is added.  Who takes
an entry out closes its listener; connections that were made by it live on.  docs/protocol.md section 6.3.
"""

from __future__ import annotations

from math import inf

from cexec.net.sockets import with_port

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket

    from cexec.net.groups import Sockaddr
    from cexec.net.sockets import TcpListener

LIFETIME = 20.0  # seconds (ours) after the last copy: a client's default "wanted for", and some for the last worker
MAXIMUM_ANNOUNCED = 1024  # (ours) at once; the one heard longest ago makes room
MAXIMUM_OF_HOST = 512  # (ours) of one host, which makes room among its own


class Announced:
    """One announcement, as one source sends it.  `pending` is to be passed on at `due`, unless it is empty."""

    __slots__ = (
        "claimed", "connections", "due", "heard", "listener", "mac1", "passed_on", "pending", "port", "reached",
        "refuses_until", "reply_port", "side", "source", "via",
    )  # fmt: skip

    def __init__(self, mac1: bytes, side: int, source: Sockaddr, via: _socket.socket) -> None:
        self.mac1 = mac1
        self.side = side  # where it was heard
        self.source = source
        self.via = via  # the socket that heard it
        self.reply_port = 0
        self.heard = 0.0
        self.listener: TcpListener | None = None
        self.port = 0  # of our listener, also when it is closed
        self.reached = False  # its client has accepted a connection
        self.refuses_until = 0.0  # its client cannot be connected to, and so cannot we
        self.connections = 0
        self.passed_on = False
        self.claimed = False  # its client has chosen
        self.pending = b""
        self.due = 0.0

    @property
    def host(self) -> str:
        return str(self.source[0])

    @property
    def client(self) -> Sockaddr:
        """Where the client waits for connections, or the relay that is nearer to it."""
        return with_port(self.source, self.reply_port)


class AnnouncementTable:
    """All of them."""

    __slots__ = ("_by_mac1", "_entries", "_of_host")

    def __init__(self) -> None:
        self._entries: dict[tuple[bytes, Sockaddr], Announced] = {}  # heard longest ago first
        self._by_mac1: dict[bytes, list[Announced]] = {}
        self._of_host: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def all(self) -> list[Announced]:
        return list(self._entries.values())

    def of(self, mac1: bytes) -> list[Announced]:
        """The announcement, as each source sends it."""
        return list(self._by_mac1.get(mac1, ()))

    def get(self, mac1: bytes, source: Sockaddr) -> Announced | None:
        return self._entries.get((mac1, source))

    def crowded(self, host: str) -> Announced | None:
        """The entry that has to go before another one of this host is added, if one has."""
        if self._of_host.get(host, 0) >= MAXIMUM_OF_HOST:
            return next(entry for entry in self._entries.values() if entry.host == host)
        if len(self._entries) >= MAXIMUM_ANNOUNCED:
            return next(iter(self._entries.values()))
        return None

    def add(self, entry: Announced) -> None:
        self._entries[entry.mac1, entry.source] = entry
        self._by_mac1.setdefault(entry.mac1, []).append(entry)
        self._of_host[entry.host] = self._of_host.get(entry.host, 0) + 1

    def heard(self, entry: Announced, now: float) -> None:
        """A copy has come."""
        key = (entry.mac1, entry.source)
        self._entries[key] = self._entries.pop(key)
        entry.heard = now

    def remove(self, entry: Announced) -> None:
        del self._entries[entry.mac1, entry.source]
        together = self._by_mac1[entry.mac1]
        together.remove(entry)
        if not together:
            del self._by_mac1[entry.mac1]
        self._of_host[entry.host] -= 1
        if not self._of_host[entry.host]:
            del self._of_host[entry.host]

    def next_expiry(self) -> float:
        """When `expired` has one."""
        oldest = next(iter(self._entries.values()), None)
        return inf if oldest is None else oldest.heard + LIFETIME

    def expired(self, now: float) -> list[Announced]:
        """Those that were not heard for so long that nobody wants them any more."""
        found: list[Announced] = []
        for entry in self._entries.values():
            if now < entry.heard + LIFETIME:
                break
            found.append(entry)
        return found
