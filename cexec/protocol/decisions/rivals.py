"""The rivals for whose sake a slowed worker rests: those that have just done a job, or may be doing one.

Contract: `told` takes what a rival said of a job in an alert, `blamed` what a client said of a rival, `took_a_job` a
claim, `left` a rival's farewell; `rest_until` returns when a rest ends.  A rival counts as healthy for LIFETIME after a
job that it completed, until it says that it abandoned one, or a client complains of it; then it is slowed itself, and
counts again when a job of it has succeeded.  A claim names no worker and
counts for CLAIM_LIFETIME, or until the worker says how the job ended, or the client complains of that.  What was said
before is not news: a replayed alert changes nothing.  Memory is bounded.  docs/placement.md.  Pure.
"""

from __future__ import annotations

from math import inf

LIFETIME = 60.0  # seconds (ours) that a rival counts as healthy after a job that it completed
CLAIM_LIFETIME = 5.0  # seconds (ours) that an unknown rival counts as one that may be healthy after a claim
YIELDING = 3  # (ours) a rest is so many times longer for the sake of a rival that may be healthy
YIELDING_TO_HEALTHY = 12  # (ours) and so many times for the sake of one that is
MAXIMUM_REMEMBERED = 1000  # rivals, and claims (ours); the one that was heard of longest ago is forgotten


class RivalWord:
    """What one rival said of one job in an alert.

    `clock` is the rival's own time, by which its words are put in order; `said_at` is the same moment by our clock.
    """

    __slots__ = ("clock", "completed", "job", "rival", "said_at", "succeeded")

    def __init__(
        self, rival: bytes, *, job: bytes, completed: bool, clock: float, said_at: float, succeeded: bool = True
    ) -> None:
        """`completed`: else it was abandoned; `succeeded`: with exit status 0."""
        self.rival = rival
        self.job = job
        self.completed = completed
        self.succeeded = succeeded
        self.clock = clock
        self.said_at = said_at


class Rivals:
    """What one worker knows of the health of others."""

    __slots__ = ("_claims", "_words")

    def __init__(self) -> None:
        self._words: dict[bytes, tuple[float, float]] = {}  # by rival: its clock, our time if completed; latest last
        self._claims: dict[bytes, float] = {}  # by job, oldest first

    @property
    def known(self) -> int:
        """Counts the rivals that have told of a job."""
        return len(self._words)

    def told(self, word: RivalWord, now: float) -> bool:
        """Takes a word; returns False if it is old, or was said in the future."""
        last, healthy_at = self._words.get(word.rival, (-inf, inf))
        if word.clock < last or abs(now - word.said_at) >= LIFETIME:
            return False
        self._words.pop(word.rival, None)
        healthy = word.completed and (word.succeeded or healthy_at != -inf)
        _put(self._words, word.rival, (word.clock, min(word.said_at, now) if healthy else -inf))
        if self._claims.pop(word.job, None) is None and self._claims:
            del self._claims[next(iter(self._claims))]  # a job of a lease, whose claim named another job
        return True

    def blamed(self, rival: bytes, *, job: bytes, said_at: float, now: float) -> None:
        """Takes a client's complaint about a rival; `said_at` by our clock.

        The rival may not know yet that it has lost the job, or may never say so.
        """
        clock, completed_at = self._words.get(rival, (-inf, -inf))
        if abs(now - said_at) >= LIFETIME or said_at < completed_at:
            return
        if rival in self._words:
            self._words[rival] = (clock, -inf)
        self._claims.pop(job, None)

    def knows(self, rival: bytes, job: bytes) -> bool:
        """Returns True if what is said of this rival or of this job can change anything here."""
        return rival in self._words or job in self._claims

    def took_a_job(self, job: bytes, now: float) -> None:
        """Notes the claim of a job that this worker did not win."""
        while self._claims and now - next(iter(self._claims.values())) >= CLAIM_LIFETIME:
            del self._claims[next(iter(self._claims))]
        self._claims.pop(job, None)
        _put(self._claims, job, now)

    def left(self, rival: bytes) -> None:
        """Notes that a rival takes no more jobs."""
        if rival in self._words:
            self._words[rival] = (self._words[rival][0], -inf)

    def rest_until(self, since: float, *, shortest: float, rest: float) -> float:
        """Returns when a rest ends that began at `since` and takes `rest` times a factor, for rivals that are there.

        It takes `shortest` if there are none, and ends when they are no more.
        """
        completed = (said for _, said in reversed(self._words.values()) if said != -inf)
        healthy_until = next(completed, -inf) + LIFETIME
        claims_until = next(reversed(self._claims.values()), -inf) + CLAIM_LIFETIME
        return min(
            since + YIELDING_TO_HEALTHY * rest,
            max(since + YIELDING * rest, healthy_until),
            max(since + shortest, healthy_until, claims_until),
        )


def _put(table: dict, key: bytes, value: object) -> None:  # type: ignore[type-arg]
    if len(table) >= MAXIMUM_REMEMBERED:
        del table[next(iter(table))]
    table[key] = value
