"""The lines of a logger.  Each begins with the ancestor's text, and fields follow as `key=value`.

Contract: pure but for the wall clock in the lines.  `take` returns the lines for an alert: one closing line for a job
and one `rats out` line for an attempt, however many alerts report it.  If worker and client tell different ends of a
job, because its exit frame was lost, the later one has a closing line, too, which tells both.  `due(now)` closes the
jobs whose client never said how they ended.  Memory is bounded.
"""

from __future__ import annotations

from time import gmtime, strftime, time
from typing import TYPE_CHECKING, NamedTuple

from cexec.protocol.datagrams import alert
from cexec.system.storage.eventlog import escape

if TYPE_CHECKING:
    from cexec.logger.allowances import LeftAlone
    from cexec.protocol.base.certificate import Certificate
    from cexec.protocol.datagrams.alert import Alert
    from cexec.protocol.decisions.ledger import Gap

VANISHED_AFTER = 60.0  # seconds (ours) after an abandoned attempt that a job has to be taken up again
MAXIMUM_JOBS = 50_000  # (ours) that are remembered; the oldest goes
MAXIMUM_ATTEMPTS = 100  # (ours) of one job that have lines; so many ends of it, too
MAXIMUM_ABANDONED = 5000  # jobs (ours) that wait to be taken up again; the oldest has vanished then
MAXIMUM_WORKERS = 4096  # (ours) in the table; the others share one row
OTHERS = "others"


class Line:
    """One line: the ancestor's text, and fields."""

    __slots__ = ("fields", "text")

    def __init__(self, text: str, **fields: object) -> None:
        self.text = text
        self.fields = {"time": strftime("%Y-%m-%dT%H:%M:%SZ", gmtime(time())), **fields}


class _End(NamedTuple):
    """An end of a job that has a closing line."""

    outcome: int
    attempt: int
    status: int
    worker_address: str


class _Job:
    __slots__ = ("attempts", "ends")

    def __init__(self) -> None:
        self.ends: tuple[_End, ...] = ()
        self.attempts: frozenset[int] = frozenset()  # whose failure has been told


class _Abandoned(NamedTuple):
    """An attempt that nobody may take up again: when its job has vanished, and what the line says then."""

    until: float
    told: Alert
    text: str


class Tally:
    """The numbers of one worker."""

    __slots__ = ("abandoned", "complaints", "failed", "jobs", "milliseconds", "received", "sent")

    def __init__(self) -> None:
        self.jobs = self.failed = self.abandoned = self.complaints = 0
        self.milliseconds = self.received = self.sent = 0


