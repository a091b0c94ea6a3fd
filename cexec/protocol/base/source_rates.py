"""A rate for each source and a rate for all of them together.

Contract: `left(source, now)` is True if the source may spend something, `spend(source, amount, now)` takes it, and
`take` does both.  Sources are any hashable values; at most `sources` of them are told apart, and the one that was
silent for longest is forgotten.  Sources can be invented, so the rate of all is the one that holds whatever comes.
Pure; times are seconds of a monotonic clock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cexec.protocol.base.token_bucket import TokenBucket

if TYPE_CHECKING:
    from collections.abc import Hashable

MAXIMUM_SOURCES = 1024  # (ours)


class SourceRates:
    """`each` and `total` are (tokens a second, tokens at once)."""

    __slots__ = ("_each", "_maximum", "_sources", "_total")

    def __init__(
        self, each: tuple[float, float], total: tuple[float, float], now: float, *, sources: int = MAXIMUM_SOURCES
    ) -> None:
        self._each = each
        self._total = TokenBucket(*total, now)
        self._maximum = sources
        self._sources: dict[Hashable, TokenBucket] = {}  # the one that was heard last is the last

    def left(self, source: Hashable, now: float) -> bool:
        return self._of(source, now).left(now) and self._total.left(now)

    def spend(self, source: Hashable, amount: float, now: float) -> None:
        self._of(source, now).spend(amount)
        self._total.spend(amount)

    def take(self, source: Hashable, now: float) -> bool:
        """Spends one token if there is one."""
        if not self.left(source, now):
            return False
        self.spend(source, 1.0, now)
        return True

    def _of(self, source: Hashable, now: float) -> TokenBucket:
        bucket = self._sources.pop(source, None)
        if bucket is None:
            bucket = TokenBucket(*self._each, now)
            if len(self._sources) >= self._maximum:
                del self._sources[next(iter(self._sources))]
        self._sources[source] = bucket
        return bucket
