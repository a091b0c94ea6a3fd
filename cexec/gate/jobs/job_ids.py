"""Names of jobs and pools: version 7 of UUID (RFC 9562), so that their order is that of their submission.

Contract: ids of one process only grow, also within one millisecond, and when the clock is set back.
"""

from __future__ import annotations

import os
import time

_RANDOM = 1 << 74


class JobIds:
    """Makes ids."""

    def __init__(self) -> None:
        self._last = 0

    def next(self) -> str:
        """Returns an id that is higher than all before."""
        drawn = int.from_bytes(os.urandom(14))
        fresh = time.time_ns() // 1_000_000 * _RANDOM + drawn % _RANDOM
        self._last = max(fresh, self._last + 1 + (drawn >> 80))
        milliseconds, random = divmod(self._last, _RANDOM)
        number = milliseconds << 80 | 7 << 76 | (random >> 62) << 64 | 2 << 62 | random & ((1 << 62) - 1)
        text = f"{number:032x}"
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
