"""What a waiting client is told by datagram, and when.

Contract: `tell` returns the event for an announcement whose word is due, or None, and sets when the next one is due.  A
client that has proved itself is told every QUEUED_INTERVAL that it waits.  Another one is told once, or asked for a
proof, and again only out of the quota of clients of 0.1.0.  `next_queued` spaces the words to many that are proved,
`first` those to others: if there are so many of them that one would have to wait, it is told when it is heard again.
If a source has had as much as it may, the newest of its announcements gets the next word: a neighbour may have used
that up with recordings, which are older by the client's own clock, whenever they come.  Where clocks are not
comparable, `Boots` says whose turn is next, until they `leave`.  Pure.  docs/protocol.md sections 2.4 and 2.8.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from cexec.protocol.base.limits import QUEUED_INTERVAL
from cexec.protocol.decisions.bid_events import Prove, Queued
from cexec.protocol.decisions.boots import MAXIMUM_BOOTS, MAXIMUM_SOURCES, Boots
from cexec.protocol.decisions.standing import Standing
from cexec.protocol.decisions.unproved import WORDS_RATE

if TYPE_CHECKING:
    from cexec.protocol.decisions.remembered import RememberedAnnouncement
    from cexec.protocol.decisions.slots import Slots
    from cexec.protocol.decisions.unproved import Unproved

LONGEST_BEHIND = 0.5  # seconds (ours) that a client which is not proved waits for its turn to be told
LATE = 0.1  # seconds (ours) after which an announcement that has not taken its source's next word keeps it from nobody
QUEUED_SPACING = 0.002  # seconds (ours) between two QUEUED, so that many waiting clients take no CPU from the jobs


class Latest:
    """The latest announcement of a boot that waits for a word of its source, from `due` on; it may be forgotten."""

    __slots__ = ("due", "identity", "newness")

    def __init__(self, announcement: RememberedAnnouncement, due: float) -> None:
        self.identity = announcement.identity
        self.newness = announcement.newness
        self.due = due

    def waits(self, now: float) -> bool:
        """Returns False if it has been forgotten."""
        return now < self.due + LATE

    def precedes(self, announcement: RememberedAnnouncement, now: float) -> bool:
        """Returns True if it is newer than this one, and waits."""
        return self.newness > announcement.newness and self.waits(now)


class QueueWords:
    """The words of one worker to all clients that wait."""

    __slots__ = ("_next", "_next_first", "_slots", "_unproved", "latest")

    def __init__(self, slots: Slots, unproved: Unproved) -> None:
        self._slots = slots
        self._unproved = unproved
        self.latest: dict[str, Boots[Latest]] = {}  # by source: what gets its next words
        self._next = -inf
        self._next_first = -inf  # likewise for those that are not proved

    def next_queued(self, now: float) -> float:
        """Returns when the next client may be told that it waits."""
        self._next = max(now, self._next + QUEUED_SPACING)
        return self._next

    def first(
        self, announcement: RememberedAnnouncement, now: float, hesitation: float = 0.0, *, again: bool = False
    ) -> float:
        """Returns when a new client may be told that it waits; inf: not before it is heard again.

        Those that ask `again` come before those that are heard for the first time: a flood asks once.  One whose source
        has had as much as it may takes no turn from others: `tell` lets it wait for the next word of its source.
        """
        when = now + hesitation
        if announcement.standing == Standing.PROVED:
            return self.next_queued(when)
        if not self._unproved.may_tell(announcement, now):
            over = self._unproved.next_word(announcement, now) == inf or self._precedes(announcement, now)
            return inf if over else when
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
            self.leave(announcement)
            return Queued(identity)
        if telling.waits and not self._is_latest(announcement):
            telling.waits, telling.due = False, inf
            return None
        if not telling.waits and self._precedes(announcement, now):
            telling.due = inf
            return None
        if not self._unproved.may_tell(announcement, now) or not self._has_turn(announcement, now):
            telling.due = self._wait(announcement, now)
            return None
        self._end_turn(announcement)
        self._unproved.told(announcement)
        telling.told(now, inf)
        asked = announcement.proves and (self._slots.free or announcement.standing == Standing.DOUBTED)
        return Prove(identity) if asked else Queued(identity)

    def leave(self, announcement: RememberedAnnouncement) -> None:
        """Ends its turn: it is gone, or waits for no word of this source any more."""
        if announcement.telling.waits and self._is_latest(announcement):
            boots = self.latest[announcement.source]
            del boots[announcement.boot]
            if not boots:
                del self.latest[announcement.source]
        announcement.telling.waits = False

    def _is_latest(self, announcement: RememberedAnnouncement) -> bool:
        """Returns True if it waits for a word of its source, and no newer one does instead."""
        latest = self._latest_of(announcement)
        return latest is not None and latest.identity == announcement.identity

    def _latest_of(self, announcement: RememberedAnnouncement) -> Latest | None:
        """Returns the one of its source and boot that waits for a word, perhaps itself."""
        boots = self.latest.get(announcement.source)
        return None if boots is None else boots.get(announcement.boot)

    def _precedes(self, announcement: RememberedAnnouncement, now: float) -> bool:
        """Returns True if a newer one of its source and boot waits for a word."""
        latest = self._latest_of(announcement)
        return latest is not None and latest.precedes(announcement, now)

    def _has_turn(self, announcement: RememberedAnnouncement, now: float) -> bool:
        """Returns True unless the next word of its source is for the latest of another boot."""
        boots = self.latest.get(announcement.source)
        waiting = [] if boots is None else [boot for boot, latest in boots.items() if latest.waits(now)]
        if boots is None or not waiting:
            return True
        if boots.newest_next:  # those that are looked at for this word, whoever of them is looked at first
            due = [boot for boot in waiting if boots[boot].due <= now + 0.5 / WORDS_RATE]
            newest = boots.next_of(due) if due else waiting[0]
            if due and announcement.newness > boots[newest].newness:
                return True
            return newest == announcement.boot
        return waiting[0] == announcement.boot

    def _wait(self, announcement: RememberedAnnouncement, now: float) -> float:
        """Returns when it may get a word that is not for it yet; inf: not before it is heard again."""
        source, boot = announcement.source, announcement.boot
        due = self._unproved.next_word(announcement, now)
        if due == inf or self._precedes(announcement, now):
            self.leave(announcement)
            return inf
        boots = self.latest.pop(source, None) or Boots()
        if len(self.latest) >= MAXIMUM_SOURCES:
            del self.latest[next(iter(self.latest))]
        self.latest[source] = boots
        if boot in boots and not boots[boot].waits(now):
            del boots[boot]
        if boot not in boots and len(boots) >= MAXIMUM_BOOTS:
            for gone in [other for other, latest in boots.items() if not latest.waits(now)]:
                del boots[gone]
        due = due if due > now else now + 1.0 / WORDS_RATE  # this word is for the latest of another boot
        latest = Latest(announcement, due)
        if not boots.is_newest(boot, latest):
            # Some of those before it may leave.  If all were looked at for each word, a flood took the CPU.
            latest.due += (list(boots).index(boot) if boot in boots else len(boots)) // 2 / WORDS_RATE
        if boots.put(boot, latest) is latest:
            return inf
        announcement.telling.waits = True
        return latest.due

    def _end_turn(self, announcement: RememberedAnnouncement) -> None:
        """It gets a word: its boot comes last now.  One that waited for that word waits for the next one."""
        boots = self.latest.get(announcement.source)
        if boots is None:
            return
        latest = boots.pop(announcement.boot, None)
        if latest is not None and not announcement.telling.waits:
            boots[announcement.boot] = latest
        announcement.telling.waits = False
        boots.end_turn()
        if not boots:
            del self.latest[announcement.source]
