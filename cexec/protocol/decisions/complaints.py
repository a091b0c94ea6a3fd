"""What clients' complaints ("rats out") do to a worker: it rests, and then tries one job at a time until one succeeds.

Contract: `taken`, `ended` and `acknowledged` follow each job; `complained` returns whether a complaint counts.  It does
so once for a job, until COMPLAINT_LIFETIME after the job's end, if the client has not acknowledged the job's end.
`slowness` is in seconds, for the length of the rests.  `held_until` says when the next job may be taken, and
`client_held_until` when the next job of one client.  docs/placement.md.  Pure.

A worker also knows what the others think of it: if its latest word to them was that a job has succeeded, they rest for
its sake.  Then it does not rest for theirs, or all would wait for each other.

The complaints of one client must not keep a worker from the jobs of others:
- While a client's complaint stands, more complaints of it lengthen the rests from its own jobs only.
- A job that succeeds ends all complaints.  A client whose complaint was ended by another client's job is believed less
  for a while.
"""

from __future__ import annotations

from math import inf

from cexec.protocol.decisions.rivals import LIFETIME

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cexec.protocol.decisions.rivals import Rivals

COMPLAINT_LIFETIME = 60.0  # seconds (ours) after a job's end, by our clock, in which a complaint about it counts
COMPLAINT_DELAY = 2.0  # seconds (ours) of slowness for one complaint
HALF_LIFE = 30.0  # seconds (ours) in which the slowness for complaints halves
LEAST_SLOWNESS = 0.01  # seconds (ours): less is none
LONGEST_SLOWNESS = 5.0  # seconds (ours)
FIRST_REST = 1.0  # seconds (ours): the longest first rest without a healthy rival; doubled each time that a try fails
MOST_AGREEING = 4  # (ours) clients whose complaints stand: so many times longer is the rest from the jobs of each
DISBELIEF = 4.0  # (ours) a client that was refuted counts for so many times less
DISBELIEF_LIFETIME = 600.0  # seconds (ours) after the last refuted complaint of a client
MAXIMUM_REMEMBERED = 1000  # jobs and clients (ours); the oldest is forgotten


class TakenJob:
    """A job whose end its client has not acknowledged."""

    __slots__ = ("client", "ended_at", "succeeded", "taken_at")

    def __init__(self, client: bytes, taken_at: float) -> None:
        self.client = client
        self.taken_at = taken_at
        self.ended_at = inf
        self.succeeded = False  # its exit status was 0


class Slowness:
    """Seconds, halved every HALF_LIFE."""

    __slots__ = ("_at", "_seconds")

    def __init__(self) -> None:
        self._seconds = 0.0  # as of _at
        self._at = -inf

    def add(self, seconds: float, now: float) -> None:
        self._seconds = min(self.left(now) + seconds, LONGEST_SLOWNESS)
        self._at = now

    def left(self, now: float) -> float:
        if not self._seconds:
            return 0.0
        seconds = self._seconds * 0.5 ** ((now - self._at) / HALF_LIFE)
        return seconds if seconds >= LEAST_SLOWNESS else 0.0

    def of_rest(self, since: float, longest: float) -> float:
        """Returns the seconds by which a rest is measured that began at `since`, if nothing is added any more."""
        return min(self.left(max(since, self._at)), longest)

    def end(self) -> None:
        self._seconds = 0.0


