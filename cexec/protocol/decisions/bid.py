"""The decision of a worker when to answer an announcement: docs/placement.md and docs/protocol.md section 3.

Contract: `Bidder` takes announcements, claims, load samples and the ends of connections and jobs.  Its answers are the
events of `next_event`, to be emptied after every call, and the timer (`next_timeout`, `handle_timeout`).  An identity
is the 16 bytes of mac1, times are seconds of a monotonic clock.  It knows of no socket and no key, and raises nothing:
figures of peers are clamped and memory is bounded.
"""

from __future__ import annotations

from math import inf

from cexec.protocol.base.host_load import Load
from cexec.protocol.decisions.bid_delay import BidDelay
from cexec.protocol.decisions.bid_events import (
    Connect,
    Forget,
    Outcome,
    Penalized,
    Prove,
    Queued,
    Recovered,
    Wanted,
    Withdraw,
)
from cexec.protocol.decisions.clients import ClientAccounts, ClientLimits
from cexec.protocol.decisions.competition import Competition
from cexec.protocol.decisions.places import Places
from cexec.protocol.decisions.queue_words import QueueWords
from cexec.protocol.decisions.remembered import (
    CONNECTING,
    DELAYED,
    NOBODY,
    READY,
    RESERVED,
    RUNNING,
    SILENT,
    TRYING,
    Origin,
    Remembered,
    RememberedAnnouncement,
)
from cexec.protocol.decisions.reputation import LONGEST_DELAY, Reputation
from cexec.protocol.decisions.reservations import Reservations, patience
from cexec.protocol.decisions.slots import Slots
from cexec.protocol.decisions.standing import Standing
from cexec.protocol.decisions.wanted_slots import WantedSlots

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "Bidder", "Connect", "Forget", "Load", "Outcome", "Penalized", "Prove", "Queued", "Recovered", "Wanted", "Withdraw",
]  # fmt: skip

# All of these are (ours); docs/placement.md derives them and benchmarks/simulate_*.py measure them.
STALL = 0.1  # seconds after which a connection attempt no longer keeps its slot from another
LONGEST_WANTED = 3600.0  # seconds


