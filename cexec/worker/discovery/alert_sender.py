"""The alerts of a worker to the loggers, one for every job that it started, and the alerts that it hears.

Contract: `expect` is told how many jobs may start, `given` that a client has given one; `started` gives the job its
number, `ended` makes its alert.
`handle_timeout(now)`, called at `next_timeout`, sends the alerts that are due, until a logger has acknowledged them.
docs/protocol.md section 5.2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from time import monotonic, time
from typing import TYPE_CHECKING

from cexec.errors import ProtocolError
from cexec.protocol.base.limits import MAXIMUM_HOPS
from cexec.protocol.base.token_bucket import TokenBucket
from cexec.protocol.datagrams import alert, datagram
from cexec.protocol.datagrams.alert import Alert, job_key
from cexec.protocol.decisions.alert_delivery import Outbox
from cexec.protocol.decisions.rivals import LIFETIME, RivalWord

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cexec.net.announcer import Announcer
    from cexec.protocol.base.certificate import Certificate
    from cexec.protocol.base.keys import WorkerKey
    from cexec.protocol.datagrams.datagram import Datagram
    from cexec.protocol.decisions.bid import Bidder
    from cexec.system.storage.series import Series

COUNTER_AT = 8  # where a datagram has its transmission counter, docs/protocol.md section 2.1
PASSING_RATE, PASSING_BURST = 10.0, 100.0  # clients' alerts a second (ours), and at once, that are passed on to a group
ALERTS_INTERVAL = 0.02  # seconds (ours) between two times that alerts are sent: each of them wakes all who hear it
MAXIMUM_GIVEN = 1000  # (ours) attempts, given to this worker and not acknowledged, that are remembered


@dataclass(slots=True)
class AlertedJob:
    """Holds what an alert says of the job, its client and the connection."""

    job_id: bytes
    attempt: int
    client_name: str
    client_address: str
    worker_address: str


@dataclass(slots=True)
class RunningJob:
    """A job whose program has started; `number` counts those of this worker."""

    number: int
    told: AlertedJob


@dataclass(slots=True)
class GivenJob:
    """A job that a client has given to this worker: what the bidder calls it, and the client's public key."""

    identity: bytes
    public_key: bytes


