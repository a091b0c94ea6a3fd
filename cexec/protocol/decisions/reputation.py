"""The slowness of a worker that does its jobs badly: it fails quickly, or clients complain about it.

Contract: `slowness` is in seconds, at most LONGEST_DELAY, and is added to every bid.  While it is not 0 the worker also
pauses between two jobs, longer while rivals take jobs (`held_until`): a broken machine is always free, so without that
a queue would be drained into it.  docs/placement.md.  Pure.
"""

from __future__ import annotations

from math import inf

from cexec.protocol.decisions.bid_events import Outcome

LONGEST_DELAY = 5.0  # seconds (ours): a lone worker that is healthy again must still be found
LONGEST_ALONE = 0.1  # seconds (ours) if there is no other worker that could do the jobs
FIRST_PENALTY = 0.5  # seconds (ours), doubled with each further failure
FAILURES_ALLOWED = 3  # (ours) quick failures in a row before the worker is slowed; a refusal counts as so many
QUICK_FAILURE = 1.0  # seconds (ours): a job that fails sooner is likely the worker's fault
FORGIVEN = 600.0  # seconds (ours) after its last failure a worker that got no other job may try one in time
COMPLAINT_DELAY = 1.0  # seconds (ours) per complaint
PROVED_COMPLAINTS = 2.0  # (ours) that a complaint about a job counts for that this worker did start and not end
COMPLAINT_HALF_LIFE = 30.0  # seconds (ours); one client counts once in this time
LEAST_COMPLAINTS = 0.01  # (ours) a smaller remainder counts as 0
YIELDING = 3  # (ours) the pause between two jobs is so many times longer if a rival has taken one in RIVAL_LIFETIME
YIELDING_TO_HEALTHY = 12  # (ours) and so many times if a rival's job has succeeded in RIVAL_LIFETIME
RIVAL_LIFETIME = 60.0  # seconds (ours)
MAXIMUM_REMEMBERED = 1000  # clients and jobs (ours); the oldest is forgotten


class Reputation:
    """The record of a worker's own jobs, and of the complaints about them."""

    __slots__ = (
        "_complained", "_complaints", "_complaints_at", "_failed_at", "_failures", "_paused_at", "_rival_succeeded_at",
        "_rival_took_at", "_unfinished", "_unfit",
    )  # fmt: skip

    def __init__(self) -> None:
        self._failures = 0  # quick ones, in a row
        self._failed_at = -inf
        self._complaints = 0.0  # as of _complaints_at, halved every COMPLAINT_HALF_LIFE since
        self._complaints_at = -inf
        self._complained: dict[bytes, float] = {}  # when each client was counted, oldest first
        self._unfinished: dict[bytes, float] = {}  # jobs that were started and have come to no proper end, oldest first
        self._unfit: dict[bytes, float] = {}  # jobs that every worker would have refused, oldest first
        self._paused_at = self._rival_took_at = self._rival_succeeded_at = -inf

    def slowness(self, now: float, *, alone: bool = False) -> float:
        """Returns seconds for failures and complaints together; `alone`: there is no sign of other workers."""
        complaints = self._complaints_now(now) if self._complaints else 0.0
        return min(self._penalty(now) + COMPLAINT_DELAY * complaints, LONGEST_ALONE if alone else LONGEST_DELAY)

    def _penalty(self, now: float) -> float:
        """Returns seconds for its own failures: 0.5, 1, 2, 4, 5, 5 ... from the third on."""
        excess = self._failures - FAILURES_ALLOWED
        if excess < 0 or now - self._failed_at >= FORGIVEN:
            return 0.0
        return min(FIRST_PENALTY * 2.0 ** min(excess, 10), LONGEST_DELAY)

    def _complaints_now(self, now: float) -> float:
        complaints = self._complaints * 0.5 ** ((now - self._complaints_at) / COMPLAINT_HALF_LIFE)
        return complaints if complaints >= LEAST_COMPLAINTS else 0.0

    def started(self, identity: bytes, now: float) -> None:
        """Notes that a job was started: a complaint about it is not made up."""
        _remember(self._unfinished, identity, now)

    def finished(self, identity: bytes, outcome: Outcome, duration: float, now: float) -> None:
        """Notes how a job ended: a success forgives everything, a refusal and a quick failure count, all else does not.

        An unfit job is one that every worker would refuse, which says nothing of this one.
        """
        if outcome is not Outcome.BROKEN:
            self._unfinished.pop(identity, None)
        if outcome is Outcome.UNFIT:
            _remember(self._unfit, identity, now)
        elif outcome is Outcome.SUCCEEDED:
            self._failures = 0
            self._complaints = 0.0
            self._paused_at = -inf
        elif outcome is Outcome.REFUSED or (outcome is Outcome.FAILED and duration < QUICK_FAILURE):
            at_least = FAILURES_ALLOWED if outcome is Outcome.REFUSED else 0
            self._failures = max(self._failures + 1, at_least)
            self._failed_at = now
        elif outcome is Outcome.FAILED and self._failures < FAILURES_ALLOWED:
            self._failures = 0
        if outcome not in (Outcome.SUCCEEDED, Outcome.UNFIT):
            self.pause(now)

    def complained(self, client: bytes, identity: bytes | None, now: float) -> bool:
        """Takes a complaint, perhaps about the job `identity`; returns False if it does not count.

        A complaint about a job that this worker did start and did not end always counts.  Others count once per client
        for a while, so that words alone cannot keep an honest worker from work.
        """
        if identity in self._unfit:
            return False
        weight = 1.0
        if identity is not None and identity in self._unfinished:
            del self._unfinished[identity]
            weight = PROVED_COMPLAINTS
        elif now - self._complained.get(client, -inf) < COMPLAINT_HALF_LIFE:
            return False
        _remember(self._complained, client, now)
        self._complaints = min((self._complaints_now(now) if self._complaints else 0.0) + weight, LONGEST_DELAY)
        self._complaints_at = now
        self.pause(now)
        return True

    def pause(self, now: float) -> None:
        """Starts a pause, because a job was taken or ended badly: a slowed worker leaves the next ones to others."""
        self._paused_at = now

    def rival_took_a_job(self, now: float) -> None:
        self._rival_took_at = now

    def rival_succeeded(self, now: float) -> None:
        self._rival_succeeded_at = now

    def held_until(self, now: float, *, targeted: bool = False, alone: bool = False) -> float:
        """Returns the time before which no waiting job is taken; `targeted` jobs, meant for us, wait for no rival."""
        slowness = self.slowness(now, alone=alone)
        if not slowness:
            return -inf
        factor = 1
        if not targeted and now - self._rival_succeeded_at < RIVAL_LIFETIME:
            factor = YIELDING_TO_HEALTHY
        elif not targeted and now - self._rival_took_at < RIVAL_LIFETIME:
            factor = YIELDING
        return self._paused_at + factor * slowness

    def health(self, now: float) -> str:
        """Returns "ok", or the trouble in words for people."""
        words = []
        if self._penalty(now):
            words.append(f"{self._failures} jobs in a row failed at once")
        if self._complaints and self._complaints_now(now):
            words.append("clients complained")
        return ", ".join(words) or "ok"


def _remember(table: dict[bytes, float], key: bytes, now: float) -> None:
    """Adds an entry at the end of a table, whose oldest one makes room."""
    table.pop(key, None)
    if len(table) >= MAXIMUM_REMEMBERED:
        del table[next(iter(table))]
    table[key] = now
