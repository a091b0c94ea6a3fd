"""Decides when a worker answers the censuses of clients that have not proved themselves.

Contract: `ask` lets a census wait for an answer, and `take` returns those that get theirs now: at once while their
source has had few answers, else one after the other (`Unproved.take_answer`).  Behind recordings that claim its address
a client would wait until each of them has had its answer, and `cexec --all` would miss the worker; `Boots` says which
one is next.  `ask` and `take` return also which ones get no answer.  Pure.  docs/protocol.md sections 2.6 and 2.8.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from cexec.protocol.decisions.boots import MAXIMUM_SOURCES, Boots

if TYPE_CHECKING:
    from cexec.protocol.decisions.unproved import Unproved

LONGEST_ASKED = 1.0  # seconds (ours) after which the client of a census has asked again, or has given up


class Asked:
    """A census that waits since a time, and was made at another one by its client's clock."""

    __slots__ = ("identity", "newness", "since")

    def __init__(self, identity: bytes, clock: int, since: float) -> None:
        self.identity = identity
        self.newness = clock, since
        self.since = since


class DueCensuses:
    """Censuses that get their answer now, and those that get none."""

    __slots__ = ("answered", "dropped")

    def __init__(self) -> None:
        self.answered: list[bytes] = []
        self.dropped: list[bytes] = []


class CensusTurns:
    """The censuses that one worker has heard and not answered."""

    __slots__ = ("_due", "_unproved", "_waiting")

    def __init__(self, unproved: Unproved) -> None:
        self._unproved = unproved
        self._waiting: dict[str, Boots[Asked]] = {}  # by source
        self._due = inf

    def next_timeout(self) -> float:
        """Returns when to call `take`; inf: not before `ask` has been called."""
        return self._due

    def waits(self, source: str) -> bool:
        """Returns True if a census of this source waits."""
        return source in self._waiting

    def ask(self, identity: bytes, source: str, boot: int, clock: int, now: float) -> list[bytes]:
        """Lets a census wait, for `take`.  Returns those that get no answer because of it, which may be itself."""
        boots = self._waiting.get(source)
        if boots is None:
            if len(self._waiting) >= MAXIMUM_SOURCES:
                return [identity]
            boots = self._waiting[source] = Boots()
        self._due = min(self._due, now)
        displaced = boots.put(boot, Asked(identity, clock, now))
        return [] if displaced is None else [displaced.identity]

    def take(self, now: float) -> DueCensuses:
        """Returns the censuses whose turn has come, and those that have waited in vain."""
        taken = DueCensuses()
        self._due = inf
        for source, boots in list(self._waiting.items()):
            for boot in [boot for boot, asked in boots.items() if now - asked.since >= LONGEST_ASKED]:
                taken.dropped.append(boots.pop(boot).identity)
            while boots and self._unproved.take_answer(source, now):
                taken.answered.append(boots.pop(boots.next_of(boots)).identity)
                boots.end_turn()
            if boots:
                self._due = min(self._due, self._unproved.next_answer(source, now))
            else:
                del self._waiting[source]
        return taken