class Reporter:
    """All jobs of all applications."""

    def __init__(self) -> None:
        self._jobs: dict[bytes, _Job] = {}
        self._abandoned: dict[bytes, _Abandoned] = {}  # by job, in the order in which they vanish
        self._early: list[Line] = []  # closing lines of jobs that have vanished before their time
        self._tallies: dict[str, Tally] = {}

    def take(self, told: Alert, name: str, source: str, now: float) -> list[Line]:
        """The lines for a genuine alert that came from `source`, about a job of the application called `name`."""
        job = self._job(told.job_id)
        client, worker = _word(told.client_address or source), _word(told.worker_address)
        lines: list[Line] = []
        tally = Tally()  # is not kept if no worker was there
        if told.worker_name:
            tally = self._tally(f"{_word(told.worker_name)}@{worker}")
        if told.outcome == alert.COMPLETED:
            tally.jobs += 1
            tally.failed += told.status != 0
            tally.milliseconds += told.duration
            tally.received += told.received
            tally.sent += told.sent
            lines += self._close(told, job, f"{client} completed by {worker} for {name} exit code {told.status}")
        elif told.outcome == alert.GAVE_UP:
            lines += self._close(told, job, f"{client} gave up for {name}")
        else:
            if told.outcome == alert.COMPLAINT:
                tally.complaints += 1
            else:
                tally.abandoned += 1
                if not job.ends:
                    text = f"{client} vanished from {worker} for {name}"
                    self._abandon(_Abandoned(now + VANISHED_AFTER, told, text))
            if told.attempt not in job.attempts and len(job.attempts) < MAXIMUM_ATTEMPTS:
                job.attempts |= {told.attempt}
                lines.append(Line(f"{client} rats out {worker} for {name}", **_fields(told)))
        return lines

    def due(self, now: float) -> list[Line]:
        """Closing lines of the jobs that nobody took up again."""
        lines, self._early = self._early, []
        while self._abandoned and next(iter(self._abandoned.values())).until <= now:
            lines += self._vanish()
        return lines

    def next_timeout(self) -> float | None:
        return next(iter(self._abandoned.values())).until if self._abandoned else None

    def gap(self, gap: Gap) -> Line:
        count = gap.last - gap.first + 1
        text = f"gap: {count} {'alert' if count == 1 else 'alerts'} of {gap.worker} did not arrive"
        return Line(text, first=gap.first, last=gap.last, worker=gap.worker)

    def left_alone(self, told: LeftAlone) -> Line:
        what = f"{told.alerts} of {told.name} were not written" if told.name else f"{told.alerts} were not read"
        return Line(f"gap: alerts, {what}: {told.reason}", alerts=told.alerts, by=told.name)

    def unknown(self, tag: str, host: str) -> Line:
        return Line(f"{host} alerts for unknown key (0x{tag})")

    def revoked(self, certificate: Certificate, name: str, host: str) -> Line:
        """The line for an alert for the application called `name` that a revoked certificate has signed."""
        text = f"{host} alerts for {name} with a revoked certificate"
        return Line(text, revoked=certificate.name, serial=certificate.serial)

    def table(self) -> list[list[str]]:
        """The statistics, a head line first."""
        rows = [["worker", "jobs", "failed", "abandoned", "complaints", "seconds", "mean", "received", "sent"]]
        for name, tally in sorted(self._tallies.items()):
            seconds = tally.milliseconds / 1000
            rows.append(
                [
                    name, str(tally.jobs), str(tally.failed), str(tally.abandoned), str(tally.complaints),
                    f"{seconds:.1f}", f"{seconds / tally.jobs if tally.jobs else 0:.3f}", str(tally.received),
                    str(tally.sent),
                ]
            )  # fmt: skip
        return rows

    def _abandon(self, abandoned: _Abandoned) -> None:
        self._abandoned.pop(abandoned.told.job_id, None)
        if len(self._abandoned) >= MAXIMUM_ABANDONED:
            self._early += self._vanish()
        self._abandoned[abandoned.told.job_id] = abandoned

    def _vanish(self) -> list[Line]:
        """Closes the job that waits longest to be taken up again."""
        job_id, abandoned = next(iter(self._abandoned.items()))
        return self._close(abandoned.told, self._job(job_id), abandoned.text)

    def _close(self, told: Alert, job: _Job, text: str) -> list[Line]:
        self._abandoned.pop(told.job_id, None)
        if not all(_differs(told, end, job) for end in job.ends) or len(job.ends) >= MAXIMUM_ATTEMPTS:
            return []
        fields = _fields(told)
        if job.ends:
            earlier = job.ends[-1]
            text += f" after {_end_in_words(earlier)}"
            if earlier.outcome == alert.COMPLETED:
                fields.setdefault("status", earlier.status)
        job.ends += (_End(told.outcome, told.attempt, told.status, told.worker_address),)
        return [Line(text, **fields)]

    def _tally(self, worker: str) -> Tally:
        if worker not in self._tallies and len(self._tallies) >= MAXIMUM_WORKERS:
            worker = OTHERS
        return self._tallies.setdefault(worker, Tally())

    def _job(self, job_id: bytes) -> _Job:
        job = self._jobs.get(job_id)
        if job is None:
            if len(self._jobs) >= MAXIMUM_JOBS:
                del self._jobs[next(iter(self._jobs))]
            job = self._jobs[job_id] = _Job()
        return job


def _differs(told: Alert, end: _End, job: _Job) -> bool:
    """Returns True if an alert tells another end of the job than one that has a closing line.

    A job is completed twice if the client has lost the first exit frame and repeated the job.
    """
    if told.outcome != end.outcome:
        return True
    return told.outcome == alert.COMPLETED and told.attempt > end.attempt and end.attempt in job.attempts


def _word(text: str) -> str:
    """Returns a peer's text as one word of a line: a text with spaces is quoted, so that it cannot tell a line."""
    return escape(text) if text else ""


def _end_in_words(end: _End) -> str:
    if end.outcome == alert.COMPLETED:
        return f"{_word(end.worker_address)} completed it with exit code {end.status}"
    return "the client gave up" if end.outcome == alert.GAVE_UP else "the client vanished"


def _fields(told: Alert) -> dict[str, object]:
    fields: dict[str, object] = {
        "job": told.job_id.hex(),
        "attempt": told.attempt,
        "client": told.client_name,
        "worker": told.worker_name,
        "duration": f"{told.duration / 1000:.3f}",
        "received": told.received,
        "sent": told.sent,
    }
    if told.complaint:
        fields["complaint"] = alert.COMPLAINTS[told.complaint]
    if told.outcome == alert.COMPLETED:
        fields["status"] = told.status
    return fields
