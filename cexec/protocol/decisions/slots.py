"""The slots of a worker, and the connections that may lead to a job in one of them.

Contract: `enter` and `leave` follow each announcement through the states CONNECTING, TRYING, RESERVED and RUNNING;
other states count nothing.  A *place* is a slot that is free and that no connection is about to take.  `may_connect`
says if one more connection to a proved client may begin, `may_try` if one to an unproved client may: that keeps no
place from those that are proved.  Pure.
"""

from __future__ import annotations

from cexec.protocol.decisions.remembered import CONNECTING, RESERVED, RUNNING, TRYING

STALLED_ALLOWED = 32  # (ours) connection attempts beyond the free slots; one client has `clients.STALLED_EACH` at most
STALLED_TRIES = 4  # (ours) of unproved clients
MOST_TRIES = 64  # (ours) connection attempts to unproved clients, so that descriptors are left for the others


class Slots:
    """Counts what holds a slot, and what may come to hold one."""

    __slots__ = ("_stalled", "_tries_stalled", "connecting", "reserved", "running", "total", "trying")

    def __init__(self, total: int) -> None:
        self.total = total
        self.running = self.reserved = 0
        self.connecting = self.trying = 0  # to proved clients, and to unproved ones
        self._stalled = self._tries_stalled = 0  # of these

    @property
    def free(self) -> int:
        """Slots that are neither reserved nor busy."""
        return self.total - self.reserved - self.running

    @property
    def use(self) -> float:
        """The share of the slots that are reserved or busy."""
        return (self.reserved + self.running) / self.total

    def enter(self, state: int) -> None:
        self._count(state, 1)

    def leave(self, state: int, *, stalled: bool = False) -> None:
        """`stalled`: the connection attempt has stalled."""
        self._count(state, -1)
        if stalled:
            self._count_stalled(state, -1)

    def stall(self, state: int) -> None:
        """A connection attempt no longer keeps its slot from another."""
        self._count_stalled(state, 1)

    def may_connect(self, *, one_at_a_time: bool) -> bool:
        """Attempts that do not come forward give way to others, within bounds; a slowed worker tries one at a time."""
        hopeful = self.connecting - self._stalled
        if one_at_a_time and (hopeful or self.reserved):
            return False
        return hopeful < self.free and self.connecting < self.free + STALLED_ALLOWED

    def may_try(self, *, one_at_a_time: bool, waiting: int = 0, spare: bool = False) -> bool:
        """Says the same of an unproved client; `waiting`: so many others have been promised a place.

        `spare`: although connections to proved clients are about to take all slots that are free.
        """
        hopeful, tries = self.connecting - self._stalled, self.trying - self._tries_stalled
        if one_at_a_time and (hopeful or tries or self.reserved):
            return False
        if self.trying >= min(self.free + STALLED_TRIES, MOST_TRIES):
            return False
        return hopeful + tries + waiting < self.free or (spare and self.free > 0 and not tries)

    def _count(self, state: int, change: int) -> None:
        if state == CONNECTING:
            self.connecting += change
        elif state == TRYING:
            self.trying += change
        elif state == RESERVED:
            self.reserved += change
        elif state == RUNNING:
            self.running += change

    def _count_stalled(self, state: int, change: int) -> None:
        if state == TRYING:
            self._tries_stalled += change
        else:
            self._stalled += change
