"""The client's side of a race: when to announce, whom it knows, who has won, and when to give up.

Contract: a pure machine.  Told of answers and connections, it says what to do with `next_event`: TRANSMIT (send the
announcement again), RENEW (make a new one first, because no worker is known to have this one, and a worker answers an
announcement once until its client has proved itself), SILENT (nobody has answered for a while: tell the person),
GAVE_UP.  The accept timeout counts
only while no worker is known to have the job in its queue; 0 waits for ever.  Time in which this process was stopped
does not count: nobody was asked in it.  docs/protocol.md sections 2.2, 2.4, 3.3.
"""

from __future__ import annotations

from cexec.protocol.base.limits import (
    ANNOUNCE_FIRST_INTERVAL,
    ANNOUNCE_GROWTH,
    ANNOUNCE_STEADY_INTERVAL,
    QUEUED_LIFETIME,
)
from cexec.protocol.datagrams import hello

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cexec.protocol.datagrams.hello import Hello

TRANSMIT, RENEW, SILENT, GAVE_UP = "transmit", "renew", "silent", "gave up"
SILENCE = 3.0  # seconds (ours) without a connection after which a person wants to know
SECOND_SILENCE = 7.0  # seconds (ours) from that word to the next one, which a log gets, too
REPEATED_SILENCE = 30.0  # seconds (ours) between further words
RENEW_AFTER = 4.0  # seconds (ours) without a worker's word after which the announcement is made anew, then ever later
LONGEST_RENEWAL = 60.0  # seconds (ours) between two that are made anew
STOPPED = 1.0  # seconds (ours): a timeout that is handled so much too late shows that this process was stopped

MAXIMUM_KNOWN = 10_000  # workers, and answers that were opened (ours)
ENOUGH = 64  # answers (ours) that are opened at once: each costs the client as much as a connection
OPENING_INTERVAL = 0.05  # seconds (ours) between two answers that are opened after those
NEVER = float("inf")


class Race:
    """One attempt's race."""

    def __init__(self, *, accept_timeout: float, now: float, renews: bool = True) -> None:
        """`renews`: False if a worker that has had the announcement must not hear another one."""
        self.started = now
        self._renew_at = now + RENEW_AFTER if renews else NEVER
        self._renewal = RENEW_AFTER  # the time until the next one
        self.transmissions = 0
        self.answers: dict[bytes, Hello] = {}  # the last word of each worker instance that answered by datagram
        self._offering: set[bytes] = set()
        self._heard: dict[bytes, None] = {}  # mac1 of the answers, oldest first
        self._opened = 0  # so many of the first answers
        self._next_opening = now
        self.accept_timeout = accept_timeout
        self._queued_until: dict[bytes, float] = {}  # by instance: how long what it has said keeps the client waiting
        self._waits_since = now  # from then on the accept timeout counts
        self._cannot: set[bytes] = set()  # instances that have said that they cannot or will not have the job
        self._interval = ANNOUNCE_FIRST_INTERVAL
        self._next_transmission = now
        self._next_silence = now + SILENCE
        self._silence = SECOND_SILENCE  # the time until the word after that
        self._due = now  # when `handle_timeout` is to be called
        self._events: list[str] = []

    def next_event(self) -> str | None:
        return self._events.pop(0) if self._events else None

    def next_timeout(self) -> float:
        times = [self._next_transmission, self._next_silence]
        if self.accept_timeout:
            times.append(self._deadline)
        return min(times)

    def handle_timeout(self, now: float) -> None:
        if now - self._due > STOPPED:
            self.was_stopped(now - self._due)
        if now >= self._next_transmission:
            self.transmissions += 1
            self._next_transmission = now + self._interval
            self._interval = min(self._interval * ANNOUNCE_GROWTH, ANNOUNCE_STEADY_INTERVAL)
            if now >= self._renew_at:
                self._renewal = min(2.0 * self._renewal, LONGEST_RENEWAL)
                self._renew_at = now + self._renewal
                self._events.append(RENEW)
            self._events.append(TRANSMIT)
        if self.accept_timeout and now >= self._deadline:
            self._events.append(GAVE_UP)
        elif now >= self._next_silence:
            self._next_silence = now + self._silence
            self._silence = REPEATED_SILENCE
            self._events.append(SILENT)
        self._due = self.next_timeout()

    def wait_on(self, now: float) -> None:
        """The accept timeout counts from now on: there is a worker, although it has not answered."""
        self._waits_since = now

    def was_stopped(self, seconds: float) -> None:
        """Waits so much longer for everything that it waits for."""
        self.started += seconds
        self._waits_since += seconds
        for instance in self._queued_until:
            self._queued_until[instance] += seconds

    def answered(self, answer: Hello, now: float) -> None:
        """A worker said by datagram that it is queued, cannot connect, or refuses, or that it asks for a proof."""
        instance = answer.instance
        known = self.answers.get(instance)
        if known is None and len(self.answers) >= MAXIMUM_KNOWN:
            return
        if known is not None and answer.uptime < known.uptime:
            return  # a replay of one that is remembered no more
        if answer.purpose == hello.PROVE:  # it promises nothing
            self._word_heard(now + RENEW_AFTER)
            self.answers.setdefault(instance, answer)
            return
        self._word_heard(now + QUEUED_LIFETIME)
        if answer.purpose == hello.QUEUED:
            if instance in self._cannot:
                return  # that word stands until it does connect
            self._queued_until[instance] = now + QUEUED_LIFETIME
        else:
            self._cannot.add(instance)
            if instance in self._queued_until:
                self._queued_until[instance] = min(self._queued_until[instance], now)
        self.answers[instance] = answer

    def _word_heard(self, until: float) -> None:
        """A worker has this announcement, so that until then no new one is needed."""
        if self._renew_at != NEVER:
            self._renew_at = max(self._renew_at, until)

    def offered(self, offer: Hello) -> None:
        """A worker has connected.  Its hello may be a replay until it has confirmed, so this counts and no more."""
        self._offering.add(offer.instance)
        self._cannot.discard(offer.instance)

    def heard_before(self, mac1: bytes) -> bool:
        """Returns True if this answer was heard before, because a replay must not keep the client waiting."""
        if mac1 in self._heard:
            return True
        if len(self._heard) >= MAXIMUM_KNOWN:
            del self._heard[next(iter(self._heard))]
        self._heard[mac1] = None
        return False

    def listens(self, now: float) -> bool:
        """Returns True if one more answer is to be opened: a thousand busy workers must not take the client's time."""
        if self._opened < ENOUGH:
            self._opened += 1
        elif now >= self._next_opening:
            self._next_opening = now + OPENING_INTERVAL
        else:
            return False
        return True

    @property
    def connected(self) -> int:
        """The number of workers that have connected, for the claim."""
        return len(self._offering)

    def seconds_left(self, now: float) -> float | None:
        """Until giving up; None: never."""
        return max(0.0, self._deadline - now) if self.accept_timeout else None

    def queued(self) -> list[Hello]:
        """The workers whose slots are all busy."""
        return [answer for answer in self.answers.values() if answer.purpose == hello.QUEUED]

    def complaints(self) -> list[Hello]:
        """Returns the workers that cannot connect or refuse."""
        return [
            answer
            for answer in self.answers.values()
            if answer.purpose == hello.REFUSED
            or (answer.purpose == hello.UNREACHABLE and answer.instance not in self._offering)
        ]

    @property
    def _deadline(self) -> float:
        """The accept timeout after the start, or after the last moment when a worker was known to be there."""
        return max([self.started, self._waits_since, *self._queued_until.values()]) + self.accept_timeout
