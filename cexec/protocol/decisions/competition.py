"""What a worker knows of the others: their number, the spread of bids by which about three connect, and their health.

Contract: `learn` takes the counts of claims, `spread` returns the random part of a bid in seconds, from the
distribution of timers of Nonnenmacher and Biersack ("Optimal multicast feedback", INFOCOM 1998): truncated exponential,
rare at the start and dense at the end, so that few are early however many there are and nobody waits longer than the
spread times the logarithm of the estimate.  docs/placement.md derives it.  Pure.
"""

from __future__ import annotations

from math import inf, log

from cexec.protocol.decisions.rivals import Rivals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from cexec.protocol.decisions.rivals import RivalWord

LEAST_SPREAD = 0.020  # seconds (ours): the random part grows by this each time the competitors grow by a factor of e
MOST_SPREAD = 0.100  # seconds (ours)
RACE_GROWTH = 1.2  # (ours) the shortest race is forgotten by this factor with each race
WANTED_OFFERS = 2  # (ours) that should have reached a client when it takes the first; a third is then under way
LEAST_COMPETITORS = 1.15  # (ours) workers that know of rivals are spread over 3 ms at least
MOST_COMPETITORS = 4096  # (ours) a claim that says more is not believed
LARGEST_STEP = 32.0  # (ours) factor by which one claim may raise the estimate
SURPRISE = 2.0  # (ours) factor above WANTED_OFFERS from which a claim is followed at once
GAIN = 0.25  # (ours) share of the (logarithmic) difference that any other claim corrects
FEW = 4  # (ours) up to so many workers each word to a client counts
RIVALS_LIFETIME = 600.0  # seconds (ours) after the last sign of another worker until this one thinks that it is alone


class Competition:
    """The beliefs of one worker about the others.  `rivals`: about their health."""

    __slots__ = ("_estimate", "_random", "_rivals_until", "_spread", "rivals")

    def __init__(self, random: Callable[[], float]) -> None:
        self.rivals = Rivals()
        self._random = random
        self._estimate = 1.0
        self._spread = LEAST_SPREAD
        self._rivals_until = -inf

    @property
    def estimate(self) -> float:
        """The number of workers that answer at a time, judged by claims: 1 to MOST_COMPETITORS."""
        return self._estimate

    @property
    def count(self) -> int:
        """About how many workers answer at a time."""
        return round(self._estimate)

    @property
    def many(self) -> bool:
        """True if so many workers answer, or have told of their jobs, that one answer more or less does not matter."""
        return self.count > FEW or self.rivals.known > FEW

    def rival_heard(self, now: float) -> None:
        """There are other workers of this application: a HELLO, say."""
        self._rivals_until = now + RIVALS_LIFETIME

    def alone(self, now: float) -> bool:
        """Returns True if there was no sign of another worker for RIVALS_LIFETIME: then no bid needs a delay."""
        return now >= self._rivals_until

    def rival_told(self, word: RivalWord, now: float) -> None:
        """Takes an alert of another worker about the end of a job."""
        if self.rivals.told(word, now):
            self.rival_heard(now)

    def rival_won(self, job: bytes, now: float) -> None:
        """Notes that another worker got the job of an announcement that this worker has heard."""
        self.rival_heard(now)
        self.rivals.took_a_job(job, now)

    def claim_heard(self, connected: int, now: float, *, targeted: bool) -> None:
        """Takes a claim's count; not of a targeted announcement, because only few workers answer that."""
        if not targeted:
            self.learn(connected)
            if connected > 1:
                self.rival_heard(now)

    def learn(self, connected: int) -> None:
        """Takes a count of workers that had connected: many widen the spread at once, few slowly narrow it."""
        connected = max(1, min(connected, MOST_COMPETITORS))
        error = connected / WANTED_OFFERS
        step = min(error, LARGEST_STEP) if error > SURPRISE else error**GAIN
        self._estimate = max(1.0, min(self._estimate * step, float(MOST_COMPETITORS)))

    def race_took(self, seconds: float) -> None:
        """Takes the time from an announcement to its claim: that long other workers cannot know of the winner."""
        self._spread = max(LEAST_SPREAD, min(seconds, self._spread * RACE_GROWTH, MOST_SPREAD))

    def spread(self, speed: float) -> float:
        """Returns the random part of a bid, in seconds; a worker of speed 2 is as lucky as two workers of speed 1."""
        competitors = max(self._estimate, LEAST_COMPETITORS)
        luck = 1.0 - (1.0 - self._random()) ** (1.0 / speed)  # the least of `speed` uniform numbers
        return self._spread * log(1.0 + luck * (competitors - 1.0))
