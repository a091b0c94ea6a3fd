"""A worker's side of a process that carries connections, and the memory in which that process notes its reports.

Contract: `channel` is the worker's end of a SOCK_SEQPACKET socketpair; at the other end is `lease.serve`.  It becomes
readable when there are reports to be read.  While `watched` is true it does not, unless one is urgent.  `steps(now)`
yields the reports that have come, each of them after `state` has moved and before the next one is read, so that the
worker's answer to it comes first.  When nothing more can come, `silent` is true: the channel is not to be waited for
any more.  The last step is `Gone`, once the supervisor has said that the process has `ended`.  A report that
`process_states.TRANSITIONS` does not allow costs this process and its job, and nothing else.  Nothing here blocks.
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

from cexec.protocol.datagrams.datagram import MAC1_SIZE
from cexec.worker.discovery.alert_sender import AlertedJob
from cexec.worker.jobs import assignment
from cexec.worker.jobs.assignment import Assignment
from cexec.worker.jobs.process_states import (
    ENDED,
    GONE,
    OFFERED,
    RUNNING,
    SPARE,
    STARTING,
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
from cexec.worker.jobs.report_memory import MOST_NOTES, NoteReader
from cexec.worker.jobs.reports import (
    Idle,
    JobFinished,
    JobRefused,
    Report,
    ReportError,
    Taken,
    Word,
    decode,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cexec.worker.discovery.heard import Known
    from cexec.worker.discovery.offer import Offer
    from cexec.worker.jobs.report_memory import ReportMemory


MAXIMUM_WAKE = 16  # bytes: more than `reports.WAKE` has


class JobProcess:
    """A process that runs the jobs of one connection, and then perhaps those of another.

    `state` is changed by `_move` alone.  `connection` and `job` are those of the moment.  `ticket` is what the bidder
    calls the next job of the connection, from the wish for one until it is given.
    """

    __slots__ = ("_channel", "_credit", "_disorder", "_ended", "_failure", "_kill", "_memory", "_notes", "_tickets",
                 "connection", "job", "no_room", "silent", "state", "ticket")  # fmt: skip

    def __init__(self, channel: socket.socket, memory: ReportMemory, kill: Callable[[], None]) -> None:
        """`kill` kills the process; it does not wait for the end."""
        self.state = SPARE
        self.silent = False
        self.connection: CarriedConnection | None = None
        self.job: CurrentJob | None = None
        self.ticket = b""
        self._credit = Credit()
        self._channel = channel
        self._memory = memory
        self._notes = NoteReader(memory)
        self._tickets = int.from_bytes(os.urandom(MAC1_SIZE), "big") >> 1  # counts up from a number that no other has
        self._kill = kill
        self._ended = False  # as the supervisor has said
        self._failure = ""  # how it ended, in words; empty if it ended well
        self.no_room = ""  # why it was never started
        self._disorder = ""  # the reason why it is being killed; what it sends is not read any more

    def fileno(self) -> int:
        return self._channel.fileno()

    @property
    def carried(self) -> CarriedConnection:
        """The connection, in every state but SPARE."""
        assert self.connection is not None
        return self.connection

    @property
    def watched(self) -> bool:
        """True while it need not wake its worker, which looks at its reports by itself."""
        return self._memory.watched

    @watched.setter
    def watched(self, value: bool) -> None:
        self._memory.watched = value

    @property
    def may_start(self) -> int:
        """Counts the jobs whose programs may start before it reads another word."""
        return self._credit.left + (self.state in (OFFERED, TAKEN, STARTING))

    @property
    def may_go_ahead(self) -> bool:
        """True if `go_ahead` would tell it something."""
        return self.state in (TAKEN, STARTING, RUNNING) and self.carried.leased and self._credit.low()

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
            application=known.application,
            fields=known.fields(),
            latency=offer.latency,
        )

    def offer(self) -> None:
        """Says that a slot is reserved for the next job."""
        if self._allows(Word.OFFER):
            self._move(Word.OFFER)
            self._say(Word.OFFER)

    def withdraw(self) -> None:
        """Says that another client waits for the slot of a job that is offered."""
        if self._allows(Word.WITHDRAW):
            self._say(Word.WITHDRAW)

    def end(self) -> None:
        """Says that no further job is to be taken."""
        if self._allows(Word.LAST):
            self._move(Word.LAST)
            self._say(Word.LAST)

    def refuse_files(self) -> None:
        """Says that the client may send no more files, if the job still takes some."""
        if self._allows(Word.FULL):
            self._say(Word.FULL)

    def tell_wanted(self) -> None:
        """Says that another client waits for the slot of the job, whose client wants to hear that."""
        if self._allows(Word.WANTED):
            self._say(Word.WANTED)

    def go_ahead(self) -> None:
        """Lets a lease that has a job offer some more without being drawn."""
        if self.may_go_ahead:
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
        self._channel.close()

    # the supervisor's words

    def ended(self, status: int | None) -> None:
        """It has ended, with this wait status; None if nobody knows it."""
        self._ended = True
        self._failure = "" if status == 0 else f"the job's process {_end(status)}"

    def not_started(self, reason: str) -> None:
        """There was no room for it."""
        self._ended = True
        self.no_room = reason
        self._failure = f"no process for it: {reason}"

    # its reports

    def steps(self, now: float) -> Iterator[ReportStep]:
        """Yields the reports that have come since the last call, after the moves that follow from them."""
        count = 0
        while self.state is not GONE:
            data = self._notes.read()
            count += 1
            if not data and self._ended:
                yield self._collect()
            elif not data:
                return
            elif count > MOST_NOTES and not self._ended:
                self.distrust("it sends reports without an end")
                return
            elif not self._disorder:
                try:
                    step = self._receive(decode(data), now)
                except ReportError as error:
                    self.distrust(str(error))
                else:
                    yield step

    def woken(self) -> None:
        """Follows the channel, which is readable: the process has reports, or has closed its end."""
        try:
            self.silent = not self._channel.recv(MAXIMUM_WAKE)
        except BlockingIOError:
            pass
        except OSError:
            self.silent = True  # it has ended without reading a word of ours

    def _receive(self, report: Report, now: float) -> ReportStep:
        """Moves as the report says; raises `ReportError`."""
        step = ReportStep(report, self.state, self.connection, self.job, self.ticket)
        self._move(type(report))
        if isinstance(report, Taken):
            step.job = self.job = self._begin(report, now)
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
        carried.fields = {**carried.fields, "job": report.job_id.hex(), "attempt": report.attempt}
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
            self._tickets += 1
            # The bidder does not tell leases and announcements apart.
            self.ticket = self._tickets.to_bytes(MAC1_SIZE, "big")
            self.carried.leased = True
        elif target is ENDED:
            self.ticket = b""  # perhaps another process gets the same announcement before this one has ended
        elif target is SPARE:
            self._credit = Credit()
            self.connection = None

    def distrust(self, reason: str) -> None:
        """Kills it, because what it says makes no sense; its job is lost, and nothing else."""
        self._disorder = reason
        self._kill()

    def _say(self, word: Word) -> None:
        try:
            self._channel.send(word.value)
            self._memory.words = (self._memory.words + 1) & 0xFFFFFFFF
        except OSError:
            pass  # it has gone, or is not listening: its end of the socket will tell

    def _collect(self) -> ReportStep:
        """The last step."""
        before, self.state = self.state, GONE
        # A lease that dies between two jobs takes no job along, and so leaves nothing to explain.
        untold = before in (TAKEN, STARTING, RUNNING) or (before is OFFERED and not self.carried.taken)
        reason = self._failure if untold else ""
        if self._disorder:
            reason = f"the job's process was ended: {self._disorder}"
        return ReportStep(Gone(reason), before, self.connection, self.job, self.ticket)


def _end(status: int | None) -> str:
    """Says in words how a process ended that did not end well."""
    if status is None:
        return "has ended, and its exit status is lost"
    code = os.waitstatus_to_exitcode(status)
    return f"was killed by signal {-code}" if code < 0 else "has failed"
