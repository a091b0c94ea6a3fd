"""Whose turn it is at a terminal.

Contract: `in_foreground(fd)` returns False while the terminal belongs to another process group: somebody types for that
one.  A read would stop us then (SIGTTIN), or fail with EIO if that is ignored.
"""

from __future__ import annotations

import os

PAUSE = 1.0  # seconds (ours) between two looks whose terminal it is, while input waits


def in_foreground(fd: int) -> bool:
    """Returns False if a terminal is another process group's to read."""
    try:
        group = os.tcgetpgrp(fd)
    except OSError:
        return True  # not our controlling terminal: everybody may read it
    return group in (os.getpgrp(), 0)  # 0: a group that has no number in our namespace; a read tells
