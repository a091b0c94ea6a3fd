"""The parent's side of a process that carries connections, and the socket over which it reports.

Contract: `JobProcess.fork` returns in the parent only; the child takes the connections that it is given, one after the
other, and never returns.  `reports()` gives what has come, and `ended` says when the process is gone; nothing here
blocks.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import traceback

from cexec.system import signal_state
from cexec.system.process import orphans, process
from cexec.worker.jobs import assignment
from cexec.worker.jobs.assignment import Assignment
from cexec.worker.jobs.carrier import AHEAD, ASK, JOBS_AHEAD, LAST, MAXIMUM_REPORT, OFFER
from cexec.worker.jobs.lease import serve

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cexec.net.groups import Sockaddr
    from cexec.worker.discovery.alert_sender import Started
    from cexec.worker.discovery.heard import Known
    from cexec.worker.discovery.offer import Offer
    from cexec.worker.jobs.program import Program

LAST_REPORTS = ("finished", "refused", "broken", "idle", "over", "free")
REPORTS: dict[str, dict[str, type]] = {  # what a process may tell, and the fields of each report
    "taken": {"job": str, "attempt": int},
    "started": {"pid": int},
    "refused": {"reason": str, "everywhere": bool},
    "finished": {
        "status": int, "sent": int, "received": int, "cpu": float, "reason": str, "duration": float, "idle": bool,
        "ahead": bool,
    },
    "broken": {"reason": str},
    "idle": {},
    "over": {"reason": str},
    "free": {},
}  # fmt: skip
JOB_ID_DIGITS = 32  # of "job"
FIRST_OWN_DESCRIPTOR = 3


class ReportError(Exception):
    """A process has told what makes no sense: it is out of order, and nothing that it says counts."""


class JobProcess:
    """A process that runs the jobs of one connection, and then perhaps those of another.

    Before the first job and between two it waits.  `identity` is what the bidder knows the job of this moment by, or
    the wish for one; `announced` is that of the first one, and `taken` says whether the client has given it.  `fields`
    are for the log, `told` for the loggers.
    """

    def __init__(self, pid: int, channel: socket.socket, records: str | None) -> None:
        self.pid = pid
        self.carries = False  # it has a connection
        self.ended = False
        self.alert: Started | None = None  # what the loggers will be told, while the program runs
        self.identity = self.announced = b""
        self.weight = 1
        self.client: Sockaddr = ("", 0)
        self.waiting = False  # its connection has no job at this moment
        self.offered = False  # a slot is reserved for its next one
        self.taken = False
        self.leased = False  # it has waited for another job
        self.ahead = 0  # jobs that it may still offer without a word, at most
        self.started = 0.0
        self.fields: dict[str, object] = {}
        self.told: dict[str, Any] = {}
        self._trusted = False  # it has been told that it may go ahead, and not yet to ask again
        self._name = ""
        self._worker_address = ""
        self._channel = channel
        self._records = records
        self._leader = 0
        self._status: int | None = 0  # of the process; None if it is lost
        self._concluded = True  # it has said how the job ended
        self._disorder = ""  # why nothing counts that it says

    @classmethod
    def fork(cls, program: Program) -> JobProcess:
        """Starts the process; raises `OSError` when the system has no room for one."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            pid = os.fork()
        except OSError:
            ours.close()
            theirs.close()
            raise
        if pid == 0:
            _run_child(program, theirs)
        theirs.close()
        ours.setblocking(False)
        return cls(pid, ours, program.records)

    def give(self, offer: Offer, known: Known, now: float) -> None:
        """A connection for which a slot is reserved; raises `OSError` when the process has gone."""
        announcement = known.opened.announcement
        local = offer.connection.getsockname()
        assignment.send(self._channel, offer.connection, Assignment.of(announcement, offer.client, offer.records))
        self.carries = self.waiting = self.offered = True
        self.taken = self.leased = self._trusted = False
        self.ahead = 0
        self.identity = self.announced = offer.identity
        self.weight = announcement.weight
        self.client = offer.client
        self.started = now
        self._name = announcement.certificate.name
        self._worker_address = str(local[0])
        self._leader = 0
        self._concluded = False
        self._call(announcement.job_id, announcement.attempt)

    def begin(self, identity: bytes, job_id: bytes, attempt: int, now: float) -> None:
        """A job begins."""
        self.identity = identity
        self.waiting = self.offered = False
        self.taken = True
        self.started = now
        self._call(job_id, attempt)

    def _call(self, job_id: bytes, attempt: int) -> None:
        self.fields = {"job": job_id.hex(), "attempt": attempt, "name": self._name}
        self.told = {
            "job_id": job_id,
            "attempt": attempt,
            "client_name": self._name,
            "client_address": str(self.client[0]),
            "worker_address": self._worker_address,
        }

    def wait(self, identity: bytes) -> None:
        """It waits for another job."""
        self.identity = identity
        self.waiting = self.leased = True

    def offer(self) -> None:
        """A slot is reserved for its next job."""
        self.offered = True
        self._say(OFFER)

    def go_ahead(self) -> None:
        """It may offer some jobs without being drawn."""
        if self.leased and self.ahead <= JOBS_AHEAD // 2:
            self.ahead = JOBS_AHEAD
            self._trusted = True
            self._say(AHEAD)

    def ask(self) -> None:
        """It is to wait until it is drawn, as always."""
        if self._trusted:  # whatever we know of how far it has gone
            self.ahead = 0
            self._trusted = False
            self._say(ASK)

    def end(self) -> None:
        """It is to take no further job."""
        self._say(LAST)

    def fileno(self) -> int:
        return self._channel.fileno()

    def reports(self) -> list[dict[str, Any]]:
        """What the job's process has told since the last call."""
        found: list[dict[str, Any]] = []
        while not self.ended:
            try:
                data = self._channel.recv(MAXIMUM_REPORT)
            except BlockingIOError:
                break
            except ConnectionResetError:
                continue  # it has ended without reading a word of ours; what it had said before is still there
            except OSError:
                data = b""
            if not data:
                found += self._collect()
            elif not self._disorder:
                try:
                    report = decode_report(data)
                except ReportError as error:
                    self.distrust(str(error))
                    continue
                self._leader = report.get("pid", self._leader)
                self._concluded = report["event"] in LAST_REPORTS
                found.append(report)
        return found

    def distrust(self, reason: str) -> None:
        """Ends it, because what it says makes no sense; its job is lost, and nothing else."""
        self._disorder = reason
        self._concluded = False
        os.kill(self.pid, signal.SIGKILL)  # it is our child, and reaped only when its socket is closed

    def terminate(self) -> None:
        """Ends it, with the job of this moment: the process sees our end of the socket closed for writing."""
        try:
            self._channel.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it has gone already

    def close(self) -> None:
        """Ends what the process has left, if it died."""
        self._channel.close()
        if self._status != 0:
            orphans.end_strays(self._leader)
            if self._records is not None:
                orphans.sweep(self._records)

    def _say(self, word: bytes) -> None:
        try:
            self._channel.send(word)
        except OSError:
            pass  # it has gone, or is not listening: its end of the socket will tell

    def _collect(self) -> list[dict[str, Any]]:
        """Reaps the process, which closes its socket when it ends; what it could not report itself."""
        self.ended = True
        try:
            _, self._status = os.waitpid(self.pid, 0)
        except ChildProcessError:  # somebody else took its exit status, so it may have been killed
            self._status = None
        if self._concluded or self._status == 0:
            return []
        if self._disorder:
            return [{"event": "broken", "reason": f"the job's process was ended: {self._disorder}"}]
        return [{"event": "broken", "reason": f"the job's process {_end(self._status)}"}]


