"""What a worker knows of the announcements that it has heard: how to answer them, and by which ways.

Contract: bounded in number and time; a copy of an announcement that is done with is told from a new one without opening
it.  docs/protocol.md section 2.2.
"""

from __future__ import annotations

from cexec.protocol.base.limits import MAXIMUM_HOPS
from cexec.protocol.datagrams.announcement import Claim, OpenedAnnouncement

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket

    from cexec.net.groups import Sockaddr
    from cexec.protocol.datagrams.datagram import Datagram

MAXIMUM_WAYS = 4  # (ours) to one client that are kept
MAXIMUM_HEARD = 10_000  # (ours) announcements, and as many that are done with, and claims that came first
DONE_LIFETIME = 60.0  # seconds (ours) that an announcement is known as done with, longer than any client repeats one
IDLE_LIFETIME = 120.0  # seconds (ours) without a copy after which even a refused announcement is dropped


class Way:
    """One way to a client: where an announcement came from, and through which socket."""

    __slots__ = ("address", "hops", "source", "via")

    def __init__(self, parsed: Datagram, source: Sockaddr, via: _socket.socket) -> None:
        self.hops = min(parsed.hops, MAXIMUM_HOPS)
        self.source = source
        self.address: Sockaddr = (source[0], parsed.reply_port, *source[2:])
        self.via = via


class Known:
    """One announcement.  `ways`: nearest first.  `refusal`: why this worker will never do it, or nothing."""

    __slots__ = ("_next", "failures", "heard", "mac1", "opened", "refusal", "refusals", "ways")

    def __init__(self, mac1: bytes, opened: OpenedAnnouncement, now: float) -> None:
        self.mac1 = mac1
        self.opened = opened
        self.heard = now
        self.ways: list[Way] = []
        self.refusal = ""
        self.refusals = 0
        self.failures = 0
        self._next = 0

    def hear(self, way: Way, now: float) -> None:
        """Another copy: by a known way or by one more."""
        self.heard = now
        for index, known in enumerate(self.ways):
            if known.address == way.address:
                self.ways[index] = way
                break
        else:
            self.ways.append(way)
        self.ways.sort(key=lambda one: -one.hops)
        del self.ways[MAXIMUM_WAYS:]

    def next_way(self) -> Way:
        """The nearest way at first, then the others in turn."""
        way = self.ways[self._next % len(self.ways)]
        self._next += 1
        return way

    @property
    def relays(self) -> int:
        """How many relays the nearest way passes."""
        return MAXIMUM_HOPS - self.ways[0].hops

    def fields(self) -> dict[str, object]:
        """What a log line says of it."""
        announcement = self.opened.announcement
        return {
            "job": announcement.job_id.hex(),
            "attempt": announcement.attempt,
            "name": announcement.certificate.name,
        }


class HeardAnnouncements:
    """All that is known, by mac1."""

    def __init__(self) -> None:
        self._known: dict[bytes, Known] = {}
        self._refused: dict[bytes, Known] = {}
        self._done: dict[bytes, float] = {}  # until when
        self._claims: dict[bytes, tuple[float, Claim]] = {}  # claims that came before their announcement

    def get(self, mac1: bytes) -> Known | None:
        return self._known.get(mac1) or self._refused.get(mac1)

    def done(self, mac1: bytes) -> bool:
        """Whether this datagram is known to be over."""
        return mac1 in self._done

    def add(self, mac1: bytes, opened: OpenedAnnouncement, way: Way, now: float) -> Known:
        """A new one.  The bidder forgets it in time, or whoever answers it; `refuse` is for what neither is told of."""
        known = self._known[mac1] = Known(mac1, opened, now)
        known.hear(way, now)
        return known

    def refuse(self, known: Known, reason: str) -> None:
        """This worker will never do it."""
        known.refusal = reason
        self._known.pop(known.mac1, None)
        _put(self._refused, known.mac1, known)

    def forget(self, mac1: bytes, now: float, *, over: bool = True) -> None:
        """Drops it; when it is over, copies that still come wake nobody."""
        self._known.pop(mac1, None)
        if over:
            _put(self._done, mac1, now + DONE_LIFETIME)

    def claim_first(self, claim: Claim, now: float) -> None:
        """A claim whose announcement has not been heard (yet)."""
        _put(self._claims, claim.announced, (now + DONE_LIFETIME, claim))

    def take_claim(self, mac1: bytes) -> Claim | None:
        """The claim that came before this announcement, if one did."""
        early = self._claims.pop(mac1, None)
        return None if early is None else early[1]

    def expire(self, now: float) -> None:
        """Drops what is too old to matter; the bidder has let go of it long before."""
        self._done = {mac1: until for mac1, until in self._done.items() if until > now}
        self._claims = {mac1: early for mac1, early in self._claims.items() if early[0] > now}
        self._refused = {mac1: known for mac1, known in self._refused.items() if known.heard >= now - IDLE_LIFETIME}


def _put(table: dict, key: bytes, value: object) -> None:  # type: ignore[type-arg]
    """Keeps the table bounded: the oldest entry goes."""
    if len(table) >= MAXIMUM_HEARD:
        del table[next(iter(table))]
    table[key] = value
