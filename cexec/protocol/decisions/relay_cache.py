"""Protection of relays from floods: a cache of datagrams that were passed on, and rate limits.

Contract: `SeenCache.passes` is True for a datagram that is to be passed on, and remembers it: repetitions pass, copies
that have come round a loop do not.  `RateLimits` bounds the datagrams of one side, in all and for each host.  Pure;
times are seconds of a monotonic clock.  docs/protocol.md section 6.2.
"""

from __future__ import annotations

from cexec.protocol.base.token_bucket import TokenBucket

REPEAT_INTERVAL = 0.1  # seconds (ours) between two copies with one counter: less than any sender leaves between two
WAY_LIFETIME = 6.0  # seconds (ours) without a copy after which a longer way counts: more than between two announcements
MAXIMUM_SEEN = 20_000  # datagrams (ours)
MAXIMUM_HOSTS = 1024  # (ours) whose shares are told apart; the one heard longest ago is forgotten
BURST = 1.0  # seconds' worth (ours) that may be passed on at once
SHARE = 0.5  # (ours) of the rate that one host may use, so that it cannot starve all others


class SeenCache:
    """The datagrams that were passed on.

    A datagram's nearest side is where its copies come with most hops left; there may be several.  Copies from another
    side have come round: they are dropped as long as the nearest one is heard, however long the round took, since a
    relay lowers the hops.  Copies from a nearest side pass, by whatever relay they came, but those with one counter (of
    some kinds it is always 0) only at intervals.
    """

    __slots__ = ("_interval", "_seen", "_ways")

    def __init__(self, interval: float = REPEAT_INTERVAL) -> None:
        self._interval = interval
        self._ways: dict[bytes, tuple[int, frozenset[int], float]] = {}  # hops, sides, when; heard longest ago first
        self._seen: dict[tuple[bytes, int, int], float] = {}  # passed on longest ago first

    def __len__(self) -> int:
        """Counts the datagrams that are remembered."""
        return max(len(self._ways), len(self._seen))

    def passes(self, mac1: bytes, counter: int, hops: int, side: int, now: float) -> bool:
        """Returns True if a datagram that was heard at `side` is to be passed on."""
        best, nearest, heard = self._ways.pop(mac1, (-1, frozenset(), now))
        if now - heard >= WAY_LIFETIME or hops > best:
            best, nearest, heard = hops, frozenset({side}), now
        elif hops == best:
            nearest, heard = nearest | {side}, now
        _put(self._ways, mac1, (best, nearest, heard))
        if side not in nearest:
            return False
        key = (mac1, counter, side)
        if now - self._seen.get(key, -self._interval) < self._interval:
            return False
        self._seen.pop(key, None)
        _put(self._seen, key, now)
        return True


class RateLimits:
    """The number of datagrams a second that are passed on from one side."""

    __slots__ = ("_all", "_hosts", "_rate")

    def __init__(self, rate: float, now: float) -> None:
        self._rate = rate
        self._all = TokenBucket(rate, rate * BURST, now)
        self._hosts: dict[str, TokenBucket] = {}

    @property
    def hosts(self) -> int:
        """Counts the hosts that are told apart."""
        return len(self._hosts)

    def left(self, host: str, now: float) -> bool:
        """Returns True if one more datagram from this host may be passed on."""
        bucket = self._hosts.pop(host, None)
        if bucket is None:
            bucket = TokenBucket(self._rate * SHARE, self._rate * SHARE * BURST, now)
            if len(self._hosts) >= MAXIMUM_HOSTS:
                del self._hosts[next(iter(self._hosts))]
        self._hosts[host] = bucket
        return self._all.left(now) and bucket.left(now)

    def spend(self, host: str) -> None:
        """Counts a datagram that was passed on; `left` was called for its host."""
        self._all.spend(1.0)
        self._hosts[host].spend(1.0)


def _put(table: dict, key: object, value: object) -> None:  # type: ignore[type-arg]
    table[key] = value
    if len(table) > MAXIMUM_SEEN:
        del table[next(iter(table))]
