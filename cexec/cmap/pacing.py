"""How many searches for a worker there should be at a time.

Contract: pure; `now` is monotonic seconds.  It is told when a search succeeds and when a lease has waited in vain.

While a task waits so do searches, up to MOST_SEARCHES as long as they succeed at once.  One that succeeds at a worker
where a lease of ours waits too has found nothing new: the next one comes later.  A lease that waits for long means that
others want the worker as well.  Then, for CONTENDED_FOR, no lease is kept and CONTENDED_SEARCHES wait: every cmap takes
part in each worker's lottery with the same number, whatever it runs there, so the shares follow --weight.
"""

from __future__ import annotations

MOST_SEARCHES = 4  # (ours) at once
SEARCH_PATIENCE = 1.0  # seconds (ours) after which all slots seem to be taken, so one search is enough
CONTENDED_FOR = 10.0  # seconds (ours)
CONTENDED_SEARCHES = 32  # (ours) so many that it matters little that some are just being answered
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 8.0  # seconds (ours) between searches that find nothing new, doubled each time


class Pacing:
    """One coordinator's."""

    def __init__(self) -> None:
        self._ramp = MOST_SEARCHES
        self._contended_until = 0.0
        self._pause = 0.0
        self._search_after = 0.0

    def searches(self, newest: float | None, now: float) -> int:
        """How many there should be; `newest`: when the latest of those that there are began."""
        if now < self._search_after:
            return 0
        if self.contended(now):
            return CONTENDED_SEARCHES
        if newest is not None and now >= newest + SEARCH_PATIENCE:
            self._ramp = 1
        return self._ramp

    def contended(self, now: float) -> bool:
        """Whether others want the workers too, so that no lease should be kept."""
        return now < self._contended_until

    def next_timeout(self, now: float) -> float | None:
        """When `searches` will have something new to say."""
        return self._search_after if now < self._search_after else None

    def succeeded(self, began: float, now: float, *, needless: bool) -> None:
        """A search that `began` then has found a worker; `needless`: a lease of ours waits there already."""
        if needless and not self.contended(now):
            self._pause = min(max(FIRST_PAUSE, 2 * self._pause), LONGEST_PAUSE)
            self._search_after = now + self._pause
            return
        self._pause = 0.0
        if now < began + SEARCH_PATIENCE:
            self._ramp = min(self._ramp + 1, MOST_SEARCHES)

    def waited_in_vain(self, now: float) -> None:
        """A lease did not have its turn for long."""
        self._contended_until = now + CONTENDED_FOR
