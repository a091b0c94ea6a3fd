"""The announcements that a worker remembers, each with one timer, and those that are done with.

Contract: `add` keeps at most MAXIMUM_REMEMBERED whose clients have proved themselves and MOST_UNPROVED others, which
never take room from the former (`unproved_room`).  `stands` follows a change of standing; `arm` sets the timer that the
announcement itself says, `due` returns one whose timer has passed.  One that is proved, waits and is still heard makes
room only for another client that has fewer.  Those that are done are known for DONE_LIFETIME, so that late copies are
ignored.  Pure.
"""

from __future__ import annotations

from heapq import heappop, heappush
from math import inf

from cexec.protocol.base.token_bucket import TokenBucket
from cexec.protocol.decisions.standing import Standing
from cexec.protocol.decisions.unproved_room import UnprovedRoom

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

DONE_LIFETIME = 30.0  # seconds (ours) that a claimed or finished announcement is remembered
SILENT = 0.5  # seconds (ours) without a connection after which a waiting client is told that it is queued
QUEUED_AGAIN = 1.0  # seconds (ours) after a QUEUED from which a copy means that it was perhaps lost
QUEUED_REPEATS = 3  # times (ours) that copies are answered so
FIRST_RETRY = 0.5  # seconds (ours) after a connection failed, doubled with each further failure
LONGEST_RETRY = 8.0  # seconds (ours)
NEW_WAYS_RATE = 0.1  # a second (ours): tries by ways that have never failed, which need not wait so long
NEW_WAYS_BURST = 5.0  # (ours) of them at once: copies from invented addresses must not make us connect everywhere
MAXIMUM_REMEMBERED = 10_000  # announcements (ours), and as many that are done
MOST_UNPROVED = 5_000  # announcements (ours) whose clients have not proved themselves

STILL_HEARD = 6.0  # seconds (ours) after a copy in which the next one comes: a client sends one every 5 s

# States of an announcement.  TRYING: this worker connects to a client that is unproved, CONNECTING: to one that is.
DELAYED, READY, CONNECTING, RESERVED, RUNNING, TRYING = range(6)


class Origin:
    """Whose announcement it is: `client`, as complaints tell clients apart, and `job`, as alerts call it.

    `family`: announcements of one client that have the same one are of one program, which does not wait for itself.
    """

    __slots__ = ("client", "family", "job")

    def __init__(self, client: bytes = b"", job: bytes = b"", family: bytes = b"") -> None:
        self.client = client
        self.job = job
        self.family = family


NOBODY = Origin()


class Timers:
    """When something is to be done for an announcement."""

    __slots__ = ("armed", "bid_at", "expires", "stalls_at")

    def __init__(self, expires: float) -> None:
        self.bid_at = self.stalls_at = inf
        self.expires = expires
        self.armed = inf  # the time of its entry in the timer heap; earlier entries are not valid any more


class Telling:
    """When the client is told that it is queued, or asked for a proof."""

    __slots__ = ("again", "due", "last", "waits")

    def __init__(self) -> None:
        self.due = inf
        self.last = inf
        self.waits = False  # for the next word that its source may have
        self.again = 0  # times that it was told because it had asked again

    def told(self, now: float, interval: float) -> None:
        self.last = now
        self.due = now + interval

    def lost(self, now: float) -> bool:
        """Returns True if a copy that comes now may mean that the client has not heard the last word."""
        return self.last + QUEUED_AGAIN <= now

    def repeat(self, when: float) -> None:
        """Makes it due, because the client asks again; at most QUEUED_REPEATS times."""
        if self.again < QUEUED_REPEATS and when < self.due:
            self.again += 1
            self.due = when


class Retry:
    """When an announcement whose connections failed is tried again: ever later, but never given up."""

    __slots__ = ("_failed_at", "_failures", "_new_ways", "at")

    def __init__(self) -> None:
        self.at = inf  # not before, and not before it is heard again; inf: no try is due
        self._failures = 0
        self._failed_at = -inf
        self._new_ways: TokenBucket | None = None  # from the first failure on

    @property
    def due(self) -> bool:
        """True if it waits for its next try."""
        return self.at != inf

    def failed(self, now: float, random: float) -> None:
        """`random`: from 0 up to but not 1."""
        if self._new_ways is None:
            self._new_ways = TokenBucket(NEW_WAYS_RATE, NEW_WAYS_BURST, now)
        pause = min(FIRST_RETRY * 2.0 ** min(self._failures, 10), LONGEST_RETRY)
        self._failures += 1
        self._failed_at = now
        self.at = now + pause * (0.5 + random)

    def heard(self, now: float, *, new_way: bool) -> float:
        """Returns the time of the next try, because a copy has come; `new_way`: by which nothing has failed yet."""
        sooner = self._failed_at + FIRST_RETRY
        if new_way and sooner < self.at and self._new_ways is not None and self._new_ways.left(now):
            self._new_ways.spend(1.0)
            self.at = sooner
        return max(now, self.at)


