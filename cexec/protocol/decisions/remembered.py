"""The announcements that a worker remembers, each with one timer, and those that are done with.

Contract: `add` keeps at most MAXIMUM_REMEMBERED, `arm` sets the timer that the announcement itself says, `due` returns
one whose timer has passed.  Those that are done are known for DONE_LIFETIME, so that late copies are ignored.  Pure.
"""

from __future__ import annotations

from heapq import heappop, heappush
from math import inf

DONE_LIFETIME = 30.0  # seconds (ours) that a claimed, finished or given up announcement is remembered
SILENT = 0.5  # seconds (ours) without a connection after which a waiting client is told that it is queued
MAXIMUM_REMEMBERED = 10_000  # announcements (ours), and as many that are done

DELAYED, READY, CONNECTING, RESERVED, RUNNING = range(5)  # states of an announcement


class RememberedAnnouncement:
    """An announcement that this worker can serve."""

    __slots__ = (
        "bid_at", "claim_heard", "expires", "extra_delay", "failures", "heard_at", "identity", "queued_at", "retry_at",
        "stalls_at", "state", "targeted", "timer", "told_again", "told_at", "weight",
    )  # fmt: skip

    def __init__(self, identity: bytes, weight: int, heard_at: float, expires: float, targeted: bool) -> None:
        self.identity = identity
        self.weight = max(1, min(weight, 65535))
        self.heard_at = heard_at
        self.expires = expires
        self.targeted = targeted
        self.state = DELAYED
        self.bid_at = self.queued_at = self.stalls_at = inf
        self.extra_delay = 0.0  # the part of its delay that is due to relays
        self.retry_at = inf  # not before, and not before it is heard again
        self.failures = 0  # connections that failed
        self.claim_heard = False
        self.told_at = inf  # when the last QUEUED went out
        self.told_again = 0
        self.timer = inf  # the time of its entry in the timer heap; earlier entries are not valid any more

    @property
    def leased(self) -> bool:
        """A connected client's next job: wanted as long as its connection lasts."""
        return self.expires == inf

    @property
    def holds_slot(self) -> bool:
        return self.state in (RESERVED, RUNNING)

    def heard_again(self, now: float, extra_delay: float) -> None:
        """Takes another copy, perhaps by a shorter way: the client still wants a worker."""
        if self.state == DELAYED and extra_delay < self.extra_delay:
            self.bid_at -= self.extra_delay - extra_delay
            self.extra_delay = extra_delay
        if self.retry_at != inf:
            self.bid_at = max(now, self.retry_at)
            self.queued_at = self.bid_at + SILENT
            self.retry_at = inf

    def tell_again(self, when: float, times: int) -> None:
        """Makes a QUEUED due, because the client asks again and may have missed the last one; at most `times` times."""
        if self.told_again < times and when < self.queued_at:
            self.told_again += 1
            self.queued_at = when

    def next_timer(self) -> float:
        if self.state == CONNECTING:
            return self.stalls_at
        if self.state == DELAYED:
            return min(self.bid_at, self.queued_at, self.expires)
        if self.state == READY:
            return min(self.queued_at, self.expires)
        return inf


class Remembered:
    """The table of announcements, with their timers."""

    __slots__ = ("_done", "_sequence", "_table", "_timers")

    def __init__(self) -> None:
        self._table: dict[bytes, RememberedAnnouncement] = {}  # heard longest ago first
        self._done: dict[bytes, tuple[float, int]] = {}  # the end, and the count from a claim that came first, or 0
        self._timers: list[tuple[float, int, bytes]] = []
        self._sequence = 0

    def get(self, identity: bytes) -> RememberedAnnouncement | None:
        return self._table.get(identity)

    def add(self, announcement: RememberedAnnouncement) -> RememberedAnnouncement | None:
        """Remembers it; returns the one that has to make room, which the caller drops."""
        oldest = None
        if len(self._table) >= MAXIMUM_REMEMBERED:
            oldest = next((old for old in self._table.values() if old.state in (DELAYED, READY)), None)
        self._table[announcement.identity] = announcement
        return oldest

    def renew(self, announcement: RememberedAnnouncement, expires: float) -> None:
        """Lets it live longer, because it was heard again."""
        announcement.expires = max(announcement.expires, expires)
        self._table[announcement.identity] = self._table.pop(announcement.identity)
        self.arm(announcement)

    def finish(self, announcement: RememberedAnnouncement, now: float) -> None:
        """Drops it for good: late copies are ignored."""
        self.drop(announcement)
        self._remember_done(announcement.identity, 0, now)

    def drop(self, announcement: RememberedAnnouncement) -> None:
        """Drops it, because it expired or was displaced: a later copy counts as new."""
        del self._table[announcement.identity]

    def claim_first(self, identity: bytes, connected: int, now: float) -> None:
        """Notes a claim that came before its announcement."""
        if self._done.get(identity, (-inf, 0))[0] <= now:
            self._remember_done(identity, connected, now)

    def done(self, identity: bytes, now: float) -> int | None:
        """Returns None if unfinished; else the count from the first claim, reported once, and 0 thereafter."""
        until, connected = self._done.get(identity, (-inf, 0))
        if until <= now:
            return None
        self._done[identity] = (until, 0)
        return connected

    def arm(self, announcement: RememberedAnnouncement) -> None:
        """Sets the announcement's timer."""
        when = announcement.next_timer()
        if when != announcement.timer:
            announcement.timer = when
            if when != inf:
                self._sequence += 1
                heappush(self._timers, (when, self._sequence, announcement.identity))

    def next_timer(self) -> float:
        """Returns the time at which the first timer passes, or inf."""
        while self._timers:
            when, _, identity = self._timers[0]
            announcement = self._table.get(identity)
            if announcement is not None and announcement.timer == when:
                return when
            heappop(self._timers)
        return inf

    def due(self, now: float) -> RememberedAnnouncement | None:
        """Returns one whose timer has passed; its timer is off until it is armed again."""
        if self.next_timer() > now:
            return None
        announcement = self._table[heappop(self._timers)[2]]
        announcement.timer = inf
        return announcement

    def _remember_done(self, identity: bytes, connected: int, now: float) -> None:
        self._done.pop(identity, None)
        self._done[identity] = (now + DONE_LIFETIME, connected)
        oldest = next(iter(self._done))
        while self._done[oldest][0] <= now or len(self._done) > MAXIMUM_REMEMBERED:
            del self._done[oldest]
            oldest = next(iter(self._done))
