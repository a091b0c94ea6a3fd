"""What slows a worker that does its jobs badly: its own quick failures, and clients that complain about it.

Contract: `slowness` is in seconds, at most LONGEST_DELAY, and is added to every bid.  While it is not 0 the worker also
takes one job at a time, with that pause between two, and lets rivals that are taking jobs go first (`held_until`):
a broken machine is always free, so its share of a queue would be the largest.  Pure.
"""

from __future__ import annotations

from math import inf

LONGEST_DELAY = 5.0  # seconds (ours)
FIRST_PENALTY = 0.5  # seconds (ours), doubled with each further failure
FAILURES_ALLOWED = 3  # (ours) quick failures running before the worker is slowed; a refusal is not allowed once
QUICK_FAILURE = 1.0  # seconds (ours): a job that fails sooner is likely the worker's fault
YIELDING = 12  # (ours) rivals may go first for this many times the slowness, then one job is tried
COMPLAINT_DELAY = 1.0  # seconds (ours) per complaining client
COMPLAINT_HALF_LIFE = 60.0  # seconds (ours); one client counts once in this time
MAXIMUM_COMPLAINERS = 1000  # (ours) the oldest is forgotten


class Reputation:
    """How a worker's own jobs ended, and what clients say about them."""

    __slots__ = ("_complaints", "_failures", "_held_limit", "held_until")

    def __init__(self) -> None:
        self._failures = 0  # quick ones, running
        self._complaints: dict[bytes, float] = {}  # when each client complained, oldest first
        self._held_limit = -inf
        self.held_until = -inf  # no waiting job is taken before

    @property
    def penalty(self) -> float:
        """Seconds for its own failures: 0.5, 1, 2, 4, 5, 5 ... from the third on."""
        excess = self._failures - FAILURES_ALLOWED
        return min(FIRST_PENALTY * 2.0 ** min(excess, 10), LONGEST_DELAY) if excess >= 0 else 0.0

    def slowness(self, now: float) -> float:
        """Seconds for failures and complaints together."""
        if not self._complaints:
            return self.penalty
        complaints = sum(0.5 ** ((now - when) / COMPLAINT_HALF_LIFE) for when in self._complaints.values())
        complaints = 0.0 if complaints < 0.01 else complaints
        return min(self.penalty + COMPLAINT_DELAY * complaints, LONGEST_DELAY)

    def finished(self, outcome: str, duration: float, now: float) -> None:
        """A job ended: "ok" forgives everything, "refused" and a quick "failed" count, all else does not."""
        if outcome == "ok":
            self._failures = 0
            self._complaints.clear()
            self.held_until = -inf
        elif outcome == "refused":
            self._failures = max(self._failures + 1, FAILURES_ALLOWED)
        elif outcome == "failed" and duration < QUICK_FAILURE:
            self._failures += 1
        elif outcome == "failed" and self._failures < FAILURES_ALLOWED:
            self._failures = 0
        self.pause(now)

    def complained(self, client: bytes, now: float) -> bool:
        """A client complains; False when it has been counted already."""
        last = self._complaints.get(client)
        if last is not None and now - last < COMPLAINT_HALF_LIFE:
            return False
        self._complaints.pop(client, None)
        if len(self._complaints) >= MAXIMUM_COMPLAINERS:
            del self._complaints[next(iter(self._complaints))]
        self._complaints[client] = now
        self.pause(now)
        return True

    def pause(self, now: float) -> None:
        """A job was taken or ended badly: leave the next ones to others for a while, if slowed at all."""
        slowness = self.slowness(now)
        if slowness:
            self.held_until = now + slowness
            self._held_limit = now + YIELDING * slowness

    def rival_took_a_job(self, now: float) -> None:
        """As long as rivals take jobs they go first, but not for ever: only a success can end the slowness."""
        slowness = self.slowness(now)
        if slowness:
            self.held_until = max(self.held_until, min(now + slowness, self._held_limit))

    @property
    def health(self) -> str:
        """For people: "ok" or what is wrong."""
        words = []
        if self.penalty:
            words.append(f"{self._failures} jobs running failed at once")
        if self._complaints:
            words.append(f"{len(self._complaints)} clients complained")
        return ", ".join(words) or "ok"