class Complaints:
    """The complaints about one worker."""

    __slots__ = (
        "_began_at", "_common", "_doubts", "_jobs", "_lost_at", "_rested_at", "_rests", "_slowness", "_standing",
        "_succeeded_at",
    )  # fmt: skip

    def __init__(self) -> None:
        self._jobs: dict[bytes, TakenJob] = {}  # oldest first
        self._standing: dict[bytes, float] = {}  # clients that have complained, and since when we rest from their jobs
        self._rested_at = -inf  # since when we rest from all jobs
        self._slowness = Slowness()  # for all complaints
        self._common = Slowness()  # for those by which a client begins to complain
        self._rests = 0  # tries that failed, and the first complaint
        self._began_at = -inf  # when the last of them began
        self._doubts: dict[bytes, tuple[int, float]] = {}  # by client: how often it was refuted, and when
        self._succeeded_at = -inf  # when the last job ended with status 0
        self._lost_at = -inf  # when the last job ended that broke off, or that its client complained of

    # The jobs

    def taken(self, identity: bytes, client: bytes, now: float) -> None:
        """Notes that a client has given a job to this worker."""
        _put(self._jobs, identity, TakenJob(client, now))
        self._rest(client, now)

    def ended(self, identity: bytes, now: float, *, completed: bool = True, succeeded: bool) -> None:
        """Notes that a job has ended, as far as this worker knows.  `completed`: else it broke off."""
        if succeeded:
            self._succeeded_at = now
        elif not completed:
            self._lost_at = now
        job = self._jobs.get(identity)
        if job is not None:
            job.ended_at = now
            job.succeeded = succeeded
            if not succeeded:
                self._rest(job.client, now)

    def acknowledged(self, identity: bytes, now: float) -> None:
        """Notes that the client knows how a job ended, so that a complaint about it is not true."""
        job = self._jobs.pop(identity, None)
        if job is not None and job.succeeded:
            self._refute(job.client, now)

    def settled(self, identity: bytes) -> None:
        """Notes that a job was refused, which is no reason for a complaint."""
        self._jobs.pop(identity, None)

    # The complaints

    def complained(self, identity: bytes, now: float) -> bool:
        """Takes a complaint about a job; returns False if it does not count."""
        job = self._jobs.pop(identity, None)
        if job is None or now - job.ended_at > COMPLAINT_LIFETIME:
            return False
        self._lost_at = max(self._lost_at, min(job.ended_at, now))
        weight = COMPLAINT_DELAY / DISBELIEF ** self._doubt(job.client, now)
        slowness = self.slowness(now)
        if weight < LEAST_SLOWNESS:
            return False
        if not slowness:
            self._end()
        if not self._rests or job.taken_at >= self._began_at:
            self._rests += 1
            self._began_at = now
        if job.client not in self._standing:
            self._rested_at = now
            self._common.add(weight, now)
        _put(self._standing, job.client, now)
        self._slowness.add(weight, now)
        return True

    def slowness(self, now: float) -> float:
        """Returns seconds, for all complaints together."""
        return self._slowness.left(now)

    # The rests

    def held_until(self, rivals: Rivals, *, longest: float) -> float:
        """Returns the time before which no job is taken; `longest` bounds the slowness."""
        return self._rest_until(self._rested_at, self._common.of_rest(self._rested_at, longest), rivals, agreeing=1)

    def client_held_until(self, client: bytes, rivals: Rivals, *, longest: float) -> float:
        """Returns the time before which no job of this client is taken, or -inf."""
        since = self._standing.get(client, -inf)
        agreeing = min(len(self._standing), MOST_AGREEING)
        return self._rest_until(since, self._slowness.of_rest(since, longest), rivals, agreeing=agreeing)

    def single_rest_until(self, client: bytes | None, *, longest: float) -> float:
        """Returns the same for a job that only this worker can do; None: for all clients."""
        if client is None:
            return self._rested_at + self._common.of_rest(self._rested_at, longest)
        since = self._standing.get(client, -inf)
        return since + self._slowness.of_rest(since, longest)

    def _rest_until(self, since: float, slowness: float, rivals: Rivals, *, agreeing: int) -> float:
        if not slowness or since == -inf:
            return -inf
        shortest = min(slowness, FIRST_REST * 2.0 ** min(self._rests - 1, 10))
        if self._succeeded_at > max(self._lost_at, since - LIFETIME):
            return since + shortest
        return rivals.rest_until(since, shortest=shortest, rest=slowness * agreeing)

    def _rest(self, client: bytes, now: float) -> None:
        """Begins a rest, because a job was taken or ended badly: a slowed worker leaves the next ones to others."""
        if client in self._standing:
            self._standing[client] = now
        else:
            self._rested_at = now

    # The trust in clients

    def _refute(self, client: bytes, now: float) -> None:
        """Ends all complaints, because a job of this client succeeded."""
        if self.slowness(now):
            for other in self._standing:
                if other != client:
                    _put(self._doubts, other, (self._doubt(other, now) + 1, now))
        self._end()

    def _end(self) -> None:
        self._standing.clear()
        self._slowness.end()
        self._common.end()
        self._rests = 0
        self._rested_at = -inf

    def _doubt(self, client: bytes, now: float) -> int:
        """Returns how often complaints of this client were refuted lately."""
        times, last = self._doubts.get(client, (0, -inf))
        return times if now - last < DISBELIEF_LIFETIME else 0


def _put(table: dict, key: bytes, value: object) -> None:  # type: ignore[type-arg]
    """Adds an entry at the end of a table, whose oldest one makes room."""
    table.pop(key, None)
    if len(table) >= MAXIMUM_REMEMBERED:
        del table[next(iter(table))]
    table[key] = value