def _end(status: int | None) -> str:
    """How a process ended that did not end well, in words."""
    if status is None:
        return "has ended, and its exit status is lost"
    code = os.waitstatus_to_exitcode(status)
    return f"was killed by signal {-code}" if code < 0 else "has failed"


def decode_report(data: bytes) -> dict[str, Any]:
    """One report of a process, with exactly its fields; `ReportError` for anything else."""
    try:
        report = json.loads(data.decode())
    except (ValueError, RecursionError):
        raise ReportError("it sent a report that cannot be read") from None
    event = report.get("event") if isinstance(report, dict) else None
    fields = REPORTS.get(event) if isinstance(event, str) else None
    if fields is None or report.keys() != {"event", *fields}:
        raise ReportError("it sent an unknown report")
    if any(type(report[name]) is not kind for name, kind in fields.items()):
        raise ReportError("it sent a report with an impossible value")
    digits = report.get("job", "0" * JOB_ID_DIGITS)
    if len(digits) != JOB_ID_DIGITS or not set(digits) <= set("0123456789abcdef"):
        raise ReportError("it sent a report with an impossible job id")
    return dict(report)


def _run_child(program: Program, parent: socket.socket) -> None:
    """The forked child: has its end of the socketpair, nothing else of the parent's."""
    status = 111
    try:
        process.become_ordinary()
        signal.set_wakeup_fd(-1)
        signal_state.set_at_start()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # the parent decides when a job ends
        os.closerange(FIRST_OWN_DESCRIPTOR, parent.fileno())
        os.closerange(parent.fileno() + 1, 1 << 20)
        serve(program, parent)
        status = 0
    except BaseException:
        traceback.print_exc(file=sys.stderr)
    finally:
        os._exit(status)
