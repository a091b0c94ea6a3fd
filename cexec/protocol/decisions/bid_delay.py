"""The seconds that a worker with a free slot waits before it answers an announcement: docs/placement.md.

Contract: `BidDelay.seconds` combines load, speed, luck and failures; relays between are the caller's to add.  Pure.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cexec.protocol.base.host_load import Load
    from cexec.protocol.decisions.competition import Competition
    from cexec.protocol.decisions.reputation import Reputation
    from cexec.protocol.decisions.slots import Slots

# All of these are (ours); docs/placement.md derives them and benchmarks/simulate_*.py measure them.
IDLE_DELAY = 0.008  # seconds that an idle worker of speed 1 waits for faster ones, once it knows of rivals
LOAD_DELAY = 0.100  # seconds more at a load of 1 and a speed of 1
SLOWEST, FASTEST = 0.05, 100.0  # speeds that are believed


class BidDelay:
    """The delay of one worker's bids."""

    __slots__ = ("_boost", "_load", "_speed")

    def __init__(self, *, speed: float, boost: float | None) -> None:
        """`boost` replaces the parts of load, speed and luck, in seconds."""
        self._speed = max(SLOWEST, min(speed, FASTEST))
        self._boost = None if boost is None else max(0.0, boost)
        self._load = 0.0

    def load_sampled(self, load: Load) -> None:
        self._load = load.level

    def seconds(
        self, now: float, *, targeted: bool, competition: Competition, reputation: Reputation, slots: Slots
    ) -> float:
        """`targeted`: the announcement is meant for this worker, so there is no race."""
        slowness = reputation.failure_delay(now)
        if self._boost is not None:
            return self._boost + slowness
        if targeted or competition.alone(now):
            return slowness
        load = max(self._load, slots.use)
        return slowness + (IDLE_DELAY + LOAD_DELAY * load) / self._speed + competition.spread(self._speed)
