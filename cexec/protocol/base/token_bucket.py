"""A token bucket: how much of something may be spent in a second, and how much at once.

Contract: `left(now)` is True if anything is left, and `due` says when it will be.  `spend(amount)` takes it away, even
more than is left: the bucket then fills up from below zero.  `give_back` puts it back, and never makes the bucket more
than full.  Pure; times are seconds of a monotonic clock.
"""

from __future__ import annotations

SOON = 0.000_1  # seconds (ours) behind the moment at which nothing is owed any more


class TokenBucket:
    """`rate` tokens a second flow in, up to `most`."""

    __slots__ = ("_filled", "_left", "_most", "_rate")

    def __init__(self, rate: float, most: float, now: float) -> None:
        self._rate = rate
        self._most = most
        self._left = most
        self._filled = now

    def left(self, now: float) -> bool:
        if now != self._filled:
            self._left = min(self._most, self._left + self._rate * max(0.0, now - self._filled))
            self._filled = now
        return self._left > 0.0

    def spend(self, amount: float) -> None:
        self._left -= amount

    def give_back(self, amount: float) -> None:
        """Puts back what was taken away, as far as as much has not flowed in meanwhile."""
        self._left = min(self._most, self._left + amount)

    def due(self, now: float) -> float:
        """Returns when anything is left again, if nothing is spent until then."""
        return now if self.left(now) else now - self._left / self._rate + SOON
