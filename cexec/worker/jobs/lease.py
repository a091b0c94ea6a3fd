"""From CONFIRM to the first job on one connection, and from one job to the next, in the process that carries them.

Contract: `serve` is called in a forked child that owns nothing of the parent's but its end of a socketpair; it returns
when the parent wants no more, or when something has gone wrong, so that nothing of that is left for the next one.
`run_jobs` returns when the client has let go or is lost, when it has no further job, or when the parent wants none.
What the parent has to know goes over `parent` as JSON objects: those of `worker.jobs.job`, `broken`, around the
jobs `idle` (another one may be offered), `taken` (the client has given one) and `over` (there will be none; with a
`reason` if the client was at fault), and `free` (another connection may be given).
docs/protocol.md sections 3.3 and 4.4.
"""

from __future__ import annotations

import os
from time import monotonic

from cexec.errors import CexecError, DisconnectedError
from cexec.net.pump import Pump
from cexec.protocol.base.limits import GO_DEADLINE
from cexec.protocol.connection import frames
from cexec.protocol.connection.session import OFFERED, Session
from cexec.system.process import process, process_tree
from cexec.system.process.orphans import MARK, Record
from cexec.worker.jobs.assignment import receive
from cexec.worker.jobs.carrier import FREE, Carrier
from cexec.worker.jobs.job import HELD_BACK, Job

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping
    from typing import TypeAlias

    from cexec.protocol.connection.frames import Go
    from cexec.worker.jobs.program import Program

    Environment: TypeAlias = Callable[[Go], Mapping[bytes, bytes]]  # what belongs to one job only


def serve(program: Program, parent: socket.socket) -> None:
    """Carries one connection after the other."""
    process.adopt_orphans()
    while _carry(program, parent):
        parent.send(FREE)


def _carry(program: Program, parent: socket.socket) -> bool:
    """Carries one; whether there may be another.  A function of its own, so that keys and buffers go with it."""
    given = receive(parent)
    if given is None:
        return False
    connection, assignment = given
    local = connection.getsockname()
    pump = Pump(connection, assignment.records(), Session(worker=True, now=monotonic()))
    try:
        return run_jobs(pump, program, lambda go: assignment.environment(go, local), parent)
    finally:
        connection.close()


def run_jobs(pump: Pump, program: Program, environment: Environment, parent: socket.socket) -> bool:
    """Offers to run a job on a connection that is new; runs it, and those that follow.

    Whether nothing is left of any of them.
    """
    carrier = Carrier(pump, parent)
    record: Record | None = None
    go = _given(carrier, _offer_first)
    try:
        while go is not None:
            extra = environment(go)
            # At once: a program that kills us may do so before it is told that it has started.
            carrier.tell("taken", job=extra[b"CEXEC_JOB"].decode(), attempt=int(extra[b"CEXEC_ATTEMPT"]))
            record = _marked(record, program, extra)
            go = _run_job(carrier, Job(carrier, go, program, extra, record))
    finally:
        if record is not None:
            record.close()
        carrier.close()
    return carrier.clean and not process_tree.reap()


def _run_job(carrier: Carrier, job: Job) -> Go | None:
    """The client's next job, if there is one; every failure that is not the program's is told as `broken`."""
    try:
        job.run()
    except CexecError as error:
        carrier.tell("broken", reason=str(error))
        carrier.clean = False
        return None
    go = None
    if job.offers and not job.released:
        if not job.announced_idle:
            carrier.tell("idle")
        go = _given(carrier, _offer_first if job.goes_ahead else _offer)
    else:
        if job.announced_idle:
            carrier.tell("over", reason="")
            carrier.let_go()
        if job.leased:
            job.follow_up(carrier.hang_up)
    if go is None:
        job.follow_up(job.linger)
    return go


def _given(carrier: Carrier, wait: Callable[[Carrier], Go | None]) -> Go | None:
    """The job that is waited for; the parent is told if there is none."""
    go, reason = None, ""
    try:
        go = wait(carrier)
    except DisconnectedError:
        pass  # who closes has chosen another worker, or gone, which is no failure of a job
    except CexecError as error:
        reason = str(error)
    if go is None:
        carrier.tell("over", reason=reason)
    return go


def _offer(carrier: Carrier) -> Go | None:
    """Waits until the parent lets another job be offered, offers it, and waits for that."""
    held_until = monotonic() + HELD_BACK if carrier.held else None
    while not carrier.may_offer:
        if carrier.last:
            _hang_up(carrier)
            return None
        if carrier.next_word(held_until) is not None:  # it lets go: nothing else has a meaning now
            return None
        if held_until is not None and monotonic() >= held_until:
            held_until = None
            carrier.let_go()
    carrier.may_offer = False
    return _offer_first(carrier)


def _offer_first(carrier: Carrier) -> Go | None:
    """Says CONFIRM, because a slot is reserved, and waits for GO."""
    carrier.pump.session.confirm()
    carrier.pump.flush()
    carrier.let_go()
    deadline = monotonic() + GO_DEADLINE
    while monotonic() < deadline and not carrier.last:
        event = carrier.next_word(deadline)
        if event is not None:
            return event.go if event.kind == frames.GO else None
    _hang_up(carrier)
    return None


def _hang_up(carrier: Carrier) -> None:
    """This side wants no job, any more: a GO that is under way then has not come to a broken worker."""
    if carrier.pump.session.state == OFFERED:
        carrier.pump.session.withdraw("worker is stopping" if carrier.last else "client did not answer in time")
    carrier.hang_up()


def _marked(record: Record | None, program: Program, extra: Mapping[bytes, bytes]) -> Record | None:
    """What dies with this process is found by the mark of the job of that moment."""
    if program.records is None:
        return None
    mark = f"{MARK}={os.fsdecode(extra[MARK.encode()])}"
    try:
        if record is None:
            return Record(program.records, mark)
        record.add(mark=mark, leader=0, start=0, directory="", group="")
    except OSError:
        pass  # a full disk: what it is for will hardly happen
    return record
