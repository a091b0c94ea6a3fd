"""The page of memory that the keeper and its runner share: which call runs, and which ones are not to begin.

Contract: the runner `begin`s each call and then asks if it is `skipped`; the keeper lets a call be skipped and then
asks which one is `current`.  So a call that the keeper does not want to begin is seen by one of them: it is skipped, or
it is the current one.  What the runner has written is there when it has been killed.
"""

from __future__ import annotations

import mmap
import struct

from cexec.pool.call_messages import NOBODY

_NUMBER = struct.Struct("=Q")
_CURRENT, _COUNT, _TABLE = 0, 8, 16  # offsets in bytes
MOST_SKIPPED = 256  # places (ours), more than a runner is given calls at a time


class Page:
    """One for each runner; it is made before the fork."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, _TABLE + 8 * MOST_SKIPPED)
        self.begin(NOBODY)

    # the runner

    def begin(self, id: int) -> None:
        """Says which call is taken up, or NOBODY."""
        _NUMBER.pack_into(self._memory, _CURRENT, id)

    def is_skipped(self, id: int) -> bool:
        count = self._memory[_COUNT]
        if not count:
            return False  # nearly always
        return id in struct.unpack_from(f"={MOST_SKIPPED}Q", self._memory, _TABLE)

    # the keeper

    @property
    def current(self) -> int:
        """The call that was taken up last; its result may have been written since."""
        return int(_NUMBER.unpack_from(self._memory, _CURRENT)[0])

    def skip(self, id: int, place: int) -> None:
        """Lets a call be skipped, whose id is not 0; each one that the runner has needs a place of its own."""
        _NUMBER.pack_into(self._memory, _TABLE + 8 * place, id)
        self._memory[_COUNT] = 1

    def close(self) -> None:
        self._memory.close()
