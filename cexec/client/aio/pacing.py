"""Decides how many searches for a worker go on at a time.

Contract: pure; `now` is monotonic seconds.  It is told when a search succeeds and when a lease has waited in vain.

While a job waits so do searches: FIRST_SEARCHES and then one more for each that succeeds at once, up to MOST_SEARCHES,
so that a large room is filled in seconds; and one when all slots seem to be taken.
A worker with which there are as many leases as it may run jobs is turned away, so its slots stay with the leases.  A
lease that waits for long means that others want the worker as well.  Then, for CONTENDED_FOR, no lease is kept and
CONTENDED_SEARCHES wait: every client takes part in each worker's lottery with the same number, whatever it runs there,
so the shares follow --weight.
"""

from __future__ import annotations

FIRST_SEARCHES = 4  # (ours) at once
MOST_SEARCHES = 8  # (ours) each takes some 30 ms, and 3 ms of our CPU time: more would hardly fill a room faster
SEARCH_PATIENCE = 1.0  # seconds (ours) after which all slots seem to be taken, so one search is enough
CONTENDED_FOR = 10.0  # seconds (ours)
IDLE_PATIENCE = 1.0  # seconds (ours) that a lease waits for its turn
SHORT = 0.5  # seconds (ours): jobs that usually take no longer are given in advance
CONTENDED_SEARCHES = 32  # (ours) so many that it matters little that some are just being answered


class Pacing:
    """The number of searches of one program."""

    def __init__(self) -> None:
        self._ramp = FIRST_SEARCHES
        self._contended_until = 0.0

    def searches(self, newest: float | None, now: float) -> int:
        """Returns how many searches there should be; `newest`: when the latest search began that still goes on."""
        if self.contended(now):
            return CONTENDED_SEARCHES
        if newest is not None and now >= newest + SEARCH_PATIENCE:
            self._ramp = 1
        return self._ramp

    def contended(self, now: float) -> bool:
        """Returns True if others want the workers too, so that no lease should be kept."""
        return now < self._contended_until

    def succeeded(self, began: float, now: float) -> None:
        """Says that a search has found a worker; it `began` at that time."""
        if now < began + SEARCH_PATIENCE:
            self._ramp = min(self._ramp + 1, MOST_SEARCHES)

    def waited_in_vain(self, now: float) -> None:
        """Says that a lease has waited too long for its turn."""
        self._contended_until = now + CONTENDED_FOR
