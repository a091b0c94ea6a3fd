"""The slots of a worker, and the connections that may lead to a job in one of them.

Contract: `enter` and `leave` follow each announcement through the states CONNECTING, RESERVED and RUNNING; other states
count nothing.  `may_connect` says if one more connection may begin.  Pure.
"""

from __future__ import annotations

from cexec.protocol.decisions.remembered import CONNECTING, RESERVED, RUNNING

STALLED_ALLOWED = 32  # (ours) connection attempts beyond the free slots; one client has `clients.STALLED_EACH` at most


class Slots:
    """Counts what holds a slot, and what may come to hold one."""

    __slots__ = ("_stalled", "connecting", "reserved", "running", "total")

    def __init__(self, total: int) -> None:
        self.total = total
        self.running = self.reserved = self.connecting = 0
        self._stalled = 0  # of those that are connecting

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
        self._stalled -= stalled

    def stall(self) -> None:
        """A connection attempt no longer keeps its slot from another."""
        self._stalled += 1

    def may_connect(self, *, one_at_a_time: bool) -> bool:
        """Attempts that do not come forward give way to others, within bounds; a slowed worker tries one at a time."""
        hopeful = self.connecting - self._stalled
        if one_at_a_time and (hopeful or self.reserved):
            return False
        return hopeful < self.free and self.connecting < self.free + STALLED_ALLOWED

    def _count(self, state: int, change: int) -> None:
        if state == CONNECTING:
            self.connecting += change
        elif state == RESERVED:
            self.reserved += change
        elif state == RUNNING:
            self.running += change
