"""All jobs of a worker, from CONFIRM to their end: a process for each connection, which may carry one after the other.

Contract: `start` gives a connection to a process, which may have carried another before; `hear(ready, now)` takes what
the processes report and passes it on to the bidder and the log; `tell(now)` passes on what can wait until the bidder
has given the free slots away.  A client that has asked for a lease joins the bidder's lottery each time that a job of
its has ended, under a new identity; when that is drawn, `offer` tells its process to confirm again.
docs/protocol.md section 4.4.
"""

from __future__ import annotations

import os

from cexec.net.destinations import address_label
from cexec.protocol.datagrams.datagram import MAC1_SIZE
from cexec.worker.jobs.job_process import JobProcess, ReportError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from cexec.protocol.decisions.bid import Bidder
    from cexec.system.storage.eventlog import EventLog
    from cexec.worker.discovery.alert_sender import AlertSender, Started
    from cexec.worker.discovery.heard import HeardAnnouncements, Known
    from cexec.worker.discovery.offer import Offer
    from cexec.worker.jobs.program import Program

READ_TOGETHER = 0.005  # seconds (ours) between two looks at what leases tell that need no answer
MAXIMUM_SPARE = 1  # (ours) processes without a connection that are kept: about 5 MB each
MAXIMUM_WAITING = 16  # (ours) leases without a slot, each of which is a process; the one that waits longest goes


