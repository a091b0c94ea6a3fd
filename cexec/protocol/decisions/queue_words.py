"""What a waiting client is told by datagram, and when.

Contract: `tell` returns the event for an announcement whose word is due, or None, and sets when the next one is due.  A
client that has proved itself is told every QUEUED_INTERVAL that it waits.  Another one is told once, or asked for a
proof, and again only out of the quota of clients of 0.1.0.  `next_queued` spaces the words to many that are proved,
`first` those to others: if there are so many of them that one would have to wait, it is told when it is heard again.
Pure.  docs/protocol.md sections 2.4 and 2.8.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from cexec.protocol.base.limits import QUEUED_INTERVAL
from cexec.protocol.decisions.bid_events import Prove, Queued
from cexec.protocol.decisions.standing import Standing

if TYPE_CHECKING:
    from cexec.protocol.decisions.remembered import RememberedAnnouncement
    from cexec.protocol.decisions.slots import Slots
    from cexec.protocol.decisions.unproved import Unproved

LONGEST_BEHIND = 0.5  # seconds (ours) that a client which is not proved waits for its turn to be told
QUEUED_SPACING = 0.002  # seconds (ours) between two QUEUED, so that many waiting clients take no CPU from the jobs


class QueueWords:
    """The words of one worker to all clients that wait."""

    __slots__ = ("_next", "_next_first", "_slots", "_unproved")

    def __init__(self, slots: Slots, unproved: Unproved) -> None:
        self._slots = slots
        self._unproved = unproved
        self._next = -inf
        self._next_first = -inf  # likewise for those that are not proved

    def next_queued(self, now: float) -> float:
        """Returns when the next client may be told that it waits."""
        self._next = max(now, self._next + QUEUED_SPACING)
        return self._next

    def first(self, announcement: RememberedAnnouncement, when: float, *, again: bool = False) -> float:
        """Returns when a new client may be told that it waits; inf: not before it is heard again.

        Those that ask `again` come before those that are heard for the first time: a flood asks once.
        """
        if announcement.standing == Standing.PROVED:
            return self.next_queued(when)
        following = max(when, self._next_first + QUEUED_SPACING)
        if following > when + (LONGEST_BEHIND if again else LONGEST_BEHIND / 2.0):
            return inf
        self._next_first = following
        return following

    def ask(self, announcement: RememberedAnnouncement, now: float) -> None:
        """Lets it wait for a proof, because it has found no place."""
        told = announcement.telling.due
        when = now if self._slots.free else self.first(announcement, now) if told == inf else told
        announcement.ask(when)

    def ask_again(self, announcement: RememberedAnnouncement, now: float) -> None:
        """A copy has come: a word is due that has had to wait for it, or the next one to a client of 0.1.0."""
        telling = announcement.telling
        if announcement.standing == Standing.PROVED or telling.due != inf:
            return
        if telling.last == inf:
            telling.due = self.first(announcement, now, again=True)
        elif not announcement.proves:
            telling.due = max(now, telling.last + QUEUED_INTERVAL)

    def tell(self, announcement: RememberedAnnouncement, now: float) -> Queued | Prove | None:
        """Returns the word that is due."""
        identity, telling = announcement.identity, announcement.telling
        if announcement.standing == Standing.PROVED:
            telling.told(now, QUEUED_INTERVAL)
            return Queued(identity)
        if not self._unproved.may_tell(announcement, now):
            telling.due = inf
            return None
        self._unproved.told(announcement, now)
        telling.told(now, inf)
        asked = announcement.proves and (self._slots.free or announcement.standing == Standing.DOUBTED)
        return Prove(identity) if asked else Queued(identity)
