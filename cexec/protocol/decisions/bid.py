"""The decision of a worker when to answer an announcement: docs/placement.md and docs/protocol.md section 3.

Contract: `Bidder` takes announcements, claims, load samples and the ends of connections and jobs.  Its answers are the
events of `next_event`, to be emptied after every call, and the timer (`next_timeout`, `handle_timeout`).  An identity
is the 16 bytes of mac1, times are seconds of a monotonic clock.  It knows of no socket and no key, and raises nothing:
figures of peers are clamped and memory is bounded.
"""

from __future__ import annotations

from math import inf

from cexec.protocol.base import limits
from cexec.protocol.base.host_load import Load
from cexec.protocol.decisions.bid_events import Connect, Forget, Outcome, Penalized, Queued, Recovered
from cexec.protocol.decisions.competition import Competition
from cexec.protocol.decisions.lottery import Waiting
from cexec.protocol.decisions.remembered import (
    CONNECTING,
    DELAYED,
    READY,
    RESERVED,
    RUNNING,
    SILENT,
    Remembered,
    RememberedAnnouncement,
)
from cexec.protocol.decisions.reputation import LONGEST_DELAY, Reputation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Bidder", "Connect", "Forget", "Load", "Outcome", "Penalized", "Queued", "Recovered"]

# All of these are (ours); docs/placement.md derives them and benchmarks/simulate_*.py measure them.
IDLE_DELAY = 0.008  # seconds that an idle worker of speed 1 waits for faster ones, once it knows of rivals
LOAD_DELAY = 0.100  # seconds more at a load of 1 and a speed of 1
STALL = 0.1  # seconds after which a connection attempt no longer keeps its slot from another
STALLED_ALLOWED = 4  # connection attempts beyond the free slots
FIRST_RETRY = 0.5  # seconds after a connection failed, doubled with each further failure
RETRIES = 5  # connections that may fail before an announcement is given up
QUEUED_AGAIN = 1.0  # seconds after a QUEUED from which a copy of the announcement means that it was perhaps lost
QUEUED_REPEATS = 3  # times that copies are answered so
FEW_COMPETITORS = 4  # up to so many answer at a time: with more, one that is lost is no loss
QUEUED_SPACING = 0.002  # seconds between two QUEUED, so that many waiting clients do not take the CPU from the jobs
LONGEST_WANTED = 3600.0  # seconds
SLOWEST, FASTEST = 0.05, 100.0  # speeds that are believed


