"""Which censuses of clients that have not proved themselves are answered, and when.

Contract: `ask` lets a census wait for an answer, and `take` returns those that get theirs now: at once while their
source has had few answers, else one after the other (`Unproved.take_answer`).  Behind recordings that claim its address
a client would wait until each of them has had its answer, and `cexec --all` would miss the worker.  So of censuses of
one source and boot only the newest waits, as its client's clock says.  As with words (`queue_words`), one answer is for
the newest of them all, and the next one for that of a boot, of the boots in turn.
`ask` and `take` return also which ones get none.  Pure.  docs/protocol.md sections 2.6 and 2.8.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from cexec.protocol.decisions.queue_words import MAXIMUM_BOOTS, MAXIMUM_LATEST

if TYPE_CHECKING:
    from cexec.protocol.decisions.unproved import Unproved

LONGEST_ASKED = 1.0  # seconds (ours) after which the client of a census has asked again, or has given up


class Asked:
    """The newest census of a boot, which waits."""

    __slots__ = ("clock", "identity", "since")

    def __init__(self, identity: bytes, clock: int, since: float) -> None:
        self.identity = identity
        self.clock = clock
        self.since = since


class AskedBoots(dict[int, Asked]):
    """The newest censuses of one source by boot; the one that comes first has waited longest."""

    __slots__ = ("newest_next",)

    def __init__(self) -> None:
        self.newest_next = True  # the next answer is for the one with the latest clock, whatever its boot

    def next_boot(self) -> int:
        if self.newest_next:
            return max(self, key=lambda boot: self[boot].clock)
        return next(iter(self))


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
        self._waiting: dict[str, AskedBoots] = {}  # by source
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
            if len(self._waiting) >= MAXIMUM_LATEST:
                return [identity]
            boots = self._waiting[source] = AskedBoots()
        self._due = min(self._due, now)
        older = boots.get(boot)
        if older is not None and (older.clock > clock or older.identity == identity):
            return [identity] if older.identity != identity else []
        displaced = [] if older is None else [older.identity]
        if older is None and len(boots) >= MAXIMUM_BOOTS:
            if clock <= max(asked.clock for asked in boots.values()):
                return [identity]
            displaced = [boots.popitem()[1].identity]  # it has waited for the shortest time
        boots[boot] = Asked(identity, clock, now)  # takes the turn of the older one
        return displaced

    def take(self, now: float) -> DueCensuses:
        """Returns the censuses whose turn has come, and those that have waited in vain."""
        taken = DueCensuses()
        self._due = inf
        for source, boots in list(self._waiting.items()):
            for boot in [boot for boot, asked in boots.items() if now - asked.since >= LONGEST_ASKED]:
                taken.dropped.append(boots.pop(boot).identity)
            while boots and self._unproved.take_answer(source, now):
                taken.answered.append(boots.pop(boots.next_boot()).identity)
                boots.newest_next = not boots.newest_next
            if boots:
                self._due = min(self._due, self._unproved.next_answer(source, now))
            else:
                del self._waiting[source]
        return taken
