"""How many requests a caller may make in a second, and how often a stranger may be wrong.

Contract: `CallerRates.admit(who, now)` returns None, or the seconds after which another request of `who` is admitted.
Each `who` has a bucket of its own, at most `most` of them at a time: the one that was used longest ago is forgotten,
which by then is full again unless there are that many callers at once.  Pure; times are seconds of a monotonic clock.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

from cexec.protocol.base.token_bucket import TokenBucket

MOST_BUCKETS = 10_000  # (ours) remembered at a time


class CallerRates:
    """`rate` requests a second, `burst` of them at once."""

    def __init__(self, rate: float, burst: float, most: int = MOST_BUCKETS) -> None:
        self._rate = rate
        self._burst = burst
        self._most = most
        self._buckets: OrderedDict[Hashable, TokenBucket] = OrderedDict()

    def admit(self, who: Hashable, now: float) -> float | None:
        bucket = self._buckets.get(who)
        if bucket is None:
            bucket = self._buckets[who] = TokenBucket(self._rate, self._burst, now)
            if len(self._buckets) > self._most:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(who)
        if not bucket.left(now):
            return 1.0 / self._rate
        bucket.spend(1.0)
        return None

    def __len__(self) -> int:
        return len(self._buckets)
