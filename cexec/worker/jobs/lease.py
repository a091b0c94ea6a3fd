"""From CONFIRM to the first job on one connection, and from one job to the next, in the process that carries them.

Contract: `serve` is called in a forked child that owns nothing of the parent's but its end of a socketpair; it returns
when the parent wants no more, or when something has gone wrong, so that nothing of that is left for the next one.
`run_jobs` returns when the client has let go or is lost, when it has no further job, or when the parent wants none.
The parent is told by the reports of `worker.jobs.reports`: those of `worker.jobs.job`, and around the jobs
`Taken`, `Broken`, `Idle`, `Over` and `Free`.
docs/protocol.md sections 3.3 and 4.4.
"""

from __future__ import annotations

import os
from time import monotonic
from typing import TYPE_CHECKING, TypeAlias

from cexec.errors import CexecError, DisconnectedError
from cexec.net.pump import Pump
from cexec.protocol.base.limits import GO_DEADLINE
from cexec.protocol.connection import frames
from cexec.protocol.connection.session import OFFERED, Session
from cexec.system.process import process, process_tree
from cexec.system.process.orphans import MARK, Record
from cexec.worker.jobs.assignment import receive
from cexec.worker.jobs.carrier import Carrier, Orders
from cexec.worker.jobs.job import HELD_BACK, JobRun, NextJob
from cexec.worker.jobs.program_start import Order
from cexec.worker.jobs.reports import Broken, Free, Idle, Over, Taken

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cexec.protocol.connection.frames import Go
    from cexec.system.process.job_group import JobGroup
    from cexec.worker.jobs.program import Program
    from cexec.worker.jobs.worker_link import WorkerLink

    Environment: TypeAlias = Callable[[Go], Mapping[bytes, bytes]]  # what belongs to one job only


def _nothing() -> None:
    """Needs no time."""


def serve(program: Program, parent: WorkerLink, group: JobGroup | None = None) -> None:
    """Carries one connection after the other.  `group`: the control group in which this process lives alone."""
    process.adopt_orphans()
    while (free := _carry(program, parent, group)) is not None:
        parent.tell(free)


def _carry(program: Program, parent: WorkerLink, group: JobGroup | None) -> Free | None:
    """Carries one; returns None if there may be no other.  It is a function, so that keys and buffers go with it."""
    given = receive(parent.channel)
    if given is None:
        return None
    connection, assignment = given
    local = connection.getsockname()
    records = assignment.records()
    pump = Pump(connection, records, Session(worker=True, now=monotonic(), numbered=records.packed))
    try:
        return run_jobs(pump, program, lambda go: assignment.environment(go, local), parent, group)
    finally:
        connection.close()


def run_jobs(
    pump: Pump, program: Program, environment: Environment, parent: WorkerLink, group: JobGroup | None = None
) -> Free | None:
    """Offers to run a job on a new connection; runs it, and those that follow.

    Returns None if something may be left of one of them.
    """
    carrier = Carrier(pump, parent, group)
    marks = Marks(program, group)
    go = _given(carrier, lambda carrier: _offer_first(carrier, meanwhile=marks.begin))
    try:
        while go is not None:
            extra = environment(go)
            carrier.orders.wanted = False  # that was about an earlier job
            job_id, attempt = bytes.fromhex(extra[b"CEXEC_JOB"].decode()), int(extra[b"CEXEC_ATTEMPT"])
            # At once: a program that kills us may do so before it is told that it has started.
            carrier.tell(Taken(job_id, attempt, pump.session.wants_to_hear), quiet=True)
            marks.note(extra)
            go = _run_job(carrier, JobRun(carrier, Order(go, program, extra), marks.record))
    finally:
        marks.close()
        carrier.close()
    return Free(carrier.released) if carrier.clean and not process_tree.reap() else None


