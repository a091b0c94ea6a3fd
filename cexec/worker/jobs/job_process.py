"""A worker's side of a process that carries connections, and the socket over which that process reports.

Contract: `JobProcess.fork` returns in the worker only; the child takes the connections that it is given, one after the
other, and never returns.  `steps(now)` yields the reports that have come, each of them after `state` has moved and
before the next one is read, so that the worker's answer to it comes first.  The last step is `Gone`.  A report that
`process_states.TRANSITIONS` does not allow costs this process and its job, and nothing else.  Nothing here blocks but
`close` of a process that was killed: it ends what the job has left, for seconds at most.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import traceback
from typing import TYPE_CHECKING

from cexec.protocol.datagrams.datagram import MAC1_SIZE
from cexec.system import signal_state
from cexec.system.io.wakeup import detach
from cexec.system.process import orphans, process
from cexec.worker.discovery.alert_sender import AlertedJob
from cexec.worker.jobs import assignment
from cexec.worker.jobs.assignment import Assignment
from cexec.worker.jobs.lease import serve
from cexec.worker.jobs.process_states import (
    ENDED,
    GONE,
    OFFERED,
    RUNNING,
    SPARE,
    TAKEN,
    WAITING,
    Act,
    CarriedConnection,
    Credit,
    CurrentJob,
    Gone,
    Move,
    ReportStep,
)
from cexec.worker.jobs.reports import (
    MAXIMUM_REPORT,
    Idle,
    JobFinished,
    JobRefused,
    ProgramStarted,
    Report,
    ReportError,
    Taken,
    Word,
    decode,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cexec.worker.discovery.heard import Known
    from cexec.worker.discovery.offer import Offer
    from cexec.worker.jobs.program import Program

FIRST_OWN_DESCRIPTOR = 3  # behind the standard ones
CRASHED = 111  # the exit status of a process that failed, as in cexec(1)


class JobProcess:
    """A process that runs the jobs of one connection, and then perhaps those of another.

    `state` is changed by `_move` alone.  `connection` and `job` are those of the moment.  `ticket` is what the bidder
    calls the next job of the connection, from the wish for one until it is given.
    """

    __slots__ = ("_channel", "_credit", "_disorder", "_records", "_status", "connection", "job", "pid", "state",
                 "ticket")  # fmt: skip

    def __init__(self, pid: int, channel: socket.socket, records: str | None) -> None:
        self.pid = pid
        self.state = SPARE
        self.connection: CarriedConnection | None = None
        self.job: CurrentJob | None = None
        self.ticket = b""
        self._credit = Credit()
        self._channel = channel
        self._records = records
        self._status: int | None = 0  # the wait status; None if somebody else took it
        self._disorder = ""  # the reason why it is being killed; what it sends is not read any more

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

    def fileno(self) -> int:
        return self._channel.fileno()

    @property
    def carried(self) -> CarriedConnection:
        """The connection, in every state but SPARE."""
        assert self.connection is not None
        return self.connection

    @property
    def ahead(self) -> int:
        """Counts the jobs that it may still offer without an OFFER."""
        return self._credit.left

    # the worker's words

    def give(self, offer: Offer, known: Known) -> None:
        """Hands over a connection for which a slot is reserved; raises `OSError` when the process has gone."""
        announcement = known.opened.announcement
        local = offer.connection.getsockname()
        assignment.send(self._channel, offer.connection, Assignment.of(announcement, offer.client, offer.records))
        self._move(Act.GIVE)
        self.ticket = offer.identity
        self._credit = Credit()
        self.connection = CarriedConnection(
            announced=offer.identity,
            weight=announcement.weight,
            client=offer.client,
            origin=known.origin,
            certificate=announcement.certificate,
            worker_address=str(local[0]),
            fields=known.fields(),
        )

    def offer(self) -> None:
        """Says that a slot is reserved for the next job."""
        if self._allows(Word.OFFER):
            self._move(Word.OFFER)
            self._say(Word.OFFER)

    def end(self) -> None:
        """Says that no further job is to be taken."""
        if self._allows(Word.LAST):
            self._move(Word.LAST)
            self._say(Word.LAST)

    def go_ahead(self) -> None:
        """Lets a lease that has a job offer some more without being drawn."""
        if self.state in (TAKEN, RUNNING) and self.carried.leased and self._credit.low():
            self._credit.grant()
            self._say(Word.AHEAD)

    def ask(self) -> None:
        """Takes that back."""
        if self._credit.granted:
            self._credit.revoke()
            self._say(Word.ASK)

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
            orphans.end_strays(0 if self.connection is None else self.connection.leader)
            if self._records is not None:
                orphans.sweep(self._records)

    # its reports

    def steps(self, now: float) -> Iterator[ReportStep]:
        """Yields the reports that have come since the last call, after the moves that follow from them."""
        while self.state is not GONE:
            try:
                data = self._channel.recv(MAXIMUM_REPORT)
            except BlockingIOError:
                return
            except ConnectionResetError:
                continue  # it has ended without reading a word of ours; what it had said before is still there
            except OSError:
                data = b""
            if not data:
                yield self._collect()
            elif not self._disorder:
                try:
                    step = self._receive(decode(data), now)
                except ReportError as error:
                    self._distrust(str(error))
                else:
                    yield step

    def _receive(self, report: Report, now: float) -> ReportStep:
        """Moves as the report says; raises `ReportError`."""
        step = ReportStep(report, self.state, self.connection, self.job, self.ticket)
        self._move(type(report))
        if isinstance(report, Taken):
            step.job = self.job = self._begin(report, now)
        elif isinstance(report, ProgramStarted):
            self.carried.leader = report.pid
        elif isinstance(report, JobFinished):
            if report.idle:
                self._move(Idle)
            if report.ahead:
                self._move(Word.OFFER)
                self._credit.spend()
            self.job = None  # last: a report that is refused leaves the job to be told as broken
        elif isinstance(report, JobRefused):
            self.job = None
        return step

    def _begin(self, report: Taken, now: float) -> CurrentJob:
        carried = self.carried
        carried.taken = True
        carried.fields = {"job": report.job_id.hex(), "attempt": report.attempt, "name": carried.certificate.name}
        told = AlertedJob(
            job_id=report.job_id,
            attempt=report.attempt,
            client_name=carried.certificate.name,
            client_address=str(carried.client[0]),
            worker_address=carried.worker_address,
        )
        job = CurrentJob(identity=self.ticket, told=told, fields=carried.fields, taken_at=now)
        self.ticket = b""
        return job

    def _allows(self, word: Word) -> bool:
        return word in self.state.moves

    def _move(self, what: Move) -> None:
        """Changes the state, which only `_collect` does beside it; raises `ReportError`."""
        target = self.state.moves.get(what)
        if target is None:
            name = what.name if isinstance(what, type) else what.value
            raise ReportError(f"it sent {name!r} while it was {self.state.value}")
        self.state = target
        if target is WAITING:
            self.ticket = os.urandom(MAC1_SIZE)  # the bidder does not tell leases and announcements apart
            self.carried.leased = True
        elif target is ENDED:
            self.ticket = b""  # perhaps another process gets the same announcement before this one has ended
        elif target is SPARE:
            self._credit = Credit()
            self.connection = None

    def _distrust(self, reason: str) -> None:
        """Kills it, because what it says makes no sense; its job is lost, and nothing else."""
        self._disorder = reason
        os.kill(self.pid, signal.SIGKILL)  # it is our child, and not reaped yet: the number is still its own

    def _say(self, word: Word) -> None:
        try:
            self._channel.send(word.value)
        except OSError:
            pass  # it has gone, or is not listening: its end of the socket will tell

    def _collect(self) -> ReportStep:
        """Reaps the process, which closes its socket when it ends."""
        before, self.state = self.state, GONE
        try:
            _, self._status = os.waitpid(self.pid, 0)
        except ChildProcessError:  # somebody else took its exit status, so it may have been killed
            self._status = None
        # A lease that dies between two jobs takes no job along, and so leaves nothing to explain.
        untold = before in (TAKEN, RUNNING) or (before is OFFERED and not self.carried.taken)
        reason = ""
        if self._disorder:
            reason = f"the job's process was ended: {self._disorder}"
        elif untold and self._status != 0:
            reason = f"the job's process {_end(self._status)}"
        return ReportStep(Gone(reason), before, self.connection, self.job, self.ticket)


def _end(status: int | None) -> str:
    """Says in words how a process ended that did not end well."""
    if status is None:
        return "has ended, and its exit status is lost"
    code = os.waitstatus_to_exitcode(status)
    return f"was killed by signal {-code}" if code < 0 else "has failed"


def _run_child(program: Program, parent: socket.socket) -> None:
    """The forked child: it keeps its end of the socketpair, and nothing else of the parent's."""
    status = CRASHED
    try:
        process.become_ordinary()
        detach()
        signal_state.set_at_start()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # the parent decides when a job ends
        os.closerange(FIRST_OWN_DESCRIPTOR, parent.fileno())
        os.closerange(parent.fileno() + 1, 1 << 20)  # more than a limit of descriptors usually is; it costs nothing
        serve(program, parent)
        status = 0
    except BaseException:
        traceback.print_exc(file=sys.stderr)
    finally:
        os._exit(status)
