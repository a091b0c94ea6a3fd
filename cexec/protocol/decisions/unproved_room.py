"""The announcements in a worker's memory whose sources are not proved, and which of them makes room.

Contract: mac1 does not cover a source, so a holder of a key can announce from as many invented addresses as he likes.
`add`, `discard` and `heard` follow those that are unproved; `victim` names one that makes room for another one.  It is
drawn from a few at random: one of the network that has the most of them, and then one that was heard only once.  So an
honest client, which asks again and proves itself within a round trip, is hardly ever the one, and the choice costs the
same however many there are.  Pure; `random` gives floats from 0 up to but not 1.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

DRAWN = 4  # (ours) candidates


class UnprovedRoom:
    """Their identities, in no order, and how many of them each network has."""

    __slots__ = ("_again", "_networks", "_of", "_order", "_places", "_random")

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self._order: list[bytes] = []
        self._places: dict[bytes, int] = {}  # index in that list
        self._of: dict[bytes, str] = {}  # the network of each
        self._networks: dict[str, int] = {}
        self._again: set[bytes] = set()  # those that were heard more than once

    def __len__(self) -> int:
        return len(self._order)

    def add(self, identity: bytes, source: str) -> None:
        if identity in self._places:
            return
        self._places[identity] = len(self._order)
        self._order.append(identity)
        network = network_of(source)
        self._of[identity] = network
        self._networks[network] = self._networks.get(network, 0) + 1

    def heard(self, identity: bytes) -> None:
        """A copy has come."""
        if identity in self._places:
            self._again.add(identity)

    def discard(self, identity: bytes) -> None:
        """Takes one out, because it is proved or is remembered no more; or does nothing."""
        place = self._places.pop(identity, None)
        if place is None:
            return
        last = self._order.pop()
        if last != identity:  # the last one moves to the gap
            self._order[place] = last
            self._places[last] = place
        network = self._of.pop(identity)
        self._networks[network] -= 1
        if not self._networks[network]:
            del self._networks[network]
        self._again.discard(identity)

    def victim(self, may_go: Callable[[bytes], bool]) -> bytes | None:
        """Returns one that makes room, or None if none of those that were drawn may go."""
        found = [self._order[int(self._random() * len(self._order))] for _ in range(DRAWN if self._order else 0)]
        return max((one for one in found if may_go(one)), key=self._nearest_to_go, default=None)

    def _nearest_to_go(self, identity: bytes) -> tuple[int, bool]:
        return self._networks[self._of[identity]], identity not in self._again


def network_of(source: str) -> str:
    """Returns the first three bytes of an IPv4 address, or the first 64 bits of an IPv6 address, as text."""
    if ":" not in source:
        return source.rpartition(".")[0]
    front, _, back = source.partition("%")[0].partition("::")
    groups = front.split(":") if front else []
    missing = 8 - len(groups) - len(back.split(":") if back else [])
    return ":".join([*groups, *["0"] * missing][:4])