class RememberedAnnouncement:
    """An announcement that this worker can serve."""

    __slots__ = (
        "began", "boot", "claim_heard", "clock", "extra_delay", "heard_at", "heard_last", "identity", "origin",
        "proves", "retry", "source", "standing", "state", "targeted", "telling", "timers", "tried_at", "weight",
    )  # fmt: skip

    def __init__(
        self, identity: bytes, weight: int, heard_at: float, expires: float, *, targeted: bool, origin: Origin,
        standing: Standing = Standing.PROVED, source: str = "", proves: bool = True, clock: int = 0,
        boot: int = 0,
    ) -> None:  # fmt: skip
        """`source`: the host that it seems to come from; `proves`: its client is one that can prove itself.

        `clock`: when its client made it, by the client's own clock; `boot`: when its machine was started, by the same.
        """
        self.identity = identity
        self.standing = standing
        self.source = source
        self.proves = proves
        self.clock = clock
        self.boot = boot
        self.heard_last = heard_at
        self.origin = origin
        self.weight = max(1, min(weight, 65535))
        self.heard_at = heard_at
        self.targeted = targeted
        self.state = DELAYED
        self.timers = Timers(expires)
        self.telling = Telling()
        self.retry = Retry()
        self.extra_delay = 0.0  # the part of its delay that is due to relays
        self.claim_heard = False
        self.began = -1.0  # when its turn began, -1 if it has none
        self.tried_at = ""  # the source that the try of this moment counts for; empty if for none

    @property
    def leased(self) -> bool:
        """A connected client's next job: wanted as long as its connection lasts."""
        return self.timers.expires == inf

    @property
    def newness(self) -> tuple[int, float]:
        """Of two announcements of one source and boot, the one that was made later has more, or else came later."""
        return self.clock, self.heard_at

    @property
    def holds_slot(self) -> bool:
        return self.state in (RESERVED, RUNNING)

    def heard_again(self, now: float, extra_delay: float, *, new_way: bool) -> None:
        """Takes another copy, perhaps by a shorter way: the client still wants a worker."""
        self.heard_last = now
        if self.state == DELAYED and extra_delay < self.extra_delay:
            self.timers.bid_at -= self.extra_delay - extra_delay
            self.extra_delay = extra_delay
        if self.state == DELAYED and self.retry.due:
            bid_at = self.retry.heard(now, new_way=new_way)
            if bid_at < self.timers.bid_at:
                self.timers.bid_at = bid_at
                self.telling.due = min(self.telling.due, bid_at + SILENT)
        elif self.state == DELAYED and self.timers.bid_at == inf:
            self.timers.bid_at = now  # it had found no place

    def wait(self) -> None:
        """Waits for a slot from now on."""
        self.state = READY
        self.retry.at = inf

    def ask(self, when: float) -> None:
        """Bids no more until it is heard again or its client has proved itself, which it is asked for by then."""
        self.timers.bid_at = inf
        self.telling.due = min(self.telling.due, when)

    def postpone(self, until: float) -> None:
        """Lets it wait for its turn again, because this worker rests from the jobs of its client."""
        self.state = DELAYED
        self.timers.bid_at = until

    def try_again(self, now: float, random: float) -> None:
        """Waits a while and until it is heard again, because a client that has a worker falls silent."""
        self.state = DELAYED
        self.timers.bid_at = self.telling.due = inf
        self.retry.failed(now, random)

    def next_timer(self) -> float:
        timers = self.timers
        if self.state in (CONNECTING, TRYING, RESERVED):
            return timers.stalls_at
        if self.state == DELAYED:
            return min(timers.bid_at, self.telling.due, timers.expires)
        if self.state == READY:
            return min(self.telling.due, timers.expires)
        return inf


