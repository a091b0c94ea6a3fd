"""The announcements that a relay has heard: where each came from, and where workers connect for it.

Contract: `AnnouncementTable` finds an announcement's entries, one for each source that it was heard from, by its mac1.
Its size is bounded, in all, for each host and for each announcement: `full` says that an announcement has come from as
many sources as count, `crowded` names the entry that has to be removed before one is added.
The caller that removes an entry also closes its listener; connections that it has accepted live on.  docs/protocol.md
section 6.3.

    state      a claim from the same source   a copy of it               after
    HEARD      is not passed on               is passed on when due      the first copy
    PASSED_ON  is passed on                   is passed on               workers may connect
    CLAIMED    is passed on                   is dropped                 its client has chosen
    WITHDRAWN  is not passed on               is dropped                 its client chose before it was passed on
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from cexec.net.sockets import with_port

if TYPE_CHECKING:
    import _socket

    from cexec.net.groups import Sockaddr
    from cexec.net.sockets import TcpListener

LIFETIME = 20.0  # seconds (ours) after the last copy: a client's default "wanted for", and some for the last worker
MAXIMUM_ANNOUNCED = 1024  # (ours) at once; the one heard longest ago makes room
MAXIMUM_WORKERS = 16  # (ours) of one announcement that are remembered
MAXIMUM_SOURCES = 8  # (ours) of one announcement: each answer goes to all of them, and anybody can invent sources
MAXIMUM_OF_HOST = 512  # (ours) of one host, which makes room among its own

HEARD, PASSED_ON, CLAIMED, WITHDRAWN = "heard", "passed on", "claimed", "withdrawn"
TRANSITIONS = {
    HEARD: (PASSED_ON, WITHDRAWN),
    PASSED_ON: (PASSED_ON, CLAIMED),
    CLAIMED: (CLAIMED,),
    WITHDRAWN: (WITHDRAWN,),
}


class RelayedAnnouncement:
    """One announcement, as one source sends it.  `pending` is a copy to be passed on at `due`, or empty."""

    __slots__ = (
        "answered", "connections", "due", "heard", "listener", "mac1", "pending", "port", "reached", "refuses_until",
        "reply_port", "side", "source", "state", "tried", "via", "workers",
    )  # fmt: skip

    def __init__(self, mac1: bytes, side: int, source: Sockaddr, via: _socket.socket) -> None:
        self.state = HEARD
        self.mac1 = mac1
        self.side = side  # where it was heard
        self.source = source
        self.via = via  # the socket that heard it
        self.reply_port = 0
        self.heard = 0.0
        self.listener: TcpListener | None = None
        self.port = 0  # of our listener, also when it is closed
        self.reached = False  # its client has accepted a connection
        self.tried: Sockaddr | None = None  # where a connection was made to
        self.answered = False  # a client has answered there
        self.refuses_until = 0.0  # its client cannot be connected to, and so cannot we
        self.connections = 0
        self.workers: set[str] = set()  # hosts that have connected, some of them
        self.pending = b""
        self.due = 0.0

    def connected(self, host: str) -> None:
        """Notes a connection for this announcement."""
        self.connections += 1
        if len(self.workers) < MAXIMUM_WORKERS:
            self.workers.add(host)

    def move(self, state: str) -> None:
        """The only place that changes the state."""
        if state not in TRANSITIONS[self.state]:
            raise ValueError(f"an announcement that is {self.state} cannot become {state}")
        self.state = state

    @property
    def passed_on(self) -> bool:
        """True if the other network has seen it."""
        return self.state in (PASSED_ON, CLAIMED)

    @property
    def claimed(self) -> bool:
        """True if its client has chosen a worker."""
        return self.state in (CLAIMED, WITHDRAWN)

    @property
    def host(self) -> str:
        return str(self.source[0])

    @property
    def client(self) -> Sockaddr:
        """The address where the client, or the relay that is nearer to it, waits for connections."""
        return with_port(self.source, self.reply_port)


class AnnouncementTable:
    """All announcements of one relay."""

    __slots__ = ("_by_mac1", "_entries", "_of_host")

    def __init__(self) -> None:
        self._entries: dict[tuple[bytes, Sockaddr], RelayedAnnouncement] = {}  # heard longest ago first
        self._by_mac1: dict[bytes, list[RelayedAnnouncement]] = {}
        self._of_host: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def all(self) -> list[RelayedAnnouncement]:
        return list(self._entries.values())

    def of(self, mac1: bytes) -> list[RelayedAnnouncement]:
        """Returns the announcement's entries, one for each source."""
        return list(self._by_mac1.get(mac1, ()))

    def get(self, mac1: bytes, source: Sockaddr) -> RelayedAnnouncement | None:
        return self._entries.get((mac1, source))

    def full(self, mac1: bytes) -> bool:
        """Returns True if no other source of this announcement counts; those that were heard first stay."""
        return len(self._by_mac1.get(mac1, ())) >= MAXIMUM_SOURCES

    def crowded(self, host: str) -> RelayedAnnouncement | None:
        """Returns the entry that has to be removed before another one of this host is added, or None."""
        if self._of_host.get(host, 0) >= MAXIMUM_OF_HOST:
            return next(entry for entry in self._entries.values() if entry.host == host)
        if len(self._entries) >= MAXIMUM_ANNOUNCED:
            return next(iter(self._entries.values()))
        return None

    def add(self, entry: RelayedAnnouncement) -> None:
        self._entries[entry.mac1, entry.source] = entry
        self._by_mac1.setdefault(entry.mac1, []).append(entry)
        self._of_host[entry.host] = self._of_host.get(entry.host, 0) + 1

    def heard(self, entry: RelayedAnnouncement, now: float) -> None:
        """Notes that a copy has come."""
        key = (entry.mac1, entry.source)
        self._entries[key] = self._entries.pop(key)
        entry.heard = now

    def remove(self, entry: RelayedAnnouncement) -> None:
        del self._entries[entry.mac1, entry.source]
        together = self._by_mac1[entry.mac1]
        together.remove(entry)
        if not together:
            del self._by_mac1[entry.mac1]
        self._of_host[entry.host] -= 1
        if not self._of_host[entry.host]:
            del self._of_host[entry.host]

    def next_expiry(self) -> float:
        """Returns the time when `expired` will find an entry."""
        oldest = next(iter(self._entries.values()), None)
        return inf if oldest is None else oldest.heard + LIFETIME

    def expired(self, now: float) -> list[RelayedAnnouncement]:
        """Returns the entries that were not heard for LIFETIME."""
        found: list[RelayedAnnouncement] = []
        for entry in self._entries.values():
            if now < entry.heard + LIFETIME:
                break
            found.append(entry)
        return found
