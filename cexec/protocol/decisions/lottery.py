"""A draw among waiting clients, in proportion to their weights.

Contract: `draw` takes one identity out; each has a chance of its weight over the sum of all weights.  Consecutive draws
use points that are spread evenly (the golden section) instead of independent ones, so that the shares come out right
over tens of draws and not only over thousands.  Pure; `random` gives floats from 0 up to but not 1.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

GOLDEN_SECTION = 0.6180339887498949  # multiples of it, modulo 1, leave the most even gaps


class Lottery:
    """Waiting identities by weight; adding and removing take constant time, a draw the number of different weights."""

    __slots__ = ("_places", "_point", "_random", "_tickets")

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self._point = random()
        self._tickets: dict[int, list[bytes]] = {}  # by weight
        self._places: dict[bytes, tuple[int, int]] = {}  # weight, and index in its list

    def __len__(self) -> int:
        return len(self._places)

    def add(self, identity: bytes, weight: int) -> None:
        tickets = self._tickets.setdefault(weight, [])
        self._places[identity] = (weight, len(tickets))
        tickets.append(identity)

    def discard(self, identity: bytes) -> None:
        place = self._places.pop(identity, None)
        if place is None:
            return
        weight, index = place
        tickets = self._tickets[weight]
        last = tickets.pop()
        if last != identity:  # the last one moves to the gap
            tickets[index] = last
            self._places[last] = place
        if not tickets:
            del self._tickets[weight]

    def draw(self) -> bytes:
        """Takes one out; raises `LookupError` if there is none."""
        self._point = (self._point + GOLDEN_SECTION) % 1.0
        point = self._point * sum(weight * len(tickets) for weight, tickets in self._tickets.items())
        tickets = []
        for weight in sorted(self._tickets):
            tickets = self._tickets[weight]
            point -= weight * len(tickets)
            if point < 0:
                break
        identity = tickets[int(self._random() * len(tickets))]
        self.discard(identity)
        return identity


class Waiting:
    """The announcements that wait for a slot.  Targeted ones, meant for this worker, can be drawn by themselves."""

    __slots__ = ("_all", "_targeted")

    def __init__(self, random: Callable[[], float]) -> None:
        self._all = Lottery(random)
        self._targeted = Lottery(random)

    def __len__(self) -> int:
        return len(self._all)

    @property
    def any_targeted(self) -> bool:
        return len(self._targeted) > 0

    def add(self, identity: bytes, weight: int, *, targeted: bool) -> None:
        self._all.add(identity, weight)
        if targeted:
            self._targeted.add(identity, weight)

    def discard(self, identity: bytes) -> None:
        self._all.discard(identity)
        self._targeted.discard(identity)

    def draw(self, *, targeted: bool) -> bytes:
        """Takes one out, of all or of the targeted ones; raises `LookupError` if there is none."""
        identity = (self._targeted if targeted else self._all).draw()
        self.discard(identity)
        return identity
