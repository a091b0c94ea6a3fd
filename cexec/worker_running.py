"""The parent's side of a job's process, which may carry one job after the other, and the socket over which it reports.

Contract: `JobProcess.fork` returns in the parent only; the child runs the jobs and never returns.  `reports()` gives
what has come, and `ended` says when the process is gone; nothing here blocks.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback

from cexec.system import leftovers, process
from cexec.system.pump import Pump
from cexec.worker_carrier import LAST, OFFER
from cexec.worker_job import Program, is_leased
from cexec.worker_lease import run_jobs

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from typing import Any

    from cexec.protocol.frames import Go
    from cexec.worker_alerts import Started
    from cexec.worker_heard import Known
    from cexec.worker_offer import Offer

LAST_REPORTS = ("finished", "refused", "broken", "idle", "over")
MAXIMUM_REPORT = 4096  # bytes (ours)
FIRST_OWN_DESCRIPTOR = 3


class JobProcess:
    """A process that runs the jobs of one connection.  Between two jobs it waits in the bidder's lottery.

    `identity` is what the bidder knows the job of this moment by, or the wish for another one; `announced` is that of
    the first one.  `fields` are for the log, `told` for the loggers.
    """

    def __init__(
        self, offer: Offer, known: Known, pid: int, channel: _socket.socket, records: str | None, now: float
    ) -> None:
        assert offer.go is not None
        announcement = known.opened.announcement
        self.identity = self.announced = offer.identity
        self.weight = announcement.weight
        self.client = offer.client
        self.pid = pid
        self.waiting = False  # it runs no job
        self.offered = False  # a slot is reserved for its next one
        self.ended = False
        self.alert: Started | None = None  # what the loggers will be told, while the program runs
        self._name = announcement.certificate.name
        self._worker_address = str(offer.connection.getsockname()[0])
        self._channel = channel
        self._records = records
        self._leader = 0
        self._status = 0  # of the process
        self._concluded = False  # it has said how the job ended
        self.begin(offer.identity, *_numbers(offer.go, known), now)

    @classmethod
    def fork(cls, offer: Offer, known: Known, program: Program, now: float) -> JobProcess:
        """Starts the process; raises `OSError` when the system has no room for one."""
        import socket

        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            pid = os.fork()
        except OSError:
            ours.close()
            theirs.close()
            raise
        if pid == 0:
            _run_child(offer, known, program, theirs)
        theirs.close()
        ours.setblocking(False)
        return cls(offer, known, pid, ours, program.records, now)

    def begin(self, identity: bytes, job_id: bytes, attempt: int, now: float) -> None:
        """A job begins."""
        self.identity = identity
        self.waiting = self.offered = False
        self.started = now
        self.fields: dict[str, object] = {"job": job_id.hex(), "attempt": attempt, "name": self._name}
        self.told: dict[str, Any] = {
            "job_id": job_id,
            "attempt": attempt,
            "client_name": self._name,
            "client_address": str(self.client[0]),
            "worker_address": self._worker_address,
        }

    def wait(self, identity: bytes) -> None:
        """It waits for another job."""
        self.identity = identity
        self.waiting = True

    def offer(self) -> None:
        """A slot is reserved for its next job."""
        self.offered = True
        self._say(OFFER)

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
            except OSError:
                data = b""
            for report in json.loads(data) if data else self._collect():
                self._leader = report.get("pid", self._leader)
                self._concluded = report["event"] in LAST_REPORTS
                found.append(report)
        return found

    def terminate(self) -> None:
        """Ends it, with the job of this moment: the process sees our end of the socket closed for writing."""
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
        except ChildProcessError:
            pass
        if self._concluded or not self._status:
            return []
        code = os.waitstatus_to_exitcode(self._status)
        how = f"was killed by signal {-code}" if code < 0 else "has failed"
        return [{"event": "broken", "reason": f"the job's process {how}"}]


def _numbers(go: Go, known: Known) -> tuple[bytes, int]:
    """What a job is called: as its GO says in a lease, where one announcement has many; else as was announced."""
    announced = known.opened.announcement
    return (go.job_id, go.attempt) if is_leased(go) else (announced.job_id, announced.attempt)


def _environment(offer: Offer, known: Known, go: Go) -> dict[bytes, bytes]:
    """What belongs to one job only; docs/protocol.md section 4.2 (GO) and cservice(1), ENVIRONMENT."""
    local = offer.connection.getsockname()
    job_id, attempt = _numbers(go, known)
    values = {
        "REMOTE_ADDR": str(offer.client[0]),
        "REMOTE_PORT": str(offer.client[1]),
        "SERVER_ADDR": str(local[0]),
        "SERVER_PORT": str(local[1]),
        "CEXEC_JOB": job_id.hex(),
        "CEXEC_ATTEMPT": str(attempt),
        "CEXEC_CLIENT": known.opened.announcement.certificate.name,
        leftovers.MARK: f"{job_id.hex()}-{os.urandom(8).hex()}",  # the next attempt may run here too
    }
    result = {name.encode(): value.encode() for name, value in values.items()}
    result.update({b"PEER_" + name.encode(): value for name, value in go.environment.items()})
    return result


def _run_child(offer: Offer, known: Known, program: Program, parent: _socket.socket) -> None:
    """The forked child: has the connection and its end of the socketpair, nothing else of the parent's."""
    status = 111
    try:
        process.become_ordinary()
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # the parent decides when a job ends
        low, high = sorted((offer.connection.fileno(), parent.fileno()))
        for first, last in ((FIRST_OWN_DESCRIPTOR, low), (low + 1, high), (high + 1, 1 << 20)):
            os.closerange(first, last)
        assert offer.go is not None
        pump = Pump(offer.connection, offer.records, offer.session)
        run_jobs(pump, offer.go, program, lambda go: _environment(offer, known, go), parent)
        status = 0
    except BaseException:
        traceback.print_exc(file=sys.stderr)
    finally:
        os._exit(status)
