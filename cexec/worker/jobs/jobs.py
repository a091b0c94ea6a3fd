"""All jobs of a worker, from CONFIRM to their end: a process for each connection, which may carry one after the other.

Contract: `start` gives a connection to a process, which may have carried another before; `hear(ready, now)` reads the
reports of the processes and tells the bidder and the log; `tell(now)` does the rest, which can wait until the bidder
has given the free slots away.  A client that has asked for a lease joins the bidder's lottery each time that a job of
its has ended, under a new identity, the ticket; when that is drawn, `offer` lets its process confirm again.
docs/protocol.md section 4.4.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cexec.protocol.datagrams.client_jobs import ClientJob
from cexec.protocol.decisions.bid_events import Outcome
from cexec.system.reason import reason_of
from cexec.worker.discovery.alert_sender import GivenJob
from cexec.worker.jobs import reports
from cexec.worker.jobs.client_files import ClientFiles
from cexec.worker.jobs.finished_jobs import FinishedJobs
from cexec.worker.jobs.lingering import LingeringProcesses, surplus
from cexec.worker.jobs.process_states import (
    BUSY,
    DISMISSED,
    OFFERED,
    SPARE,
    STARTING,
    WAITING,
    CarriedConnection,
    CurrentJob,
    Gone,
    ReportStep,
)
from cexec.worker.jobs.report_looks import ReportLooks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from cexec.protocol.base.certificate import Certificate
    from cexec.protocol.decisions.bid import Bidder
    from cexec.system.storage.eventlog import EventLog
    from cexec.worker.discovery.alert_sender import AlertSender
    from cexec.worker.discovery.heard import HeardAnnouncements, Known
    from cexec.worker.discovery.offer import Offer
    from cexec.worker.jobs.job_process import JobProcess
    from cexec.worker.jobs.supervisor_link import SupervisorLink

MAXIMUM_SPARE = 1  # (ours) processes without a connection that are kept: about 5 MB each
MAXIMUM_WAITING = 16  # (ours) leases without a slot, each of which is a process


class Jobs:
    """The processes of one worker, which its supervisor starts.  `alerts`: of each application, by its index."""

    def __init__(
        self,
        *,
        supervisor: SupervisorLink,
        bidder: Bidder,
        heard: HeardAnnouncements,
        alerts: Sequence[AlertSender],
        log: EventLog,
        most_files: int = 0,
    ) -> None:
        """`most_files`: bytes of files that the jobs of one client may have on disk together, 0 for any number."""
        self.tell_no_room: Callable[[Known, str, float], None] = lambda known, what, now: None
        self._supervisor = supervisor
        self._bidder = bidder
        self._heard = heard
        self._alerts = alerts
        self._log = log
        self._processes: dict[int, JobProcess] = {}  # by descriptor
        self._ending: set[JobProcess] = set()  # those that say nothing more, and of whose end nothing is known yet
        self._spare: list[JobProcess] = []  # those that wait for a connection
        self._leases: dict[bytes, JobProcess] = {}  # by ticket, the longest waiting first
        self._lingering = LingeringProcesses()
        self._files = ClientFiles(most_files)
        self._finished = FinishedJobs(alerts, heard, log)
        self._looks = ReportLooks()
        self._stopping = False

    def __len__(self) -> int:
        return len(self._processes) + len(self._ending)

    @property
    def running(self) -> int:
        """Counts the processes that have a job, or something that is left of one."""
        return sum(process.state in BUSY for process in (*self._processes.values(), *self._ending))

    def of_application(self, application: int, now: float) -> Iterable[ClientJob]:
        """Yields the jobs of this application's clients that run."""
        for process in self._processes.values():
            job, connection = process.job, process.connection
            if job is not None and connection is not None and connection.application == application:
                yield ClientJob(connection.name, str(connection.client[0]), int(now - job.taken_at))

    def filenos(self) -> Iterable[int]:
        """The descriptors to wait for."""
        supervisor = () if self._supervisor.lost else (self._supervisor.fileno(),)
        return (*supervisor, *self._processes)

    def next_timeout(self) -> float | None:
        """When to look at the reports of leases that go ahead and wake nobody."""
        return self._looks.next_timeout()

    def prepare(self) -> None:
        """Has a process started before the first connection comes, which then takes no longer than later ones do."""
        try:
            self._spare.append(self._add())
        except OSError:
            pass  # the first connection needs one, tries again, and says what is wrong

    def start(self, offer: Offer, known: Known, now: float) -> None:
        """Gives a connection for which a slot is reserved to a process, which says CONFIRM and waits for GO."""
        self._expect(known.application, 1)
        process = self._give(offer, known, now)
        if isinstance(process, str):
            self._log.event("failed", **known.fields(), reason=f"no process for it: {process}")
            self.tell_no_room(known, f"another process: {process}", now)
            self._bidder.released(offer.identity, now)
            return
        self._leases[process.ticket] = process

    def _give(self, offer: Offer, known: Known, now: float) -> JobProcess | str:
        """Prefers the process that waits, because all that it needs is in its memory already.

        Returns the process, or why there is none.
        """
        while self._spare:
            process = self._spare.pop()
            try:
                process.give(offer, known)
                return process
            except OSError:
                process.terminate()  # if it has not died
        try:
            process = self._add()
        except OSError as error:
            return reason_of(error)
        try:
            process.give(offer, known)
        except OSError as error:
            process.terminate()
            self._hear_supervisor(now)  # it has said why the process was not started before it closed the channel
            return process.no_room or reason_of(error)
        return process

    def _add(self) -> JobProcess:
        process = self._supervisor.start()
        self._processes[process.fileno()] = process
        return process

    def hear(self, ready: set[int], now: float) -> None:
        """Reads what the processes have to say."""
        for fd in ready.intersection(self._processes):
            process = self._processes[fd]
            process.woken()
            self._read(process, now)
            if process.silent:
                self._processes.pop(fd, None)
                self._ending.add(process)
        for process in self._looks.due(now):
            if not self._read(process, now):
                self._looks.found_nothing(process)
        if self._supervisor.fileno() in ready:
            self._hear_supervisor(now)

    def _hear_supervisor(self, now: float) -> None:
        """Follows the ends of processes that the supervisor tells of."""
        for process in self._supervisor.hear():
            for step in process.steps(now):
                self._follow(process, step, now)

    def _read(self, process: JobProcess, now: float) -> bool:
        """Follows the reports of a process; returns True if there were any."""
        news = False
        for step in process.steps(now):
            news = True
            self._follow(process, step, now)
        if news and process.ahead and process.fileno() in self._processes:
            self._looks.news(process, now)
        return news

    def arrange(self) -> None:
        """Lets leases go on without a word while nobody waits for a slot, because there is nothing to draw then."""
        contended = bool(self._bidder.waiting or self._bidder.penalty)
        for process in self._processes.values():
            if contended:
                process.ask()
            elif not self._stopping and process.may_go_ahead:
                self._expect(process.carried.application, reports.JOBS_AHEAD)
                process.go_ahead()
        for application in range(len(self._alerts)):
            self._expect(application, 0)

    def _expect(self, application: int, more: int) -> None:
        """Notes how many jobs of an application may start without another word of ours, and soon so many `more`."""
        given = (one for one in self._processes.values() if one.connection and one.carried.application == application)
        self._alerts[application].expect(more + sum(process.may_start for process in given))

    def tell(self, now: float) -> bool:
        """Tells log and loggers of the jobs that have finished; last, because clients wait for the slots.

        Returns True if there are new alerts.
        """
        return self._finished.tell(now)

    def stop(self) -> None:
        """Makes the jobs that run the last ones."""
        self._stopping = True
        for process in self._processes.values():
            if process.state is SPARE:
                process.terminate()
            else:
                process.end()

    def terminate(self) -> None:
        """Ends all jobs."""
        for process in self._processes.values():
            process.terminate()
        self._supervisor.end()

    def announced(self) -> set[bytes]:
        """Returns the announcements whose connection a process has."""
        return {process.connection.announced for process in self._processes.values() if process.connection is not None}

    def expel(self, application: int, revoked: Callable[[Certificate], bool]) -> None:
        """Ends the jobs of the application's clients whose certificate has been revoked."""
        for process in self._processes.values():
            connection = process.connection
            if connection is not None and connection.application == application and revoked(connection.certificate):
                self._log.event("revoked", **connection.fields, client=connection.label)
                process.terminate()

    def end_leases(self, application: int) -> None:
        """Makes the jobs that run the last ones of the application's clients, who must ask again."""
        for process in self._processes.values():
            if process.connection is not None and process.connection.application == application:
                process.end()

    # leases

    def leased(self, identity: bytes) -> bool:
        """Returns True if this is the ticket of a lease."""
        return identity in self._leases

    def offer(self, identity: bytes, now: float) -> None:
        """Follows the lottery, which has drawn this ticket."""
        if self._bidder.reserved(identity, now, latency=self._leases[identity].carried.latency):
            self._expect(self._leases[identity].carried.application, 1)
            self._leases[identity].offer()
        else:
            self._bidder.withdrawn(identity, now)

    def withdraw(self, identity: bytes) -> None:
        """Takes a slot back that is reserved for a job; its process tells if the job has come all the same."""
        process = self._leases.get(identity)
        if process is not None:
            process.withdraw()

    def tell_wanted(self, identity: bytes) -> None:
        """Lets a client hear that another one waits for the slot of the job that was given for this ticket."""
        for process in self._processes.values():
            if process.job is not None and process.job.identity == identity:
                process.tell_wanted()

    def end_lease(self, identity: bytes) -> None:
        """Tells a lease that waits that no further job is wanted."""
        self._leases.pop(identity).end()

    def _wait(self, process: JobProcess, now: float) -> None:
        """Lets the bidder know that a client may have another job, before it hears that the last one has finished."""
        self._lingering.drop(process)
        if self._stopping:
            process.end()
        if process.state is DISMISSED:
            return
        self._leases[process.ticket] = process
        origin = process.carried.origin
        self._bidder.leased(process.ticket, process.carried.weight, now, origin.client, origin.family)
        if len(self._leases) > MAXIMUM_WAITING:
            waiting = {ticket: lease.carried.peer for ticket, lease in self._leases.items() if lease.state is WAITING}
            if len(waiting) > MAXIMUM_WAITING:
                self._bidder.forget(surplus(waiting), now)

    def _go_on(self, process: JobProcess, now: float) -> None:
        """Lets the bidder know that a lease goes ahead: the slot of its last job, which has finished, stays its own."""
        if self._stopping:
            process.end()
        self._leases[process.ticket] = process
        carried, origin = process.carried, process.carried.origin
        self._bidder.hold(process.ticket, carried.weight, now, origin.client, origin.family, latency=carried.latency)

    def _let_go(self, step: ReportStep, now: float) -> None:
        """Takes the connection's wish for a job back, if it has one."""
        self._leases.pop(step.ticket, None)
        if step.before is OFFERED:
            self._bidder.released(step.ticket, now)
        elif step.ticket:
            self._bidder.forget(step.ticket, now)

    # reports

    def _follow(self, process: JobProcess, step: ReportStep, now: float) -> None:
        """Does what a report asks for; the process has moved already."""
        report, job, connection = step.report, step.job, step.connection
        if isinstance(report, Gone):
            self._remove(process, step, report, now)
            return
        assert connection is not None  # a process without one has nothing to report
        if isinstance(report, reports.Starting):
            return  # the move says it all
        if isinstance(report, reports.Taken):
            assert job is not None
            self._take(step.ticket, job, connection, now, hears=report.hears)
        elif isinstance(report, reports.ProgramStarted):
            assert job is not None
            self._log.event("started", **job.fields, pid=report.pid)
            job.program_started(self._alerts[connection.application].started(job.told))
        elif isinstance(report, reports.JobFinished):
            assert job is not None
            self._finish(process, job, connection, report, now)
        elif isinstance(report, reports.JobRefused):
            assert job is not None
            self._log.event("refused", **job.fields, reason=report.reason)
            outcome = Outcome.UNFIT if report.unfit else Outcome.REFUSED
            self._bidder.finished(job.identity, outcome, now - job.taken_at, now)
            self._linger(process)
        elif isinstance(report, reports.Stored):
            if not self._files.hold(process, connection.origin.client, report.size):
                process.refuse_files()
        elif isinstance(report, reports.Broken):
            self._log.event("broken", **connection.fields, reason=report.reason)
        elif isinstance(report, reports.Idle):
            self._wait(process, now)
        elif isinstance(report, reports.Over):
            if report.reason:
                self._log.event("lost", **connection.fields, client=connection.label, reason=report.reason)
            if report.released:
                self._acknowledge(connection, now)
            self._let_go(step, now)
        elif isinstance(report, reports.Free):
            if report.released:
                self._acknowledge(connection, now)
            self._conclude(step, now)
            self._keep(process)

    def _take(self, ticket: bytes, job: CurrentJob, connection: CarriedConnection, now: float, *, hears: bool) -> None:
        del self._leases[ticket]
        self._acknowledge(connection, now)  # it has chosen to go on
        self._bidder.started(ticket, now, hears=hears)
        given = GivenJob(ticket, connection.certificate.public_key)
        self._alerts[connection.application].given(job.told, given)
        self._log.event("accepted", **job.fields, client=connection.label)

    def _finish(
        self,
        process: JobProcess,
        job: CurrentJob,
        connection: CarriedConnection,
        report: reports.JobFinished,
        now: float,
    ) -> None:
        if not report.idle:
            self._linger(process)
        elif not report.ahead:
            self._wait(process, now)
        outcome = Outcome.SUCCEEDED if report.status == 0 else Outcome.FAILED
        self._bidder.finished(job.identity, outcome, report.duration, now)
        connection.finished = job
        if report.ahead:
            self._go_on(process, now)
        self._finished.add(job, report, connection.application)

    def _linger(self, process: JobProcess) -> None:
        """Its job is over, and the client has to let go."""
        surplus = self._lingering.add(process)
        if surplus is not None:
            surplus.terminate()

    def _acknowledge(self, connection: CarriedConnection, now: float) -> None:
        """Notes that the client has the result of its last job: it gave another one, or let go."""
        job, connection.finished = connection.finished, None
        if job is not None:
            self._bidder.acknowledged(job.identity, now)
            self._alerts[connection.application].acknowledged(job.told)

    def _keep(self, process: JobProcess) -> None:
        """Lets a process that is free carry another connection, if that is wanted."""
        self._lingering.drop(process)
        self._files.drop(process)
        if self._stopping or len(self._spare) >= MAXIMUM_SPARE:
            process.terminate()
        else:
            self._spare.append(process)

    def _remove(self, process: JobProcess, step: ReportStep, report: Gone, now: float) -> None:
        """Forgets a process that has ended."""
        if report.reason:
            self._log.event("broken", **(step.connection.fields if step.connection else {}), reason=report.reason)
        known = self._heard.get(step.connection.announced) if process.no_room and step.connection else None
        if known is not None:
            self.tell_no_room(known, f"another process: {process.no_room}", now)
        self._processes.pop(process.fileno(), None)
        self._files.drop(process)
        self._ending.discard(process)
        self._looks.drop(process)
        self._lingering.drop(process)
        if process in self._spare:
            self._spare.remove(process)
        self._conclude(step, now)
        process.close()

    def _conclude(self, step: ReportStep, now: float) -> None:
        """The connection has ended, or the process with it: nothing of its jobs is left."""
        self._let_go(step, now)
        if step.connection is not None and step.connection.taken:
            self._heard.forget(step.connection.announced, now)
        job = step.job
        if job is None or step.connection is None:
            return
        self._bidder.finished(job.identity, Outcome.BROKEN, now - job.taken_at, now)
        application = step.connection.application
        if step.before is STARTING:
            # It may have run, and nobody can know any more.
            job.program_started(self._alerts[application].started(job.told))
        self._finished.lost(job, application, now)
