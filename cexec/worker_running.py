"""The parent's side of a running job: its process, and the socket over which that reports.

Contract: `RunningJob.fork` returns in the parent only; the child runs the job and never returns.  `reports()` gives
what has come, and `ended` says when the process is gone; nothing here blocks.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from time import monotonic

from cexec.system import leftovers
from cexec.system.pump import Pump
from cexec.worker_job import Program, run_job

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from typing import Any

    from cexec.worker_alerts import Started
    from cexec.worker_heard import Known
    from cexec.worker_offer import Offer

LAST_REPORTS = ("finished", "refused", "broken")
MAXIMUM_REPORT = 4096  # bytes (ours)
FIRST_OWN_DESCRIPTOR = 3


class RunningJob:
    """One job that runs in a process of its own."""

    def __init__(
        self,
        identity: bytes,
        fields: dict[str, object],
        told: dict[str, Any],
        pid: int,
        channel: _socket.socket,
        records: str | None,
    ) -> None:
        """`fields` are for the log, `told` for the loggers."""
        self.identity = identity
        self.fields = fields
        self.pid = pid
        self.started = monotonic()
        self.ended = False
        self.alert: Started | None = None  # what the loggers will be told, while the program runs
        self.told = told
        self._channel = channel
        self._records = records
        self._leader = 0
        self._status = 0  # of the process
        self._concluded = False  # it has said how the job ended

    @classmethod
    def fork(cls, offer: Offer, known: Known, program: Program) -> RunningJob:
        """Starts the job's process; raises `OSError` when the system has no room for one."""
        import socket

        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            pid = os.fork()
        except OSError:
            ours.close()
            theirs.close()
            raise
        if pid == 0:
            _run_child(offer, program, _environment(offer, known), theirs)
        theirs.close()
        ours.setblocking(False)
        return cls(offer.identity, known.fields(), _told(offer, known), pid, ours, program.records)

    def fileno(self) -> int:
        return self._channel.fileno()

    def reports(self) -> list[dict[str, object]]:
        """What the job's process has told since the last call."""
        found: list[dict[str, object]] = []
        while not self.ended:
            try:
                data = self._channel.recv(MAXIMUM_REPORT)
            except BlockingIOError:
                break
            except OSError:
                data = b""
            report: dict[str, Any] = json.loads(data) if data else self._collect()
            self._leader = report.get("pid", self._leader)
            self._concluded = self._concluded or report.get("event") in LAST_REPORTS
            if report:
                found.append(report)
        return found

    def terminate(self) -> None:
        """Ends the job: its process sees our end of the socket closed for writing."""
        import socket

        try:
            self._channel.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it has gone already

    def close(self) -> None:
        """Ends what the process has left, if it died."""
        self._channel.close()
        if self._status:
            leftovers.end_strays(self._leader)
            if self._records is not None:
                leftovers.sweep(self._records)

    def _collect(self) -> dict[str, object]:
        """Reaps the process, which closes its socket when it ends; what it could not report itself."""
        self.ended = True
        try:
            _, self._status = os.waitpid(self.pid, 0)
        except ChildProcessError:
            pass
        if self._concluded or not self._status:
            return {}
        code = os.waitstatus_to_exitcode(self._status)
        how = f"was killed by signal {-code}" if code < 0 else "has failed"
        return {"event": "broken", "reason": f"the job's process {how}"}


def _told(offer: Offer, known: Known) -> dict[str, Any]:
    """What an alert says of the job."""
    announcement = known.opened.announcement
    return {
        "identity": offer.identity,
        "job_id": announcement.job_id,
        "attempt": announcement.attempt,
        "client_name": announcement.certificate.name,
        "client_address": str(offer.client[0]),
        "worker_address": str(offer.connection.getsockname()[0]),
    }


def _environment(offer: Offer, known: Known) -> dict[bytes, bytes]:
    """What belongs to this job only; docs/protocol.md section 4.2 (GO) and cservice(1), ENVIRONMENT."""
    assert offer.go is not None
    local = offer.connection.getsockname()
    announcement = known.opened.announcement
    values = {
        "REMOTE_ADDR": str(offer.client[0]),
        "REMOTE_PORT": str(offer.client[1]),
        "SERVER_ADDR": str(local[0]),
        "SERVER_PORT": str(local[1]),
        "CEXEC_JOB": announcement.job_id.hex(),
        "CEXEC_ATTEMPT": str(announcement.attempt),
        "CEXEC_CLIENT": announcement.certificate.name,
        leftovers.MARK: f"{announcement.job_id.hex()}-{os.urandom(8).hex()}",  # the next attempt may run here too
    }
    result = {name.encode(): value.encode() for name, value in values.items()}
    result.update({b"PEER_" + name.encode(): value for name, value in offer.go.environment.items()})
    return result


def _run_child(offer: Offer, program: Program, extra: dict[bytes, bytes], parent: _socket.socket) -> None:
    """The forked child: has the connection and its end of the socketpair, nothing else of the parent's."""
    status = 111
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # the parent decides when a job ends
        low, high = sorted((offer.connection.fileno(), parent.fileno()))
        for first, last in ((FIRST_OWN_DESCRIPTOR, low), (low + 1, high), (high + 1, 1 << 20)):
            os.closerange(first, last)
        assert offer.go is not None
        run_job(Pump(offer.connection, offer.records, offer.session), offer.go, program, extra, parent)
        status = 0
    except BaseException:
        traceback.print_exc(file=sys.stderr)
    finally:
        os._exit(status)
