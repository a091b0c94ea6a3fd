"""A draw among waiting clients, in proportion to their weights.

Contract: `Lottery.draw` takes one identity out; each has a chance of its weight over the sum of all weights.
Consecutive draws use points that are spread evenly (the golden section) instead of independent ones, so that the shares
come out right over tens of draws and not only over thousands.  `ClientLottery` draws a client first, by the greatest
weight of what it has waiting, and then one of its identities: a client gets no more turns by waiting more often.
Only clients of the lowest `rank` that waits are drawn.  Pure; `random` gives floats from 0 up to
but not 1.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

RANKS = 3  # (ours) of clients
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

    @property
    def heaviest(self) -> int:
        """The greatest weight, 0 if nobody waits."""
        return max(self._tickets, default=0)

    def add(self, identity: bytes, weight: int) -> None:
        """Lets it take part, once, with this weight."""
        self.discard(identity)
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
        identity = self.choose()
        self.discard(identity)
        return identity

    def choose(self) -> bytes:
        """Draws one that stays; raises `LookupError` if there is none."""
        if len(self._places) == 1:
            return next(iter(self._places))
        self._point = (self._point + GOLDEN_SECTION) % 1.0
        point = self._point * sum(weight * len(tickets) for weight, tickets in self._tickets.items())
        tickets = []
        for weight in sorted(self._tickets):
            tickets = self._tickets[weight]
            point -= weight * len(tickets)
            if point < 0:
                break
        return tickets[int(self._random() * len(tickets))]


class ClientLottery:
    """Waiting identities of several clients.  It iterates over those that wait, the longest waiting first."""

    __slots__ = ("_own", "_owner", "_placed", "_random", "_rank", "_ranks")

    def __init__(self, random: Callable[[], float], rank: Callable[[bytes], int]) -> None:
        """`rank` returns a number from 0 up to but not RANKS."""
        self._random = random
        self._rank = rank
        self._ranks = [Lottery(random) for _ in range(RANKS)]  # of clients
        self._own: dict[bytes, Lottery] = {}  # by client
        self._owner: dict[bytes, bytes] = {}  # by identity
        self._placed: dict[bytes, tuple[int, int]] = {}  # rank and weight by client, as it takes part

    def __len__(self) -> int:
        return len(self._owner)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._owner)

    @property
    def clients(self) -> int:
        """Counts the clients that wait."""
        return len(self._own)

    def add(self, identity: bytes, client: bytes, weight: int) -> None:
        own = self._own.get(client)
        if own is None:
            own = self._own[client] = Lottery(self._random)
        own.add(identity, weight)
        self._owner[identity] = client
        if client not in self._placed or weight > self._placed[client][1]:
            self._place(client, own.heaviest)

    def discard(self, identity: bytes) -> None:
        client = self._owner.pop(identity, None)
        if client is not None:
            own = self._own[client]
            own.discard(identity)
            heaviest = own.heaviest
            if not heaviest:
                del self._own[client]
            if heaviest != self._placed[client][1]:
                self._place(client, heaviest)

    def reconsider(self, client: bytes) -> None:
        """Asks again for the rank of this client."""
        placed = self._placed.get(client)
        if placed is not None and placed[0] != self._rank(client):
            self._place(client, placed[1])

    def best_rank(self, but: bytes) -> int:
        """Returns the rank of the next client that is drawn, if `but` is left out; RANKS if no other waits."""
        left_out = self._placed.get(but, (RANKS, 0))[0]
        found = (rank for rank, clients in enumerate(self._ranks) if len(clients) > (rank == left_out))
        return next(found, RANKS)

    def draw(self) -> bytes:
        """Takes one out; raises `LookupError` if there is none."""
        client = next((one for one in self._ranks if len(one)), self._ranks[0]).choose()
        identity = self._own[client].choose()
        self.discard(identity)
        return identity

    def _place(self, client: bytes, weight: int) -> None:
        """Lets the client take part with this weight; not at all with 0."""
        placed = self._placed.pop(client, None)
        if placed is not None:
            self._ranks[placed[0]].discard(client)
        if weight:
            rank = self._rank(client)
            self._ranks[rank].add(client, weight)
            self._placed[client] = (rank, weight)


class Waiting:
    """The announcements that wait for a slot.  Targeted ones, meant for this worker, can be drawn by themselves."""

    __slots__ = ("_all", "_targeted")

    def __init__(self, random: Callable[[], float], rank: Callable[[bytes], int] = lambda client: 0) -> None:
        self._all = ClientLottery(random, rank)
        self._targeted = ClientLottery(random, rank)

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[bytes]:
        """Iterates over all that wait, the longest waiting first."""
        return iter(self._all)

    @property
    def any_targeted(self) -> bool:
        return len(self._targeted) > 0

    @property
    def clients(self) -> int:
        """Counts the clients that wait."""
        return self._all.clients

    def best_rank(self, but: bytes) -> int:
        """Returns the lowest rank of the clients that wait, without this one; RANKS if no other waits."""
        return self._all.best_rank(but)

    def add(self, identity: bytes, weight: int, *, client: bytes = b"", targeted: bool) -> None:
        self._all.add(identity, client, weight)
        if targeted:
            self._targeted.add(identity, client, weight)

    def discard(self, identity: bytes) -> None:
        self._all.discard(identity)
        self._targeted.discard(identity)

    def reconsider(self, client: bytes) -> None:
        """Asks again for the rank of this client."""
        self._all.reconsider(client)
        self._targeted.reconsider(client)

    def draw(self, *, targeted: bool) -> bytes:
        """Takes one out, of all or of the targeted ones; raises `LookupError` if there is none."""
        identity = (self._targeted if targeted else self._all).draw()
        self.discard(identity)
        return identity
