"""Counts the tasks that each worker has, and may have.

Contract: pure.  `joined` and `left` say which workers there are, `took` and `gave_back` who has a task.  A worker that
took one `alone` gets no other until it has given that one back.  The tasks of a worker that has `left` still count.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

    from cexec.cmap.run.policy import Placement


class Occupancy:
    """All workers of one run, by their keys."""

    def __init__(self, placement: Placement) -> None:
        self._placement = placement
        self._limits: dict[str, int] = {}  # of the workers that are there
        self._loads: dict[str, int] = {}
        self._reserved: set[str] = set()  # workers that have one task alone

    def joined(self, worker: str, slots: int) -> None:
        self._limits[worker] = self._placement.limit(slots)
        self._loads.setdefault(worker, 0)

    def left(self, worker: str) -> None:
        self._limits.pop(worker, None)

    @property
    def present(self) -> Collection[str]:
        """The workers that are there."""
        return self._limits.keys()

    @property
    def reserved(self) -> int:
        """Counts the workers that have one task alone."""
        return len(self._reserved)

    def limit(self, worker: str) -> int:
        """Returns how many tasks the worker may have at once; 0 if it is not there."""
        return self._limits.get(worker, 0)

    def has_room(self, worker: str) -> bool:
        """True if the worker may have another task."""
        return worker not in self._reserved and self._loads.get(worker, 0) < self._limits.get(worker, 0)

    def may_wait(self, worker: str) -> bool:
        """True if a task may wait there behind one that the worker has."""
        return worker not in self._reserved and worker in self._limits

    def idle(self, worker: str) -> bool:
        """True if the worker has no task of ours."""
        return not self._loads.get(worker, 0)

    def took(self, worker: str, *, alone: bool) -> None:
        self._loads[worker] = self._loads.get(worker, 0) + 1
        if alone:
            self._reserved.add(worker)

    def gave_back(self, worker: str) -> None:
        self._loads[worker] -= 1
        if not self._loads[worker] and worker not in self._limits:
            del self._loads[worker]
        self._reserved.discard(worker)