def _run_job(carrier: Carrier, job: JobRun) -> Go | None:
    """Returns the client's next job, if there is one; every failure that is not the program's is told as `Broken`."""
    try:
        ready = job.run()
    except CexecError as error:
        carrier.tell(Broken(str(error)))
        carrier.clean = False
        return None
    go = None
    if ready and not job.released:
        if job.announced is NextJob.NOTHING:
            carrier.tell(Idle())
        go = _given(carrier, _offer_first if job.announced is NextJob.AHEAD else _offer)
    else:
        if job.announced is not NextJob.NOTHING:
            carrier.tell(Over("", carrier.released))
            carrier.pump.let_go()
        if job.leased:
            job.hang_up()
    if go is None:
        job.linger()
    return go


def _given(carrier: Carrier, wait: Callable[[Carrier], Go | None]) -> Go | None:
    """Waits for a job; tells the parent if there is none."""
    go, reason = None, ""
    try:
        go = wait(carrier)
    except DisconnectedError:
        pass  # the client has chosen another worker, or gone, and there is no job that has failed
    except CexecError as error:
        reason = str(error)
    if go is None:
        carrier.tell(Over(reason, carrier.released))
    return go


def _offer(carrier: Carrier) -> Go | None:
    """Waits until the parent lets another job be offered, offers it, and waits for that."""
    held_until = monotonic() + HELD_BACK if carrier.pump.held else None
    while not carrier.orders.may_offer:
        if carrier.orders.last:
            _hang_up(carrier)
            return None
        event = carrier.next_word(held_until)
        if event is not None:  # the client lets go: no other frame has a meaning now
            carrier.released = event.kind == frames.RELEASE
            return None
        if held_until is not None and monotonic() >= held_until:
            held_until = None
            carrier.pump.let_go()
    carrier.orders.may_offer = False
    return _offer_first(carrier)


def _offer_first(carrier: Carrier, *, meanwhile: Callable[[], None] = _nothing) -> Go | None:
    """Says CONFIRM, because a slot is reserved, and waits for GO; takes the job that was given in advance instead.

    `meanwhile` is done while the client reads CONFIRM, so that nobody waits for it.
    """
    if carrier.pump.session.ahead is not None:
        go = carrier.pump.session.begin_ahead()
        carrier.pump.let_go()
        carrier.pump.flush()
        return go
    carrier.orders.withdrawn = False  # that was about an earlier offer
    carrier.pump.session.confirm()
    carrier.pump.flush()
    carrier.pump.let_go()
    meanwhile()
    deadline = monotonic() + GO_DEADLINE
    while not carrier.orders.last and not carrier.orders.withdrawn:
        event = carrier.next_word(deadline)
        if event is not None:
            carrier.released = event.kind == frames.RELEASE
            return event.go if event.kind == frames.GO else None
        if monotonic() >= deadline:
            break
    if carrier.orders.withdrawn:
        event = carrier.next_word(monotonic())  # a job that has come already
        if event is not None and event.kind == frames.GO:
            return event.go
    _hang_up(carrier)
    return None


def _hang_up(carrier: Carrier) -> None:
    """Withdraws, so that a client whose GO is under way knows that this worker is not broken."""
    if carrier.pump.session.state == OFFERED:
        carrier.pump.session.withdraw(_why(carrier.orders))
    carrier.hang_up()


def _why(orders: Orders) -> str:
    """Says why there is no job for a client that has waited for one."""
    if orders.last:
        return "worker is stopping"
    return "another client needs the slot" if orders.withdrawn else "client did not answer in time"


class Marks:
    """The record of one connection's jobs: a sweep finds by it what has outlived this process."""

    def __init__(self, program: Program, group: JobGroup | None) -> None:
        self.record: Record | None = None
        self._directory = program.records
        self._group = "" if group is None else group.path

    def begin(self) -> None:
        """Makes the file, unless there is one."""
        if self._directory is None or self.record is not None:
            return
        try:
            self.record = Record(self._directory, job_group=self._group)
        except OSError:
            pass  # the disk is full; the record is needed only if this process is killed

    def note(self, extra: Mapping[bytes, bytes]) -> None:
        """Writes the mark of the job of this moment."""
        self.begin()
        if self.record is not None:
            self.record.begin_job(f"{MARK}={os.fsdecode(extra[MARK.encode()])}")

    def close(self) -> None:
        """Says that nothing is left."""
        if self.record is not None:
            self.record.close()