class Remembered:
    """The table of announcements, with their timers."""

    __slots__ = ("_clients", "_done", "_sequence", "_table", "_timers", "_unproved")

    def __init__(self, random: Callable[[], float]) -> None:
        self._unproved = UnprovedRoom(random)
        self._clients: dict[bytes, int] = {}  # how many of each client are in the table
        self._table: dict[bytes, RememberedAnnouncement] = {}  # heard longest ago first
        self._done: dict[bytes, tuple[float, int]] = {}  # the end, and the count from a claim that came first, or 0
        self._timers: list[tuple[float, int, bytes]] = []
        self._sequence = 0

    def get(self, identity: bytes) -> RememberedAnnouncement | None:
        return self._table.get(identity)

    def add(self, announcement: RememberedAnnouncement) -> RememberedAnnouncement | None:
        """Remembers it; returns the one that has to make room, perhaps itself, which the caller drops."""
        displaced = self._displaced(announcement)
        self._table[announcement.identity] = announcement
        if announcement.standing != Standing.PROVED:
            self._unproved.add(announcement.identity, announcement.source)
        client = announcement.origin.client
        self._clients[client] = self._clients.get(client, 0) + 1
        return displaced

    def stands(self, announcement: RememberedAnnouncement) -> None:
        """Its client has proved itself, or the way by which it had is gone."""
        if announcement.standing == Standing.PROVED:
            self._unproved.discard(announcement.identity)
        elif announcement.identity in self._table:
            self._unproved.add(announcement.identity, announcement.source)

    def _displaced(self, newcomer: RememberedAnnouncement) -> RememberedAnnouncement | None:
        if newcomer.standing != Standing.PROVED:
            return self._unproved_victim(newcomer) if len(self._unproved) >= MOST_UNPROVED else None
        full = len(self._table) - len(self._unproved) >= MAXIMUM_REMEMBERED
        return self._dispensable(newcomer) if full else None

    def _unproved_victim(self, newcomer: RememberedAnnouncement) -> RememberedAnnouncement:
        victim = self._unproved.victim(lambda identity: self._table[identity].state in (DELAYED, READY))
        return newcomer if victim is None else self._table[victim]

    def _dispensable(self, newcomer: RememberedAnnouncement) -> RememberedAnnouncement | None:
        """Returns one that is proved and no longer heard, or else what `_surplus` returns."""
        for old in self._table.values():
            if old.leased or old.state not in (DELAYED, READY):
                continue
            if newcomer.heard_at < old.heard_last + STILL_HEARD:
                break  # those that follow were heard later
            if old.standing == Standing.PROVED:
                return old
        return newcomer if newcomer.leased else self._surplus(newcomer)

    def _surplus(self, newcomer: RememberedAnnouncement) -> RememberedAnnouncement:
        """Returns one that is heard still, of the client that has the most; the newcomer if that is no other client."""
        worst = max(self._clients, key=self._clients.__getitem__)
        if self._clients[worst] <= self._clients.get(newcomer.origin.client, 0) + 1:
            return newcomer
        waiting = (old for old in self._table.values() if old.origin.client == worst)
        return next((old for old in waiting if not old.leased and old.state in (DELAYED, READY)), newcomer)

    def renew(self, announcement: RememberedAnnouncement, expires: float) -> None:
        """Lets it live longer, because it was heard again."""
        announcement.timers.expires = max(announcement.timers.expires, expires)
        self._table[announcement.identity] = self._table.pop(announcement.identity)
        self._unproved.heard(announcement.identity)
        self.arm(announcement)

    def finish(self, announcement: RememberedAnnouncement, now: float) -> None:
        """Drops it for good: late copies are ignored."""
        self.drop(announcement)
        self._remember_done(announcement.identity, 0, now)

    def drop(self, announcement: RememberedAnnouncement) -> None:
        """Drops it, because it expired or was displaced: a later copy counts as new."""
        del self._table[announcement.identity]
        self._unproved.discard(announcement.identity)
        client = announcement.origin.client
        self._clients[client] -= 1
        if not self._clients[client]:
            del self._clients[client]

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
        if when != announcement.timers.armed:
            announcement.timers.armed = when
            if when != inf:
                self._sequence += 1
                heappush(self._timers, (when, self._sequence, announcement.identity))

    def next_timer(self) -> float:
        """Returns the time at which the first timer passes, or inf."""
        while self._timers:
            when, _, identity = self._timers[0]
            announcement = self._table.get(identity)
            if announcement is not None and announcement.timers.armed == when:
                return when
            heappop(self._timers)
        return inf

    def due(self, now: float) -> RememberedAnnouncement | None:
        """Returns one whose timer has passed; its timer is off until it is armed again."""
        if self.next_timer() > now:
            return None
        announcement = self._table[heappop(self._timers)[2]]
        announcement.timers.armed = inf
        return announcement

    def _remember_done(self, identity: bytes, connected: int, now: float) -> None:
        self._done.pop(identity, None)
        self._done[identity] = (now + DONE_LIFETIME, connected)
        oldest = next(iter(self._done))
        while self._done[oldest][0] <= now or len(self._done) > MAXIMUM_REMEMBERED:
            del self._done[oldest]
            oldest = next(iter(self._done))