class AlertSender:
    """All alerts of one worker, and its ear for those of others."""

    def __init__(
        self,
        *,
        key: WorkerKey,
        instance: bytes,
        series: Series,
        announcer: Announcer,
        bidder: Bidder,
        revoked: Callable[[Certificate], bool] = lambda certificate: False,
    ) -> None:
        """Alerts and acknowledgements whose certificate is `revoked` do not count."""
        self._key = key
        self._instance = instance
        self._series = series
        self._announcer = announcer
        self._bidder = bidder
        self._revoked = revoked
        self._outbox = Outbox()
        self._passing = TokenBucket(PASSING_RATE, PASSING_BURST, monotonic())
        self._running: dict[int, RunningJob] = {}
        self._given: dict[bytes, GivenJob] = {}  # by what alerts call the job

    def given(self, told: AlertedJob, job: GivenJob) -> None:
        """Notes that a client has given a job to this worker: a complaint about it is not made up."""
        if len(self._given) >= MAXIMUM_GIVEN:
            del self._given[next(iter(self._given))]
        self._given[job_key(told.job_id, told.attempt)] = job

    def acknowledged(self, told: AlertedJob) -> None:
        """Notes that the client has the job's result: a complaint about it is not true."""
        self._given.pop(job_key(told.job_id, told.attempt), None)

    def expect(self, count: int) -> None:
        """Notes that so many jobs may start before the next call: if we are killed then, they are a gap for loggers."""
        self._series.reserve(count)

    def started(self, told: AlertedJob) -> RunningJob:
        """Numbers a job whose program has started."""
        job = RunningJob(self._series.take(), told)
        self._running[job.number] = job
        return job

    def ended(
        self, job: RunningJob, now: float, *, status: int | None, duration: float, received: int = 0, sent: int = 0
    ) -> bytes:
        """Sends the alert, and returns its mac1.

        `status` is None if the attempt ended without an exit frame that the client could have got.
        """
        self._running.pop(job.number, None)
        told = job.told
        message = Alert(
            outcome=alert.ABANDONED if status is None else alert.COMPLETED,
            complaint=alert.COMPLAINTS.index("disconnected") if status is None else alert.NO_COMPLAINT,
            certificate=self._key.identity.certificate,
            job_id=told.job_id,
            attempt=told.attempt,
            client_name=told.client_name,
            client_address=told.client_address,
            worker_name=self._key.identity.certificate.name,
            worker_address=told.worker_address,
            instance=self._instance,
            series=self._series.id,
            sequence=job.number,
            running=[number for number in self._running if number < job.number],
            status=status or 0,
            clock=int(time() * 1000),
            duration=round(duration * 1000),
            received=received,
            sent=sent,
        )
        data = alert.encode_alert(self._key, message, MAXIMUM_HOPS)
        self._outbox.add(job.number, data, now)
        return data[datagram.MAC1_START : datagram.INNER_START]

    def hear_acknowledgement(self, parsed: Datagram, host: str = "") -> None:
        """Takes an acknowledgement from a host, which may be one of another worker's alerts."""
        if parsed.kind != datagram.ACKNOWLEDGEMENT:
            return
        try:
            heard, author = alert.unseal_acknowledgement(self._key, parsed.inner)
            if heard.series != self._series.id:
                return
            author.prove(self._key)
        except ProtocolError:
            return
        if not self._revoked(heard.certificate):
            self._outbox.acknowledged(heard.sequences)
            self._announcer.answered(host)

    def hear_alert(self, parsed: Datagram, now: float) -> None:
        """Tells the bidder of complaints about this worker, and how the jobs of rivals ended.

        A client's alert that was sent to this machine alone is passed on to this worker's group, where the loggers are.
        Most alerts change nothing here, and their authors need not be proved: those are left alone.
        """
        try:
            told, author = alert.unseal_alert(self._key, parsed.inner)
            if not self._matters(told, parsed, now):
                return
            author.prove(self._key)
        except ProtocolError:
            return
        if self._revoked(told.certificate):
            return
        self._hear_of_rivals(told, now)
        if told.outcome == alert.COMPLAINT and told.instance == self._instance:
            self._hear_complaint(told, now)
        if _may_be_passed_on(told, parsed) and self._passing.left(now):
            self._passing.spend(1.0)
            self._announcer.send(
                datagram.encode(datagram.ALERT, parsed.mac1, parsed.inner, hops=parsed.hops - 1, counter=parsed.counter)
            )

    def _hear_of_rivals(self, told: Alert, now: float) -> None:
        """Takes what a rival says of a job, or a client that has lost one.

        A complaint about this worker tells of no rival, but ends a claim: if the connection was lost before GO came,
        this worker takes the client's claim for that of a rival.
        """
        job, said_at = job_key(told.job_id, told.attempt), now - _age(told)
        competition = self._bidder.competition
        if told.outcome in (alert.COMPLETED, alert.ABANDONED) and told.instance != self._instance:
            word = RivalWord(
                told.instance,
                job=job,
                completed=told.outcome == alert.COMPLETED,
                succeeded=not told.status,
                clock=told.clock,
                said_at=said_at,
            )
            competition.rival_told(word, now)
        elif told.outcome == alert.COMPLAINT:
            competition.rivals.blamed(told.instance, job=job, said_at=said_at, now=now)

    def _matters(self, told: Alert, parsed: Datagram, now: float) -> bool:
        """Returns False for an alert that is old or our own, or about a job and a worker that nobody here knows of."""
        if _may_be_passed_on(told, parsed) and self._passing.left(now):
            return True
        job, of_ours = job_key(told.job_id, told.attempt), told.instance == self._instance
        if told.outcome == alert.COMPLAINT:
            return (of_ours and job in self._given) or self._bidder.competition.rivals.knows(told.instance, job)
        return told.outcome != alert.GAVE_UP and not of_ours and abs(_age(told)) < LIFETIME

    def _hear_complaint(self, told: Alert, now: float) -> None:
        """Takes the complaint of the client that gave us the job; all others are made up, or copies."""
        key = job_key(told.job_id, told.attempt)
        given = self._given.get(key)
        if given is not None and given.public_key == told.certificate.public_key:
            del self._given[key]
            self._bidder.complained(given.identity, now)

    def next_timeout(self) -> float | None:
        return self._outbox.next_timeout()

    def handle_timeout(self, now: float) -> None:
        for data, copies in self._outbox.due(now):
            self._announcer.send(data[:COUNTER_AT] + copies.to_bytes(2, "big") + data[COUNTER_AT + 2 :])


def _age(told: Alert) -> float:
    """Returns the seconds since an alert was made, if its author's clock is right."""
    return time() - told.clock / 1000


def _may_be_passed_on(told: Alert, parsed: Datagram) -> bool:
    """Returns True for a client's alert that only this process has got."""
    return bool(parsed.unicast and parsed.hops and not told.sequence)


class AlertClock:
    """When alerts are sent: as they are due, but at most once in ALERTS_INTERVAL."""

    __slots__ = ("_alerts", "_due", "_pause")

    def __init__(self, alerts: Sequence[AlertSender], now: float) -> None:
        self._alerts = alerts
        self._due = math.inf
        self._pause = now  # the end of it

    def next_timeout(self) -> float:
        return max(self._due, self._pause)

    def news(self, now: float) -> None:
        """There is a new alert."""
        self._due = now

    def handle_timeout(self, now: float) -> None:
        if now >= self.next_timeout():
            for sender in self._alerts:
                sender.handle_timeout(now)
            self._pause = now + ALERTS_INTERVAL
            dues = (sender.next_timeout() for sender in self._alerts)
            self._due = min((due for due in dues if due is not None), default=math.inf)
