"""What log and loggers are told of jobs that have finished.  `test_jobs.py` has the same with real reports."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, cast

from cexec.system.storage.eventlog import EventLog
from cexec.worker.discovery.alert_sender import AlertedJob
from cexec.worker.discovery.heard import HeardAnnouncements
from cexec.worker.jobs.finished_jobs import FinishedJobs
from cexec.worker.jobs.process_states import CurrentJob
from tests.worker.jobs.scene import NOW, FakeAlerts, finished

if TYPE_CHECKING:
    from cexec.worker.discovery.alert_sender import AlertSender, RunningJob


def job(number: int, *, ran: bool = True) -> CurrentJob:
    told = AlertedJob(bytes(16), 1, "client", "10.0.0.1", "10.0.0.2")
    made = CurrentJob(number.to_bytes(16, "big"), told, {"job": number}, NOW)
    if ran:
        made.program_started(cast("RunningJob", f"alert {number}"))
    return made


class Rig:
    """The finished jobs of a worker with two applications."""

    def __init__(self) -> None:
        self.alerts = [FakeAlerts(), FakeAlerts()]
        self.log = io.StringIO()
        log = EventLog(self.log, as_json=True)
        self.jobs = FinishedJobs(cast("list[AlertSender]", self.alerts), HeardAnnouncements(), log)

    def logged(self) -> list[tuple[int, int]]:
        lines = [json.loads(line) for line in self.log.getvalue().splitlines()]
        return [(line["job"], line["status"]) for line in lines if line["event"] == "finished"]


def test_each_is_told_once_to_the_log_and_to_its_application() -> None:
    rig = Rig()
    rig.jobs.add(job(1), finished(status=3), 0)
    rig.jobs.add(job(2), finished(), 1)
    assert rig.logged() == []  # not before slots have been given away
    assert rig.jobs.tell(NOW) and not rig.jobs.tell(NOW)
    assert rig.logged() == [(1, 3), (2, 0)]
    assert [alerts.ended_jobs for alerts in rig.alerts] == [[("alert 1", 3)], [("alert 2", 0)]]


def test_a_job_that_was_lost_is_alerted_without_a_status_if_it_ran() -> None:
    rig = Rig()
    rig.jobs.lost(job(1, ran=False), 0, NOW)
    assert not rig.jobs.tell(NOW)
    rig.jobs.lost(job(2), 1, NOW + 1.0)
    assert rig.jobs.tell(NOW + 1.0) and not rig.jobs.tell(NOW + 1.0)
    assert [alerts.ended_jobs for alerts in rig.alerts] == [[], [("alert 2", None)]]
    assert rig.logged() == []  # the log has the loss of its connection