class Bidder:
    """Decides which announcements a worker answers, and when.

    consider -> DELAYED -> READY -> Connect -> CONNECTING -> reserved -> RESERVED -> started -> RUNNING -> finished

    `failed` and `released` lead back to DELAYED, `withdrawn` to READY, and `hold` from READY to RESERVED.  What is
    claimed, expires or is given up leaves with Forget, but never while a slot is held for it.
    """

    __slots__ = (
        "_announcements", "_boost", "_competition", "_connecting", "_events", "_load", "_now", "_queued_next",
        "_random", "_reputation", "_reserved", "_running", "_slots", "_speed", "_stalled", "_waiting",
    )  # fmt: skip

    def __init__(
        self, *, slots: int, speed: float = 1.0, boost: float | None = None, random: Callable[[], float]
    ) -> None:
        """`boost` replaces the computed delay, in seconds; `random` gives floats from 0 up to but not 1."""
        self._slots = slots
        self._speed = max(SLOWEST, min(speed, FASTEST))
        self._boost = None if boost is None else max(0.0, boost)
        self._random = random
        self._competition = Competition(random)
        self._reputation = Reputation()
        self._announcements = Remembered()
        self._waiting = Waiting(random)  # those that are READY
        self._events: list[Connect | Queued | Forget | Penalized | Recovered] = []
        self._now = self._queued_next = -inf
        self._running = self._reserved = self._connecting = self._stalled = 0
        self._load = 0.0

    # What is heard

    def consider(
        self, identity: bytes, weight: int, wanted_for: float, now: float, *, extra_delay: float = 0.0,
        targeted: bool = False,
    ) -> None:  # fmt: skip
        """Hear an announcement that this worker can serve; `targeted`: meant for this worker, so there is no race."""
        self._now = now
        expires = now + max(0.0, min(wanted_for, LONGEST_WANTED))
        connected = self._announcements.done(identity, now)
        if connected is not None:
            if connected:  # its claim was faster
                self._lost(connected, targeted, now)
            return
        extra_delay = max(0.0, min(extra_delay, LONGEST_DELAY))
        known = self._announcements.get(identity)
        if known is not None:
            known.heard_again(now, extra_delay)
            if known.told_at + QUEUED_AGAIN <= now and self.competitors <= FEW_COMPETITORS:
                known.tell_again(self._next_queued(now), QUEUED_REPEATS)
            self._announcements.renew(known, expires)
            return
        announcement = self._remember(identity, weight, now, expires, targeted)
        delay = self._delay(targeted, now) + extra_delay if self.free else 0.0
        announcement.extra_delay = extra_delay
        announcement.bid_at = now + delay
        announcement.queued_at = now + SILENT if self.free and delay < SILENT else self._next_queued(now)
        self._fire(announcement, now)

    def leased(self, identity: bytes, weight: int, now: float) -> None:
        """A connected client wants another job done: it joins the lottery under a new identity.

        To be told before its last job has `finished`, else that slot is given to another that waits.
        """
        self._now = now
        self._wait(self._remember(identity, weight, now, inf, True))

    def claimed(self, identity: bytes, connected: int, now: float) -> None:
        """Hear a genuine CLAIM, of this worker's win or another's; `connected` is the client's hint."""
        self._now = now
        announcement = self._announcements.get(identity)
        if announcement is None:
            self._announcements.claim_first(identity, max(1, connected), now)
        elif not announcement.claim_heard:
            announcement.claim_heard = True
            self._competition.race_took(now - announcement.heard_at)
            if announcement.holds_slot:  # perhaps this worker has won: not known before GO or CANCEL
                self._learn(connected, announcement.targeted, now)
            else:
                self._lost(connected, announcement.targeted, now)
                self._forget(announcement, now)

    def rival_heard(self, now: float) -> None:
        """There are other workers of this application: a HELLO, say."""
        self._competition.rival_heard(now)

    def load_sampled(self, load: Load, now: float) -> None:
        self._now = now
        self._load = load.level

    def complained(self, client: bytes, now: float, identity: bytes | None = None) -> None:
        """A client complains about this worker, perhaps about one job."""
        self._now = now
        if self._reputation.complained(client, identity, now):
            self._events.append(Penalized(self._reputation.slowness(now), self.health))

    def rival_succeeded(self, now: float) -> None:
        """Another worker's job ended well, an alert says; of interest while this one has a `penalty`."""
        self._now = now
        self._competition.rival_heard(now)
        self._reputation.rival_succeeded(now)

    # What became of a Connect

    def failed(self, identity: bytes, now: float) -> None:
        """The connection could not be made, or ended without a confirmation: tried again, ever later, then given up."""
        announcement = self._leave(identity, CONNECTING, now)
        if announcement is not None:
            self._retry(announcement, now)

    def withdrawn(self, identity: bytes, now: float) -> None:
        """This worker withdrew because no slot was left: the announcement waits again."""
        announcement = self._leave(identity, CONNECTING, now)
        if announcement is not None:
            self._wait(announcement)

    def reserved(self, identity: bytes, now: float) -> bool:
        """Take a slot before confirming; False when none is left or the announcement was forgotten (withdraw then)."""
        if not self.free:
            return False
        announcement = self._leave(identity, CONNECTING, now)
        if announcement is None:
            return False
        announcement.state = RESERVED
        self._reserved += 1
        self._reputation.pause(now)
        self._announcements.arm(announcement)  # no timer ends it from now on
        return True

    def hold(self, identity: bytes, now: float) -> None:
        """Reserves the slot of its last job for a lease that was allowed to go on while nobody else waited."""
        announcement = self._announcements.get(identity)
        if announcement is not None and announcement.state == READY and self.free:
            self._now = now
            self._waiting.discard(announcement.identity)
            announcement.state = RESERVED
            self._reserved += 1
            self._announcements.arm(announcement)

    def released(self, identity: bytes, now: float) -> None:
        """CANCEL came, or no GO in time: the reserved slot is free again."""
        announcement = self._leave(identity, RESERVED, now)
        if announcement is None:
            return
        if announcement.claim_heard:
            self._competition.rival_heard(now)
            self._reputation.rival_took_a_job(now)
            self._forget(announcement, now)
        else:
            self._retry(announcement, now)

    def started(self, identity: bytes, now: float) -> None:
        """GO came: the reserved slot is busy."""
        announcement = self._leave(identity, RESERVED, now)
        if announcement is not None:
            announcement.state = RUNNING
            self._running += 1
            self._reputation.started(identity, now)

    def finished(self, identity: bytes, outcome: Outcome, duration: float, now: float) -> None:
        """Hear that a job has ended, and how; nothing happens if it had ended already."""
        announcement = self._leave(identity, RUNNING, now)
        if announcement is None:
            return
        before = self._reputation.slowness(now)
        self._reputation.finished(identity, outcome, duration, now)
        after = self._reputation.slowness(now)
        if after > before:
            self._events.append(Penalized(after, self.health))
        elif before and not after:
            self._events.append(Recovered())
        self._announcements.finish(announcement, now)

    def forget(self, identity: bytes, now: float) -> None:
        """The client is gone, or ended its lease; not for one that holds a slot."""
        self._now = now
        announcement = self._announcements.get(identity)
        if announcement is not None and not announcement.holds_slot:
            self._forget(announcement, now)

    # What to do

    def next_event(self) -> Connect | Queued | Forget | Penalized | Recovered | None:
        if self._events:
            return self._events.pop(0)
        draw = self._next_draw()
        if draw is not None and self._now >= draw[1]:
            announcement = self._announcements.get(self._waiting.draw(targeted=draw[0]))
            assert announcement is not None  # what waits is remembered
            announcement.state = CONNECTING
            announcement.stalls_at = self._now + STALL
            self._connecting += 1
            self._announcements.arm(announcement)
            return Connect(announcement.identity)
        return None

    def next_timeout(self) -> float | None:
        """The time at which `handle_timeout` wants to be called; None: never."""
        due = self._announcements.next_timer()
        draw = self._next_draw()
        if draw is not None:
            due = min(due, max(self._now, draw[1]))
        return None if due == inf else due

    def handle_timeout(self, now: float) -> None:
        self._now = now
        while (announcement := self._announcements.due(now)) is not None:
            self._fire(announcement, now)

    # For logs and `cps`

    @property
    def free(self) -> int:
        """Slots that are neither reserved nor busy."""
        return self._slots - self._reserved - self._running

    @property
    def running(self) -> int:
        return self._running

    @property
    def reserved_count(self) -> int:
        return self._reserved

    @property
    def waiting(self) -> int:
        """Announcements that would be answered if a slot were free."""
        return len(self._waiting)

    @property
    def competitors(self) -> int:
        """About how many workers answer at a time."""
        return round(self._competition.estimate)

    def alone(self, now: float) -> bool:
        """Returns True if there has been no sign of another worker for a long time."""
        return self._competition.alone(now)

    @property
    def penalty(self) -> float:
        """Seconds that this worker bids late for its failures and for complaints."""
        return self._reputation.slowness(self._now)

    @property
    def health(self) -> str:
        return self._reputation.health(self._now)

    # Inside

    def _delay(self, targeted: bool, now: float) -> float:
        """Seconds from hearing an announcement to answering it, while a slot is free."""
        alone = self._competition.alone(now)
        slowness = self._reputation.slowness(now, alone=alone)
        if self._boost is not None:
            return self._boost + slowness
        if targeted or alone:
            return slowness
        load = max(self._load, (self._reserved + self._running) / self._slots)
        return slowness + (IDLE_DELAY + LOAD_DELAY * load) / self._speed + self._competition.spread(self._speed)

    def _may_connect(self) -> bool:
        """Attempts that do not come forward give way to others, within bounds; a slowed worker tries one at a time."""
        if self._reputation.slowness(self._now):
            return self.free > 0 and not (self._connecting or self._reserved)
        return self._connecting - self._stalled < self.free and self._connecting < self.free + STALLED_ALLOWED

    def _fire(self, announcement: RememberedAnnouncement, now: float) -> None:
        """Do what is due for one announcement, and set its next timer."""
        if announcement.state == CONNECTING:
            announcement.stalls_at = inf
            self._stalled += 1
        elif now >= announcement.expires:
            self._waiting.discard(announcement.identity)
            self._announcements.drop(announcement)
            self._events.append(Forget(announcement.identity, over=False))
            return
        else:
            if announcement.state == DELAYED and now >= announcement.bid_at:
                self._wait(announcement)
            if now >= announcement.queued_at:
                self._events.append(Queued(announcement.identity))
                announcement.told_at = now
                announcement.queued_at = now + limits.QUEUED_INTERVAL
        self._announcements.arm(announcement)

    def _remember(
        self, identity: bytes, weight: int, now: float, expires: float, targeted: bool
    ) -> RememberedAnnouncement:
        announcement = RememberedAnnouncement(identity, weight, now, expires, targeted)
        displaced = self._announcements.add(announcement)
        if displaced is not None:
            self._waiting.discard(displaced.identity)
            self._announcements.drop(displaced)
            self._events.append(Forget(displaced.identity, over=False))
        return announcement

    def _wait(self, announcement: RememberedAnnouncement) -> None:
        """Lets it take part in the lottery for free slots, because its time has come."""
        announcement.state = READY
        for_us = announcement.targeted and not announcement.leased
        self._waiting.add(announcement.identity, announcement.weight, targeted=for_us)
        self._announcements.arm(announcement)

    def _next_draw(self) -> tuple[bool, float] | None:
        """Returns if only targeted ones are drawn next, and when; a slowed worker leaves the others to rivals first."""
        if not self._waiting or not self._may_connect():
            return None
        alone = self._competition.alone(self._now)
        held_until = self._reputation.held_until(self._now, alone=alone)
        if self._now < held_until and self._waiting.any_targeted:
            return True, self._reputation.held_until(self._now, targeted=True, alone=alone)
        return False, held_until

    def _retry(self, announcement: RememberedAnnouncement, now: float) -> None:
        """Wait a while and until it is heard again, because a client that has a worker falls silent; or give up."""
        announcement.failures += 1
        if announcement.failures > RETRIES or announcement.leased:  # a lease has one connection only
            self._forget(announcement, now)
            return
        announcement.state = DELAYED
        announcement.bid_at = announcement.queued_at = inf
        announcement.retry_at = now + FIRST_RETRY * 2.0 ** (announcement.failures - 1) * (0.5 + self._random())
        self._announcements.arm(announcement)

    def _forget(self, announcement: RememberedAnnouncement, now: float) -> None:
        """Forgets it for good."""
        if announcement.state == CONNECTING:
            self._leave(announcement.identity, CONNECTING, now)
        self._waiting.discard(announcement.identity)
        self._announcements.finish(announcement, now)
        self._events.append(Forget(announcement.identity, over=True))

    def _leave(self, identity: bytes, state: int, now: float) -> RememberedAnnouncement | None:
        """Returns the announcement if it is in this state, which it leaves: it is no longer counted there."""
        self._now = now
        announcement = self._announcements.get(identity)
        if announcement is None or announcement.state != state:
            return None
        if state == RESERVED:
            self._reserved -= 1
        elif state == RUNNING:
            self._running -= 1
        elif state == CONNECTING:
            self._connecting -= 1
            self._stalled -= announcement.stalls_at == inf
        announcement.state = DELAYED  # until the caller says what it is now, so that nobody counts it off again
        return announcement

    def _lost(self, connected: int, targeted: bool, now: float) -> None:
        """Notes that another worker got the job of this announcement."""
        self._learn(connected, targeted, now)
        self._competition.rival_heard(now)
        self._reputation.rival_took_a_job(now)

    def _learn(self, connected: int, targeted: bool, now: float) -> None:
        """Takes a claim's count; not of a targeted announcement, because only few workers answer that."""
        if not targeted:
            self._competition.learn(connected)
            if connected > 1:
                self._competition.rival_heard(now)

    def _next_queued(self, now: float) -> float:
        self._queued_next = max(now, self._queued_next + QUEUED_SPACING)
        return self._queued_next
