"""What a worker still does for announcements while nothing proves where they come from.

Contract: mac1 does not cover a datagram's source, so a recorded announcement can be aimed at anybody.  Until its client
has proved that it receives at that source, an announcement has an allowance: one connection and one datagram, whatever
sources its copies claim and however often they come.  `forgive` gives it another one, because its client has proved
itself.  Clients of cexec 0.1.0 cannot prove anything: beyond their allowance they share a small quota.  One source gets
a bounded number of connections and datagrams a second; a connection that its client has `answered` does not count.
Allowances are remembered for the MAXIMUM_SPENT announcements that were heard last.  Pure.  docs/protocol.md section
2.8.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from cexec.protocol.base.token_bucket import TokenBucket
from cexec.protocol.decisions.standing import Standing

if TYPE_CHECKING:
    from cexec.protocol.decisions.remembered import RememberedAnnouncement

MAXIMUM_SPENT = 32_768  # announcements (ours): about 4 MB, and an hour's worth of ten jobs a second
MAXIMUM_SOURCES = 1024  # (ours) whose rates are told apart; the one that was asked for longest ago is forgotten
TRIES_RATE, TRIES_BURST = 2.0, 8.0  # connections a second to one unproved source (ours), and at once
WORDS_RATE, WORDS_BURST = 50.0, 100.0  # datagrams a second to one unproved source (ours), and at once
ANSWERS_RATE, ANSWERS_BURST = 25.0, 50.0  # REFUSED and answers to censuses (ours): recordings of them delay no job
SPARE_TRIES_RATE, SPARE_TRIES_BURST = 0.5, 4.0  # a second (ours), for all clients and relays of 0.1.0 together
SPARE_WORDS_RATE, SPARE_WORDS_BURST = 10.0, 20.0  # likewise

_TRIED, _TOLD = 1, 2


class Sources:
    """A rate for each source."""

    __slots__ = ("_burst", "_known", "_rate")

    def __init__(self, rate: float, burst: float) -> None:
        self._rate, self._burst = rate, burst
        self._known: dict[str, TokenBucket] = {}  # asked for longest ago first

    def left(self, source: str, now: float) -> bool:
        bucket = self._known.pop(source, None) or TokenBucket(self._rate, self._burst, now)
        if len(self._known) >= MAXIMUM_SOURCES:
            del self._known[next(iter(self._known))]
        self._known[source] = bucket
        return bucket.left(now)

    def spend(self, source: str) -> None:
        """Counts one; `left` was called for this source."""
        self._known[source].spend(1.0)

    def give_back(self, source: str) -> None:
        """Takes the count of one back, unless the source has been forgotten."""
        if source in self._known:
            self._known[source].give_back(1.0)

    def due(self, source: str, now: float) -> float:
        """Returns when this source may have one again; `left` was called for it."""
        return self._known[source].due(now)


class Unproved:
    """The allowances of all announcements that one worker has heard."""

    __slots__ = ("_answers", "_spare_tries", "_spare_words", "_spent", "_tries", "_words")

    def __init__(self) -> None:
        self._spent: dict[bytes, int] = {}  # heard longest ago first
        self._tries = Sources(TRIES_RATE, TRIES_BURST)
        self._words = Sources(WORDS_RATE, WORDS_BURST)
        self._answers = Sources(ANSWERS_RATE, ANSWERS_BURST)
        self._spare_tries = TokenBucket(SPARE_TRIES_RATE, SPARE_TRIES_BURST, 0.0)
        self._spare_words = TokenBucket(SPARE_WORDS_RATE, SPARE_WORDS_BURST, 0.0)

    def heard(self, identity: bytes) -> None:
        """Notes that this announcement has come again, so that its allowance stays remembered."""
        spent = self._spent.pop(identity, 0)
        if spent:
            self._spent[identity] = spent

    def nothing_left(self, identity: bytes) -> bool:
        """Returns True if an announcement has had its connection and its datagram."""
        return self._spent.get(identity, 0) == _TRIED | _TOLD

    def tried_once(self, identity: bytes) -> bool:
        """Returns True if an announcement has had its connection."""
        return bool(self._spent.get(identity, 0) & _TRIED)

    def may_try(self, announcement: RememberedAnnouncement, now: float) -> bool:
        """Returns True if there may be a connection to the client."""
        if announcement.standing != Standing.UNPROVED or not self._tries.left(announcement.source, now):
            return False
        return not self.tried_once(announcement.identity) or (not announcement.proves and self._spare_tries.left(now))

    def tried(self, announcement: RememberedAnnouncement, now: float) -> None:
        """Counts a connection."""
        if self.tried_once(announcement.identity):
            self._spare_tries.spend(1.0)
        announcement.tried_at = ""  # an earlier one has failed, and counts for good
        if self._tries.left(announcement.source, now):
            self._tries.spend(announcement.source)
            announcement.tried_at = announcement.source
        self._note(announcement.identity, _TRIED)

    def answered(self, announcement: RememberedAnnouncement) -> None:
        """Its client has answered the connection, which has therefore done no harm to the source that it counts for.

        Else a client of many short jobs would have to prove itself for each of them, which takes a tenth of the job.
        """
        self._tries.give_back(announcement.tried_at)
        announcement.tried_at = ""
        self.forgive(announcement.identity)

    def may_tell(self, announcement: RememberedAnnouncement, now: float) -> bool:
        """Returns True if there may be a datagram to the client."""
        if not self._words.left(announcement.source, now):
            return False
        return not self.told_once(announcement.identity) or (not announcement.proves and self._spare_words.left(now))

    def next_word(self, announcement: RememberedAnnouncement, now: float) -> float:
        """Returns when an announcement may have its datagram that `may_tell` denies it; inf if it has had it."""
        return inf if self.told_once(announcement.identity) else self._words.due(announcement.source, now)

    def told(self, announcement: RememberedAnnouncement) -> None:
        """Counts a datagram that `may_tell` has just allowed."""
        if self.told_once(announcement.identity):
            self._spare_words.spend(1.0)
        self._words.spend(announcement.source)
        self.note_told(announcement.identity)

    def take_answer(self, source: str, now: float) -> bool:
        """Counts an answer to a source that nothing proves, if there may be one more."""
        if not self._answers.left(source, now):
            return False
        self._answers.spend(source)
        return True

    def next_answer(self, source: str, now: float) -> float:
        """Returns when there may be an answer that `take_answer` denies."""
        return self._answers.due(source, now)

    def told_once(self, identity: bytes) -> bool:
        """Returns True if an announcement has had its datagram."""
        return bool(self._spent.get(identity, 0) & _TOLD)

    def note_told(self, identity: bytes) -> None:
        """Notes that an announcement has had its datagram."""
        self._note(identity, _TOLD)

    def spare_try(self, now: float) -> bool:
        """Returns True if a client of 0.1.0 may be tried although those that have proved themselves take all places."""
        return self._spare_tries.left(now)

    def spend_spare_try(self) -> None:
        self._spare_tries.spend(1.0)

    def forgive(self, identity: bytes) -> None:
        """Gives an announcement a new allowance."""
        self._spent.pop(identity, None)

    def _note(self, identity: bytes, what: int) -> None:
        self._spent[identity] = self._spent.pop(identity, 0) | what
        if len(self._spent) > MAXIMUM_SPENT:
            del self._spent[next(iter(self._spent))]