class Bidder:
    """Decides which announcements a worker answers, and when.

    consider -> DELAYED -> READY -> Connect -> CONNECTING -> reserved -> RESERVED -> started -> RUNNING -> finished

    `failed` and `released` lead back to DELAYED, `withdrawn` to READY.  A lease begins at READY, or at RESERVED with
    `hold`.  READY leads back to DELAYED if this worker rests from the jobs of the client.  An announcement whose source
    is not proved is TRYING instead of CONNECTING; if it finds no place it stays DELAYED and leads to Prove, until it is
    `proved`.  What is claimed or expires leaves with Forget, but never while a slot is held for it.

    `competition` is told of other workers, `slots` has the counts, `accounts` has what each client has of them, and
    `unproved` the allowances.
    """

    __slots__ = (
        "_delay", "_events", "_now", "_places", "_random", "_reputation", "_reservations", "_wanted", "accounts",
        "announcements", "competition", "slots", "unproved", "words",
    )  # fmt: skip

    def __init__(
        self, *, slots: int, speed: float = 1.0, boost: float | None = None, random: Callable[[], float],
        limits: ClientLimits | None = None,
    ) -> None:  # fmt: skip
        """`boost` replaces the computed delay, in seconds; `random` gives floats from 0 up to but not 1."""
        self.slots = Slots(slots)
        self.accounts = ClientAccounts(limits or ClientLimits.of_slots(slots))
        self.competition = Competition(random)
        self._random = random
        self._delay = BidDelay(speed=speed, boost=boost)
        self._reputation = Reputation(self.competition)
        self.announcements = Remembered(random)
        self._places = Places(random, self.announcements, self._reputation, self.slots, self.accounts)
        self.unproved = self._places.unproved
        self._reservations = Reservations()
        self._wanted = WantedSlots(self.accounts)
        self._events: list[Connect | Withdraw | Wanted | Queued | Prove | Forget | Penalized | Recovered] = []
        self.words = QueueWords(self.slots, self.unproved)
        self._now = -inf

    # What is heard

    def consider(
        self, identity: bytes, weight: int, wanted_for: float, now: float, *, extra_delay: float = 0.0,
        targeted: bool = False, origin: Origin = NOBODY, new_way: bool = False, standing: Standing = Standing.PROVED,
        source: str = "", proves: bool = True, clock: int = 0, boot: int = 0, came: float | None = None,
    ) -> None:  # fmt: skip
        """Hear an announcement that this worker can serve.

        `targeted`: it is meant for this worker, so there is no race.  `new_way`: there is a way to its client by which
        no connection has failed.  `standing`: that of the best way to its client, and `source` its host.  `proves`:
        the client is one that can prove itself, it is not of version 0.1.0.  `clock`: when the client made it, by its
        own clock, and `boot` when its machine was started, by the same clock.  `came`: when it came, if that was not
        now: the latest are put to us first.
        """
        self._now = now
        expires = now + max(0.0, min(wanted_for, LONGEST_WANTED))
        connected = self.announcements.done(identity, now)
        if connected is not None:
            if connected:  # its claim was faster
                self.competition.claim_heard(connected, now, targeted=targeted)
                self.competition.rival_won(origin.job, now)
            return
        extra_delay = max(0.0, min(extra_delay, LONGEST_DELAY))
        self.unproved.heard(identity)
        known = self.announcements.get(identity)
        if known is not None:
            self._stand(known, standing, source, now)
            known.heard_again(now, extra_delay, new_way=new_way)
            if known.telling.lost(now) and not self.competition.many:
                known.telling.repeat(self.words.next_queued(now))
            self.words.ask_again(known, now)
            self.announcements.renew(known, expires)
            return
        if standing != Standing.PROVED and proves and self.unproved.nothing_left(identity):
            self._events.append(Forget(identity, over=True))
            return
        announcement = RememberedAnnouncement(
            identity, weight, now if came is None else came, expires, targeted=targeted, origin=origin,
            standing=standing, source=source, proves=proves, clock=clock, boot=boot,
        )  # fmt: skip
        if not self._remember(announcement):
            return
        delay = self._bid_delay(targeted, now) + extra_delay if self.slots.free else 0.0
        announcement.extra_delay = extra_delay
        announcement.timers.bid_at = now + delay
        if self.slots.free and delay < SILENT:
            announcement.telling.due = now + SILENT
        else:
            announcement.telling.due = self.words.first(announcement, now, self._hesitation(targeted))
        self._fire(announcement, now)

    def proved(self, identity: bytes, now: float) -> None:
        """Hear that the client has proved itself: it receives where one of the ways to it leads."""
        self._now = now
        announcement = self.announcements.get(identity)
        if announcement is None or announcement.standing == Standing.PROVED:
            return
        self.words.leave(announcement)
        self._places.proved(announcement, now)
        if announcement.state in (DELAYED, READY):
            self._fire(announcement, now)

    def may_answer(self, identity: bytes, now: float) -> bool:
        """Returns True if the client may be sent one more datagram, which is counted."""
        announcement = self.announcements.get(identity)
        if announcement is None or announcement.standing == Standing.PROVED:
            return announcement is not None
        allowed = self.unproved.may_tell(announcement, now)
        if allowed:
            self.unproved.told(announcement)
        return allowed

    def leased(self, identity: bytes, weight: int, now: float, client: bytes = b"", family: bytes = b"") -> None:
        """A connected client wants another job done: it joins the lottery under a new identity.

        To be told before its last job has `finished`, else that slot is given to another that waits.
        """
        self._places.add(self._lease(identity, weight, now, Origin(client, family=family)))

    def hold(
        self, identity: bytes, weight: int, now: float, client: bytes = b"", family: bytes = b"", *, latency: float
    ) -> None:
        """Hear the same of a lease that was allowed to go on while nobody else waited.

        To be told after its last job has `finished`: it has that slot already, and takes part in no draw.
        """
        announcement = self._lease(identity, weight, now, Origin(client, family=family))
        if self.slots.free:
            self._reserve(announcement, now, latency)
        else:
            self._places.add(announcement)

    def claimed(self, identity: bytes, connected: int, now: float) -> None:
        """Hear a genuine CLAIM, of this worker's win or another's; `connected` is the client's hint."""
        self._now = now
        announcement = self.announcements.get(identity)
        if announcement is None:
            self.announcements.claim_first(identity, max(1, connected), now)
        elif not announcement.claim_heard:
            announcement.claim_heard = True
            self.competition.race_took(now - announcement.heard_at)
            self.competition.claim_heard(connected, now, targeted=announcement.targeted)
            if not announcement.holds_slot:  # else perhaps this worker has won: not known before GO or CANCEL
                self.competition.rival_won(announcement.origin.job, now)
                self._forget(announcement, now)

    def load_sampled(self, load: Load, now: float) -> None:
        self._now = now
        self._delay.load_sampled(load)

    def complained(self, identity: bytes, now: float) -> None:
        """Hear a client's complaint about a job that it gave to this worker."""
        self._now = now
        if self._reputation.complained(identity, now):
            self._events.append(Penalized(self._reputation.slowness(now), self.health))

    # What became of a Connect

    def failed(self, identity: bytes, now: float) -> None:
        """The connection could not be made, or ended without a confirmation: tried again, ever later."""
        announcement = self._leave(identity, (CONNECTING, TRYING), now)
        if announcement is not None:
            self._lose_turn(announcement, now)
            self._retry(announcement, now)

    def withdrawn(self, identity: bytes, now: float) -> None:
        """This worker withdrew because no slot was left: the announcement waits again, of a client that is proved."""
        announcement = self._leave(identity, (CONNECTING, TRYING), now)
        if announcement is not None:
            announcement.began = -1.0
            self._places.connected(announcement)
            self._places.add(announcement)

    def reserved(self, identity: bytes, now: float, *, latency: float = 0.0) -> bool:
        """Take a slot before confirming; False when none is left or the announcement was forgotten (withdraw then).

        `latency`: seconds that the client took for its answer to the first flight.
        """
        if not self.slots.free:
            return False
        announcement = self._leave(identity, (CONNECTING, TRYING), now)
        if announcement is None:
            return False
        self._places.connected(announcement)
        self._reserve(announcement, now, latency)
        self._reputation.reserved(now)
        return True

    def released(self, identity: bytes, now: float) -> None:
        """CANCEL came, or no GO in time: the reserved slot is free again."""
        announcement = self._leave(identity, (RESERVED,), now)
        if announcement is None:
            return
        self._lose_turn(announcement, now)
        if announcement.claim_heard:
            self.competition.rival_won(announcement.origin.job, now)
            self._forget(announcement, now)
        else:
            self._retry(announcement, now)

    def started(self, identity: bytes, now: float, *, hears: bool = False) -> None:
        """GO came: the reserved slot is busy.  `hears`: its client wants to hear when another one waits for it."""
        announcement = self._leave(identity, (RESERVED,), now)
        if announcement is not None:
            announcement.began = -1.0
            self._enter(announcement, RUNNING)
            self._wanted.began(announcement, hears=hears)
            self._reputation.started(identity, announcement.origin.client, now)

    def finished(self, identity: bytes, outcome: Outcome, duration: float, now: float) -> None:
        """Hear that a job has ended, and how; nothing happens if it had ended already."""
        announcement = self._leave(identity, (RUNNING,), now)
        if announcement is None:
            return
        if outcome is Outcome.BROKEN:
            self.accounts.broke(announcement.origin.client, now)
        before = self._reputation.slowness(now)
        self._reputation.finished(identity, outcome, duration, now)
        self._tell_slowness(before, now)
        self.announcements.finish(announcement, now)

    def acknowledged(self, identity: bytes, now: float) -> None:
        """Hear that the client has the result of a job that has `finished`."""
        self._now = now
        before = self._reputation.slowness(now)
        self._reputation.acknowledged(identity, now)
        self._tell_slowness(before, now)

    def forget(self, identity: bytes, now: float) -> None:
        """The client is gone, or ended its lease; not for one that holds a slot."""
        self._now = now
        announcement = self.announcements.get(identity)
        if announcement is not None and not announcement.holds_slot:
            self._forget(announcement, now)

    # What to do

    def next_event(self) -> Connect | Withdraw | Wanted | Queued | Prove | Forget | Penalized | Recovered | None:
        if self._events:
            return self._events.pop(0)
        drawn = self._places.take(self._now)
        if drawn is None:
            return self._withdraw()
        announcement, state = drawn
        announcement.timers.stalls_at = self._now + STALL
        announcement.began = self._now if state == CONNECTING else -1.0
        self._enter(announcement, state)
        return Connect(announcement.identity)

    def next_timeout(self) -> float | None:
        """The time at which `handle_timeout` wants to be called; None: never."""
        turn = max(self._now, self._places.due(self._now))
        due = min(self.announcements.next_timer(), turn, max(self._now, self._next_look()))
        return None if due == inf else due

    def handle_timeout(self, now: float) -> None:
        self._now = now
        while (announcement := self.announcements.due(now)) is not None:
            self._fire(announcement, now)
        if now >= self._next_look():
            self._look(now)

    # For logs and `cps`

    @property
    def waiting(self) -> int:
        """Announcements that would be answered if a slot were free."""
        return len(self._places)

    @property
    def waiting_clients(self) -> int:
        return self._places.clients

    @property
    def penalty(self) -> float:
        """Seconds of slowness for this worker's failures and for complaints."""
        return self._reputation.slowness(self._now)

    @property
    def health(self) -> str:
        return self._reputation.health(self._now)

    # Inside

    def _bid_delay(self, targeted: bool, now: float) -> float:
        """Seconds from hearing an announcement to answering it, while a slot is free."""
        return self._delay.seconds(
            now, targeted=targeted, competition=self.competition, reputation=self._reputation, slots=self.slots
        )

    def _hesitation(self, targeted: bool) -> float:
        """Seconds before a waiting client is told: of many workers, one mostly takes the job before that."""
        if targeted or not self.competition.many:
            return 0.0
        return SILENT * (0.5 + self._random())

    def _fire(self, announcement: RememberedAnnouncement, now: float) -> None:
        """Do what is due for one announcement, and set its next timer."""
        if announcement.state == RESERVED:
            announcement.timers.stalls_at = inf
            self._reservations.late(announcement)
        elif announcement.state in (CONNECTING, TRYING):
            if now >= announcement.timers.stalls_at:
                announcement.timers.stalls_at = inf
                self.slots.stall(announcement.state)
                if announcement.state == CONNECTING:
                    self.accounts.stall(announcement.origin.client)
        elif now >= announcement.timers.expires:
            self._drop(announcement)
            return
        else:
            due = announcement.state == DELAYED and now >= announcement.timers.bid_at
            if due and not self._places.bid(announcement, now):
                self.words.ask(announcement, now)
            if now >= announcement.telling.due:
                word = self.words.tell(announcement, now)
                self._events += [] if word is None else [word]
        self.announcements.arm(announcement)

    def _stand(self, announcement: RememberedAnnouncement, standing: Standing, source: str, now: float) -> None:
        """Follows the standing of its best way."""
        if announcement.telling.waits and source != announcement.source:
            self.words.leave(announcement)
            announcement.telling.due = now  # the other source may have a word for it
        announcement.source = source
        if announcement.leased or announcement.holds_slot or standing == announcement.standing:
            return
        if standing == Standing.PROVED:
            self.words.leave(announcement)
            self._places.proved(announcement, now)
        else:
            self._places.doubted(announcement, standing, now)

    def _lease(self, identity: bytes, weight: int, now: float, origin: Origin) -> RememberedAnnouncement:
        """Remembers the next job of a lease, which is wanted as long as its connection lasts."""
        self._now = now
        announcement = RememberedAnnouncement(identity, weight, now, inf, targeted=True, origin=origin)
        self._remember(announcement)
        return announcement

    def _remember(self, announcement: RememberedAnnouncement) -> bool:
        """Returns False if there is no room for it."""
        displaced = self.announcements.add(announcement)
        if displaced is not None:
            self._drop(displaced)
        return displaced is not announcement

    def _drop(self, announcement: RememberedAnnouncement) -> None:
        """Drops one that has no slot: a copy that comes later is as good as new."""
        self.words.leave(announcement)
        self._places.discard(announcement)
        self.announcements.drop(announcement)
        self._events.append(Forget(announcement.identity, over=False))

    def _enter(self, announcement: RememberedAnnouncement, state: int) -> None:
        """Counts it in a state that has to do with slots."""
        self.words.leave(announcement)
        announcement.state = state
        self.slots.enter(state)
        self.accounts.enter(announcement.origin.client, announcement.identity, state, self._now)
        self._places.reconsider(announcement.origin.client)
        self.announcements.arm(announcement)

    def _reserve(self, announcement: RememberedAnnouncement, now: float, latency: float) -> None:
        """Takes a slot for it.  Its timer says when another client may have the slot instead."""
        wasted = self.accounts.wasted(announcement.origin.client, now)
        announcement.timers.stalls_at = now + patience(latency, leased=announcement.leased, wasted=wasted)
        announcement.began = now if announcement.began < 0.0 else announcement.began
        self._enter(announcement, RESERVED)

    def _withdraw(self) -> Withdraw | None:
        """Takes back a slot that is reserved in vain, if another client waits."""
        if self.slots.free:
            return None
        places = self._places
        late = self._reservations.surplus(places.clients, self.accounts.rank, places.wanted_by_others)
        return None if late is None else Withdraw(late.identity)

    def _next_look(self) -> float:
        """Returns when to look if jobs are to hear that their slot is wanted: only while clients wait in vain."""
        return self._wanted.next_look() if not self.slots.free and self._places.clients else inf

    def _look(self, now: float) -> None:
        """Tells jobs that their slot is wanted."""
        self._events += map(Wanted, self._wanted.choose(self._places.proved_waiting, now))

    def _lose_turn(self, announcement: RememberedAnnouncement, now: float) -> None:
        """Its client had a turn and gave no job; one that has not proved itself has no turn."""
        if announcement.began >= 0.0:
            self.accounts.turn_lost(announcement.origin.client, now - announcement.began, now)
            self._places.reconsider(announcement.origin.client)
        announcement.began = -1.0

    def _tell_slowness(self, before: float, now: float) -> None:
        """Tells of a change that a job has brought about."""
        after = self._reputation.slowness(now)
        if after > before:
            self._events.append(Penalized(after, self.health))
        elif before and not after:
            self._events.append(Recovered())
            self._places.recovered()

    def _retry(self, announcement: RememberedAnnouncement, now: float) -> None:
        if announcement.leased:  # it has one connection only
            self._forget(announcement, now)
        else:
            announcement.try_again(now, self._random())
            self.announcements.arm(announcement)

    def _forget(self, announcement: RememberedAnnouncement, now: float) -> None:
        """Forgets it for good."""
        if self._leave(announcement.identity, (CONNECTING, TRYING), now) is not None:
            self._lose_turn(announcement, now)
        self.words.leave(announcement)
        self._places.discard(announcement)
        self.announcements.finish(announcement, now)
        self._events.append(Forget(announcement.identity, over=True))

    def _leave(self, identity: bytes, states: tuple[int, ...], now: float) -> RememberedAnnouncement | None:
        """Returns the announcement if it is in one of these states, which it leaves: it is no longer counted there."""
        self._now = now
        announcement = self.announcements.get(identity)
        if announcement is None or announcement.state not in states:
            return None
        state = announcement.state
        stalled = state in (CONNECTING, TRYING) and announcement.timers.stalls_at == inf
        withdrawn = state == RESERVED and self._reservations.left(identity)
        if state == RUNNING:
            self._wanted.ended(identity)
        self.slots.leave(state, stalled=stalled)
        self.accounts.leave(announcement.origin.client, identity, state, now, stalled=stalled, withdrawn=withdrawn)
        self._places.reconsider(announcement.origin.client)
        announcement.state = DELAYED  # until the caller says what it is now, so that nobody counts it off again
        return announcement
