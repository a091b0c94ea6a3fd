"""Keeps what waits for a datagram to one source, and decides whose turn is next.

Contract: a client's clock tells which of its announcements is the newest, but only until its machine is started anew or
the clock is set, and several clients may have one address.  So a `Boots` keeps the newest entry of each boot, at most
MAXIMUM_BOOTS.  Every second turn is for the newest entry of them all, and the others are for the boots, the one first
that has waited longest.  Pure.  docs/protocol.md section 2.8.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable

MAXIMUM_SOURCES = 1024  # (ours) for which something waits
MAXIMUM_BOOTS = 64  # (ours) of one source for which something waits


class Made(Protocol):
    """Says when its client made it: by the client's clock, and of equal clocks by the time when it came."""

    newness: tuple[int, float]


Entry = TypeVar("Entry", bound=Made)


class Boots(dict[int, Entry], Generic[Entry]):
    """The newest entries by boot; the one that comes first has waited longest."""

    __slots__ = ("newest_next",)

    def __init__(self) -> None:
        self.newest_next = True  # the next turn is for the newest entry, whatever its boot

    def put(self, boot: int, entry: Entry) -> Entry | None:
        """Lets it wait.  Returns the entry that does not wait any more because of it, or itself if it has no place."""
        older = self.get(boot)
        if older is not None and older.newness > entry.newness:
            return entry
        if older is None and len(self) >= MAXIMUM_BOOTS:
            if not self.is_newest(boot, entry):
                return entry
            _, older = self.popitem()  # it has waited for the shortest time
        self[boot] = entry  # takes the turn of the older one of its boot
        return older

    def is_newest(self, boot: int, entry: Made) -> bool:
        """Returns True if no other boot's entry is as new."""
        return entry.newness > max((one.newness for other, one in self.items() if other != boot), default=(-1, 0.0))

    def next_of(self, boots: Iterable[int]) -> int:
        """Returns the one of these boots, in the order in which they wait, that has the next turn."""
        return max(boots, key=lambda boot: self[boot].newness) if self.newest_next else next(iter(boots))

    def end_turn(self) -> None:
        """An entry has had its turn."""
        self.newest_next = not self.newest_next
