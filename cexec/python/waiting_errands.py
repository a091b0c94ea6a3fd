"""The jobs that wait for a worker, in the order in which they get one.

Contract: pure.  Jobs that were tried before come first.  `take` returns the first job that a worker may have: one that
has failed with a job is passed over for a while.  A job that is to wait behind another one at its worker has to be the
first of all, so that none overtakes it there.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cexec.python.errand import Errand


class WaitingErrands:
    """The errands of one dispatcher that no worker has."""

    def __init__(self) -> None:
        self._new: deque[Errand] = deque()
        self._again: deque[Errand] = deque()

    def __len__(self) -> int:
        return len(self._new) + len(self._again)

    def add(self, errand: Errand) -> None:
        """Adds one that was never tried."""
        self._new.append(errand)

    def add_again(self, errand: Errand, *, first: bool = False) -> None:
        """Adds one whose attempt has failed; `first`: it has not even been offered."""
        if first:
            self._again.appendleft(errand)
        else:
            self._again.append(errand)

    def discard(self, errand: Errand) -> None:
        """Removes one that is not wanted any more, if it is here."""
        for queue in (self._again, self._new):
            if errand in queue:
                queue.remove(errand)

    def take(self, instance: bytes, now: float, *, ahead: bool = False) -> Errand | None:
        """Removes and returns the first one that this worker may have, `ahead` of its turn if that is said."""
        for queue in (self._again, self._new):
            for place, errand in enumerate(queue):
                if not errand.avoids(instance, now) and (errand.may_wait or not ahead):
                    del queue[place]
                    return errand
                if ahead:
                    break
        return None

    def take_all(self, before: float | None = None) -> list[Errand]:
        """Removes and returns all, or those that were submitted `before` that time."""
        taken: list[Errand] = []
        for queue in (self._again, self._new):
            waiting = list(queue)
            queue.clear()
            for errand in waiting:
                (taken if before is None or errand.submitted <= before else queue).append(errand)
        return taken
