"""Strays: children of this process that it did not start.

Contract: a process that has called `process.adopt_orphans` becomes the parent of everything that its children leave
behind, whatever session, process group and environment that has.  `Strays.look` kills all of it and reaps what has
ended; it never waits.  It is to be called after each SIGCHLD, because a process changes its parent only when that one
ends, and at `next_timeout`.  The caller's `known` returns the numbers of the children that it has started.
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from cexec.system.process import process_tree
from cexec.system.process.process import signal_group

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

FIRST_PAUSE = 0.005  # seconds (ours) until the next look at what has been killed and is not gone
LONGEST_PAUSE = 1.0  # seconds (ours): a process of another user, or one that hangs in the kernel, may stay for ever
ROUNDS = 50  # (ours) in one look, as long as each finds processes that the one before has not seen


class Strays:
    """`left`: how many there were at the end of the last look."""

    __slots__ = ("_due", "_known", "_pause", "left")

    def __init__(self, known: Callable[[], Collection[int]]) -> None:
        self.left = 0
        self._known = known
        self._pause = FIRST_PAUSE
        self._due: float | None = None

    def next_timeout(self) -> float | None:
        """When to look again; None if there are none."""
        return self._due

    def handle_timeout(self, now: float) -> None:
        if self._due is not None and now >= self._due:
            self.look(now)

    def look(self, now: float) -> None:
        """Kills them, also those that fork and end at once so that they always have another number."""
        seen: set[int] = set()
        for _ in range(ROUNDS):
            found = set(process_tree.children(os.getpid())).difference(self._known())
            self._kill(found)
            self.left = sum(not _reaped(pid) for pid in found)
            if found <= seen:
                break
            seen |= found
        if not self.left:
            self._due, self._pause = None, FIRST_PAUSE
        else:
            self._due, self._pause = now + self._pause, min(2 * self._pause, LONGEST_PAUSE)

    def _kill(self, found: set[int]) -> None:
        """By groups first, because the kernel kills a whole group without a gap."""
        if not found:
            return
        spared = {process_tree.group(pid) for pid in (os.getpid(), *self._known())}
        for group in {process_tree.group(pid) for pid in found} - spared - {0}:
            signal_group(group, signal.SIGKILL)
        process_tree.signal_all(list(found), signal.SIGKILL)


def _reaped(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True
