"""The jobs that have finished, of which log and loggers have yet to be told: slots come first.

Contract: `add` and `lost` are told of ends as they come; `tell` writes to the log, and makes the alerts.
docs/protocol.md section 5.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cexec.system.storage.eventlog import EventLog
    from cexec.worker.discovery.alert_sender import AlertSender
    from cexec.worker.discovery.heard import HeardAnnouncements
    from cexec.worker.jobs.process_states import CurrentJob
    from cexec.worker.jobs.reports import JobFinished


@dataclass(slots=True)
class EndedJob:
    """A job that has finished."""

    job: CurrentJob
    report: JobFinished
    application: int


class FinishedJobs:
    """Those of one worker.  `alerts`: of each application, by its index."""

    def __init__(self, alerts: Sequence[AlertSender], heard: HeardAnnouncements, log: EventLog) -> None:
        self._alerts = alerts
        self._heard = heard
        self._log = log
        self._untold: list[EndedJob] = []
        self._alerted = False  # there is an alert about a job that was lost

    def add(self, job: CurrentJob, report: JobFinished, application: int) -> None:
        self._untold.append(EndedJob(job, report, application))

    def lost(self, job: CurrentJob, application: int, now: float) -> None:
        """A job that has started was lost with its process."""
        if job.alert is not None:
            self._alerts[application].ended(job.alert, now, status=None, duration=now - job.taken_at)
            self._alerted = True

    def tell(self, now: float) -> bool:
        """Returns True if there are new alerts."""
        untold, self._untold = self._untold, []
        news, self._alerted = self._alerted or bool(untold), False
        for ended in untold:
            job, report = ended.job, ended.report
            self._log.event(
                "finished",
                **job.fields,
                status=report.status,
                sent=report.sent,
                received=report.received,
                cpu=report.cpu,
                reason=report.reason,
            )
            assert job.alert is not None  # it has been RUNNING
            mac1 = self._alerts[ended.application].ended(
                job.alert,
                now,
                status=report.status,
                duration=report.duration,
                received=report.received,
                sent=report.sent,
            )
            self._heard.forget(mac1, now)  # our own alert comes back to us, and need not be opened
        return news
