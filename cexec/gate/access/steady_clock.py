"""The time by which tokens end: no earlier than it was, also if somebody sets the clock back.

Contract: `now()` returns seconds since 1970.  While the process runs, time goes on at least as fast as the monotonic
clock, so setting the clock back gives no token a longer life.  A clock that jumps ahead counts while it is ahead: its
tokens are refused until it is right again, and nothing is written down about them.
"""

from __future__ import annotations

import time
from collections.abc import Callable


class SteadyClock:
    """`wall` and `monotonic` are for tests."""

    def __init__(self, wall: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._offset = wall() - monotonic()

    def now(self) -> float:
        return max(self._wall(), self._offset + self._monotonic())
