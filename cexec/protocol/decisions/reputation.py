"""The slowness of a worker that does its jobs badly: it fails quickly, or clients complain about it.

Contract: `slowness` is in seconds, at most LONGEST_DELAY.  `failure_delay` is its part that is added to every bid.
While the slowness is not 0 the worker also rests between two jobs, longer while rivals do jobs (`held_until`): a broken
machine is always free, so without that a queue would be drained into it.  docs/placement.md.  Pure.
"""

from __future__ import annotations

from math import inf

from cexec.protocol.decisions.bid_events import Outcome
from cexec.protocol.decisions.complaints import Complaints

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cexec.protocol.decisions.competition import Competition
    from cexec.protocol.decisions.rivals import Rivals

LONGEST_DELAY = 5.0  # seconds (ours): a lone worker that is healthy again must still be found
LONGEST_ALONE = 0.1  # seconds (ours) if there is no other worker that could do the jobs
FIRST_PENALTY = 0.5  # seconds (ours), doubled with each further failure
FAILURES_ALLOWED = 3  # (ours) quick failures in a row before the worker is slowed; a refusal counts as so many
QUICK_FAILURE = 1.0  # seconds (ours): a job that fails sooner is likely the worker's fault
FORGIVEN = 600.0  # seconds (ours) after its last failure a worker that got no other job may try one in time


class QuickFailures:
    """The quick failures of a worker's own jobs."""

    __slots__ = ("_count", "_failed_at", "_rested_at")

    def __init__(self) -> None:
        self._count = 0  # in a row
        self._failed_at = -inf
        self._rested_at = -inf

    def slowness(self, now: float) -> float:
        """Returns seconds: 0.5, 1, 2, 4, 5, 5 ... from the third failure on."""
        excess = self._count - FAILURES_ALLOWED
        if excess < 0 or now - self._failed_at >= FORGIVEN:
            return 0.0
        return min(FIRST_PENALTY * 2.0 ** min(excess, 10), LONGEST_DELAY)

    def ended(self, outcome: Outcome, duration: float, now: float) -> None:
        """Notes how a job ended: a success forgives everything, a refusal and a quick failure count, all else does not.

        An unfit job is one that every worker would refuse, which says nothing of this one.
        """
        if outcome is Outcome.SUCCEEDED:
            self._count = 0
            self._rested_at = -inf
        elif outcome is Outcome.REFUSED or (outcome is Outcome.FAILED and duration < QUICK_FAILURE):
            self._count = max(self._count + 1, FAILURES_ALLOWED if outcome is Outcome.REFUSED else 0)
            self._failed_at = now
        elif outcome is Outcome.FAILED and self._count < FAILURES_ALLOWED:
            self._count = 0
        if outcome not in (Outcome.SUCCEEDED, Outcome.UNFIT):
            self.rest(now)

    def rest(self, now: float) -> None:
        """Begins a rest, because a job was taken or ended badly: a slowed worker leaves the next ones to others."""
        self._rested_at = now

    def held_until(self, now: float, rivals: Rivals | None, *, longest: float) -> float:
        """Returns the time before which no job is taken; without `rivals` for a job that only this worker can do."""
        slowness = min(self.slowness(now), longest)
        if not slowness:
            return -inf
        if rivals is None:
            return self._rested_at + slowness
        return rivals.rest_until(self._rested_at, shortest=slowness, rest=slowness)

    def words(self, now: float) -> str:
        """Returns the trouble in words, or ""."""
        return f"{self._count} jobs in a row failed at once" if self.slowness(now) else ""


class Reputation:
    """The record of a worker's own jobs, and of the complaints about them.

    `competition` says which rivals there are.
    """

    __slots__ = ("_competition", "_complaints", "_failures")

    def __init__(self, competition: Competition) -> None:
        self._competition = competition
        self._failures = QuickFailures()
        self._complaints = Complaints()

    def slowness(self, now: float) -> float:
        """Returns seconds for failures and complaints together."""
        return min(self._failures.slowness(now) + self._complaints.slowness(now), LONGEST_DELAY)

    def failure_delay(self, now: float) -> float:
        """Returns the seconds by which bids are late."""
        return min(self._failures.slowness(now), self._longest(now))

    # This worker's jobs

    def reserved(self, now: float) -> None:
        """Notes that a slot is reserved for a job."""
        self._failures.rest(now)

    def started(self, identity: bytes, client: bytes, now: float) -> None:
        """Notes that a client has given a job."""
        self._complaints.taken(identity, client, now)

    def finished(self, identity: bytes, outcome: Outcome, duration: float, now: float) -> None:
        """Notes how a job has ended, as far as this worker knows."""
        self._failures.ended(outcome, duration, now)
        if outcome in (Outcome.REFUSED, Outcome.UNFIT):
            self._complaints.settled(identity)
        else:
            completed, succeeded = outcome is not Outcome.BROKEN, outcome is Outcome.SUCCEEDED
            self._complaints.ended(identity, now, completed=completed, succeeded=succeeded)

    def acknowledged(self, identity: bytes, now: float) -> None:
        """Notes that the client has the result of a job."""
        self._complaints.acknowledged(identity, now)

    def complained(self, identity: bytes, now: float) -> bool:
        """Takes a client's complaint about its job; returns False if it does not count."""
        return self._complaints.complained(identity, now)

    # The rests

    def held_until(self, now: float, *, targeted: bool = False) -> float:
        """Returns the time before which no waiting job is taken; `targeted` jobs, meant for us, wait for no rival."""
        longest, rivals = self._longest(now), self._competition.rivals
        if targeted:
            failed = self._failures.held_until(now, None, longest=longest)
            return max(failed, self._complaints.single_rest_until(None, longest=longest))
        failed = self._failures.held_until(now, rivals, longest=longest)
        return max(failed, self._complaints.held_until(rivals, longest=longest))

    def client_held_until(self, client: bytes, now: float, *, targeted: bool = False) -> float:
        """Returns the same for the jobs of one client, which may have complained."""
        longest = self._longest(now)
        if targeted:
            return self._complaints.single_rest_until(client, longest=longest)
        return self._complaints.client_held_until(client, self._competition.rivals, longest=longest)

    def _longest(self, now: float) -> float:
        return LONGEST_ALONE if self._competition.alone(now) else LONGEST_DELAY

    def health(self, now: float) -> str:
        """Returns "ok", or the trouble in words for people."""
        words = [self._failures.words(now), "clients complained" if self._complaints.slowness(now) else ""]
        return ", ".join(filter(None, words)) or "ok"
