"""How much of something may be spent: so much a second, and so much at once.

Contract: `left(now)` says whether anything is left, `spend(amount)` takes it away, also more than is left: what has
been spent too much is missing later.  Pure; times are seconds of a monotonic clock.
"""

from __future__ import annotations


class TokenBucket:
    """A token bucket."""

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
