"""How much a directory takes on disk, found out a little at a time.

Contract: `advance()` goes on for at most SLICE seconds and returns True at the end of a round; `size` is then what was
found, in bytes, and before that what has been found so far.  The next call begins again.  Every entry counts, also an
empty one, and nothing is followed through a link.  A file that has several names counts in parts, one for each.  What
cannot be looked at does not count, with one exception: a path that is too long for the system counts as endless,
because only somebody who hides something makes one.
"""

from __future__ import annotations

import errno
import os
import stat
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

SLICE = 0.005  # seconds (ours) of one look
BLOCK = 512  # bytes: the unit of st_blocks
LEAST = 512  # bytes (ours) that an entry takes, whatever it is
ENDLESS = 1 << 62  # bytes


class DirectoryUse:
    """`seconds`: what the last round took, without the pauses between its looks."""

    __slots__ = ("_entries", "_path", "_spent", "seconds", "size")

    def __init__(self, path: str) -> None:
        self.size = 0
        self.seconds = 0.0
        self._path = path
        self._spent = 0.0
        self._entries: Iterator[int] | None = None  # sizes of what is still to be looked at

    def advance(self) -> bool:
        """Goes on; returns True if nothing is left to be looked at."""
        began = now = monotonic()
        if self._entries is None:
            self.size, self._spent = 0, 0.0
            self._entries = _entries(self._path)
        done = False
        while not done and now < began + SLICE:
            found = next(self._entries, None)
            done = found is None
            self.size += found or 0
            now = monotonic()
        self._spent += now - began
        if done:
            self.seconds, self._entries = self._spent, None
        return done


def _entries(top: str) -> Iterator[int]:
    waiting = [top]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as found:
                for entry in found:
                    status = entry.stat(follow_symlinks=False)
                    if stat.S_ISDIR(status.st_mode):
                        waiting.append(entry.path)
                    yield max(LEAST, status.st_blocks * BLOCK // max(1, status.st_nlink))
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                yield ENDLESS