class Jobs:
    """The processes of one worker."""

    def __init__(
        self, *, program: Program, bidder: Bidder, heard: HeardAnnouncements, alerts: AlertSender, log: EventLog
    ) -> None:
        self._program = program
        self._bidder = bidder
        self._heard = heard
        self._alerts = alerts
        self._log = log
        self._processes: dict[int, JobProcess] = {}  # by descriptor
        self._spare: list[JobProcess] = []  # those that wait for a connection
        self._leases: dict[bytes, JobProcess] = {}  # those that wait for a job, the longest waiting first
        self._untold: list[tuple[dict[str, object], dict[str, Any], Started | None, float]] = []  # that have finished
        self._look_again = 0.0  # when those that go ahead are heard
        self._alerted = False  # the loggers are to be told of a job that was lost
        self._stopping = False

    def __len__(self) -> int:
        return len(self._processes)

    @property
    def running(self) -> int:
        """How many run a job."""
        return sum(process.carries and not process.waiting for process in self._processes.values())

    def filenos(self, now: float) -> Iterable[int]:
        """What to wait for: leases that go ahead now and then only, for each look costs as much as several reports."""
        if now >= self._look_again:
            return self._processes
        return [fd for fd, process in self._processes.items() if not process.ahead]

    def next_timeout(self, now: float) -> float | None:
        """When there is more to wait for."""
        return self._look_again if now < self._look_again else None

    def prepare(self) -> None:
        """A process is there before the first connection, which then waits for nothing that later ones do not."""
        try:
            process = JobProcess.fork(self._program)
        except OSError:
            return  # who needs one will try again, and say so
        self._processes[process.fileno()] = process
        self._spare.append(process)

    def start(self, offer: Offer, known: Known, now: float) -> None:
        """A slot is reserved: a process has the connection from now on, says CONFIRM and waits for GO."""
        try:
            process = self._give(offer, known, now)
        except OSError as error:
            self._log.event(
                "failed", **known.fields(), reason=f"no process for it: {os.strerror(error.errno or 0).lower()}"
            )
            self._bidder.released(offer.identity, now)
            return
        self._leases[process.identity] = process

    def _give(self, offer: Offer, known: Known, now: float) -> JobProcess:
        """To the process that waits, if there is one: all that it needs is in its memory already."""
        while self._spare:
            process = self._spare.pop()
            try:
                process.give(offer, known, now)
                return process
            except OSError:
                process.terminate()  # if it has not died
        process = JobProcess.fork(self._program)
        self._processes[process.fileno()] = process
        try:
            process.give(offer, known, now)
        except OSError:
            process.terminate()
            raise
        return process

    def hear(self, ready: set[int], now: float) -> None:
        """What the processes have to say."""
        for fd in ready.intersection(self._processes):
            process = self._processes[fd]
            if process.ahead:
                self._look_again = now + READ_TOGETHER
            try:
                for report in process.reports():
                    self._follow(process, str(report.pop("event")), report, now)
            except ReportError as error:
                process.distrust(str(error))
            if process.ended:
                del self._processes[fd]
                if process.carries:
                    self._conclude(process, now)
                elif process in self._spare:
                    self._spare.remove(process)
                process.close()

    def arrange(self) -> None:
        """Where nobody waits for a slot there is nothing to draw: leases go on without a word, until somebody does."""
        contended = bool(self._bidder.waiting or self._bidder.penalty)
        for process in self._processes.values():
            if contended:
                process.ask()
            elif process.carries and not process.waiting and not self._stopping:
                process.go_ahead()

    def tell(self, now: float) -> bool:
        """Log and loggers hear of the jobs that have finished; last, because clients wait for the slots.

        Whether there is something new for the loggers.
        """
        untold, self._untold = self._untold, []
        news, self._alerted = self._alerted or bool(untold), False
        for fields, report, alert, duration in untold:
            self._log.event("finished", **fields, **report)
            assert alert is not None  # it has started
            mac1 = self._alerts.ended(
                alert,
                now,
                status=report["status"],
                duration=duration,
                received=report["received"],
                sent=report["sent"],
            )
            self._heard.forget(mac1, now)  # we hear it too, and need not open it
        return news

    def stop(self) -> None:
        """The jobs that run are the last ones."""
        self._stopping = True
        for process in self._processes.values():
            if process.carries:
                process.end()
            else:
                process.terminate()

    def terminate(self) -> None:
        """All jobs are ended."""
        for process in self._processes.values():
            process.terminate()

    # leases

    def leased(self, identity: bytes) -> bool:
        """Whether this is a lease that waits."""
        return identity in self._leases

    def offer(self, identity: bytes, now: float) -> None:
        """The lottery has drawn it."""
        if self._bidder.reserved(identity, now):
            self._leases[identity].offer()
        else:
            self._bidder.withdrawn(identity, now)

    def end_lease(self, identity: bytes) -> None:
        """It is not waited for any more."""
        self._leases.pop(identity).end()

    def _wait(self, process: JobProcess, now: float, *, ahead: bool = False) -> None:
        """Its client may have another job.  The bidder hears of that before it hears that the last one has finished.

        `ahead`: it has offered to run that already.
        """
        if self._stopping:
            process.end()
        if self._stopping and not ahead:
            return
        process.wait(os.urandom(MAC1_SIZE))
        self._leases[process.identity] = process
        self._bidder.leased(process.identity, process.weight, now)
        waiting = [lease for lease in self._leases.values() if not lease.offered]
        if len(waiting) > MAXIMUM_WAITING:
            self._bidder.forget(waiting[0].identity, now)

    def _let_go(self, process: JobProcess, now: float) -> None:
        """It takes no further job."""
        if process.waiting:
            self._leases.pop(process.identity, None)
            if process.offered:
                self._bidder.released(process.identity, now)
            else:
                self._bidder.forget(process.identity, now)
            process.identity = b""  # perhaps another process gets the same announcement before this one has ended

    # reports

    def _accept(self, process: JobProcess) -> None:
        self._alerts.given(process.told["job_id"], process.told["attempt"], process.identity)
        self._log.event("accepted", **process.fields, client=_shown(process))

    def _check(self, process: JobProcess, what: str) -> None:
        """Raises `ReportError` for a report that cannot come now."""
        possible = {
            "taken": process.identity in self._leases,
            "started": process.taken and not process.waiting and process.alert is None,
            "refused": process.taken and not process.waiting and process.alert is None,
            "finished": process.alert is not None,
            "idle": process.taken and not process.waiting and process.alert is None,
        }
        if not process.carries or not possible.get(what, True):
            raise ReportError(f"it told {what!r} at a time when that cannot be")

    def _follow(self, process: JobProcess, what: str, report: dict[str, Any], now: float) -> None:
        if what != "broken":
            self._check(process, what)
        if what == "idle":
            self._wait(process, now)
        elif what == "over":
            if report["reason"]:
                self._log.event("lost", **process.fields, client=_shown(process), reason=report["reason"])
            self._let_go(process, now)
        elif what == "free":
            self._conclude(process, now)
            self._keep(process)
        elif what == "taken":
            del self._leases[process.identity]
            self._bidder.started(process.identity, now)
            process.begin(process.identity, bytes.fromhex(report["job"]), report["attempt"], now)
            self._accept(process)
        elif what == "finished":
            self._finish(process, report, now)
        elif what == "refused":
            outcome = "unfit" if report.pop("everywhere") else "refused"
            self._log.event(what, **process.fields, **report)
            self._bidder.finished(process.identity, outcome, now - process.started, now)
        else:
            self._log.event(what, **process.fields, **report)
            if what == "started":
                process.alert = self._alerts.started(**process.told)

    def _finish(self, process: JobProcess, report: dict[str, Any], now: float) -> None:
        identity, duration, idle, ahead = process.identity, *(report.pop(key) for key in ("duration", "idle", "ahead"))
        if idle:
            self._wait(process, now, ahead=ahead)
        self._bidder.finished(identity, "ok" if report["status"] == 0 else "failed", duration, now)
        if ahead:
            process.ahead -= process.ahead > 0
            process.offered = True
            self._bidder.hold(process.identity, now)
        self._untold.append((process.fields, report, process.alert, duration))
        process.alert = None

    def _keep(self, process: JobProcess) -> None:
        """It can carry another connection."""
        process.carries = False
        process.ahead = 0
        if self._stopping or len(self._spare) >= MAXIMUM_SPARE:
            process.terminate()
        else:
            self._spare.append(process)

    def _conclude(self, process: JobProcess, now: float) -> None:
        """The connection has ended, or the process with it."""
        self._let_go(process, now)
        self._bidder.finished(process.identity, "broken", now - process.started, now)  # if it has not said how
        if process.taken:
            self._heard.forget(process.announced, now)
        if process.alert is not None:
            self._alerts.ended(process.alert, now, status=None, duration=now - process.started)
            process.alert = None
            self._alerted = True


def _shown(process: JobProcess) -> str:
    return address_label(process.client[0], "", process.client[1], 0)
