"""The ways to one client: the addresses that copies of its announcement came from.

Contract: `hear` takes a copy; `order` returns the ways, the best one first; `next_way` returns the way to be tried now,
`failed` says that a connection by it failed, `prove` that the client receives there.  At most MAXIMUM_WAYS are kept.  A
way is *dead* if it was not heard for WAY_LIFETIME, or has failed since its last copy: it comes last and makes room
first.  Living ways that are proved come before unproved ones, and then the nearest is the best; of equally near ones
one that has had the latest copy, because a relay that was restarted has a new address.  Pure;
times are seconds of a monotonic clock.  docs/protocol.md section 2.2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from cexec.protocol.decisions.standing import Standing

if TYPE_CHECKING:
    from typing import Any, TypeAlias

    Address: TypeAlias = tuple[Any, ...]

MAXIMUM_WAYS = 4  # (ours) to one client that are kept: a host has few interfaces and relays between
WAY_LIFETIME = 10.0  # seconds (ours) without a copy after which a way is dead: a client sends one every 5 s
TOGETHER = 0.2  # seconds (ours) in which one transmission comes by all ways: less than between two of them

Origin = TypeVar("Origin")


class Way(Generic[Origin]):
    """One way.  `address` is where the client waits for connections, `origin` is the caller's."""

    __slots__ = ("address", "failed", "failures", "heard", "hops", "origin", "standing")

    def __init__(self, address: Address, hops: int, origin: Origin, heard: float, standing: Standing) -> None:
        self.address = address
        self.standing = standing
        self.hops = hops  # that its last copy had left: more are nearer
        self.origin = origin
        self.heard = heard
        self.failed = False  # since the last copy
        self.failures = 0

    def living(self, now: float) -> bool:
        return not self.failed and now - self.heard < WAY_LIFETIME


class Ways(Generic[Origin]):
    """All ways to one client; there is at least one from the first copy on."""

    __slots__ = ("_ways",)

    def __init__(self) -> None:
        self._ways: list[Way[Origin]] = []

    def hear(
        self, address: Address, hops: int, origin: Origin, now: float, standing: Standing = Standing.UNPROVED
    ) -> None:
        """Takes a copy, which came by a known way or by one more; `standing`: what speaks for its source."""
        known = self._find(address)
        if known is not None:
            if known.standing > standing and known.origin != origin and known.living(now):
                return  # it has another source than a better copy, or who passed it on need not be believed
            if known.origin != origin:
                known.standing = standing
            known.hops, known.origin, known.heard, known.failed = hops, origin, now, False
            known.standing = max(known.standing, standing)
            return
        self._ways.append(Way(address, hops, origin, now, standing))
        if len(self._ways) > MAXIMUM_WAYS:
            self._ways.remove(self.order(now)[-1])

    def order(self, now: float) -> list[Way[Origin]]:
        """Returns all ways, the best one first; equal ones stay in the order in which they became known."""
        latest = max((way.heard for way in self._ways), default=now)
        return sorted(
            self._ways,
            key=lambda way: (not way.living(now), -way.standing, -way.hops, latest - way.heard > TOGETHER),
        )

    def standing(self, now: float) -> Standing:
        """Returns that of the best way; a dead way proves nothing any more."""
        best = self.order(now)[0]
        return best.standing if best.living(now) else min(best.standing, Standing.UNPROVED)

    def next_way(self, now: float) -> Way[Origin] | None:
        """Returns the best way that has not failed since its last copy and may be connected to, or None."""
        found = (way for way in self.order(now) if not way.failed and way.standing != Standing.DOUBTED)
        return next(found, None)

    def prove(self, way: Way[Origin]) -> None:
        """Notes that the client has proved that it receives by this way."""
        way.standing = Standing.PROVED

    def untried(self, now: float) -> bool:
        """Returns True if there is a living way by which no connection has ever failed."""
        return any(way.living(now) and not way.failures for way in self._ways)

    def failed(self, address: Address) -> None:
        """Notes that a connection to this address failed."""
        known = self._find(address)
        if known is not None:
            known.failed = True
            known.failures += 1

    def _find(self, address: Address) -> Way[Origin] | None:
        return next((way for way in self._ways if way.address == address), None)
