"""From one job to the next on one connection, in the process that carries them.

Contract: `run_jobs` is called in a forked child that owns the connection and nothing else of the parent's; it returns
when the client has let go or is lost, when it has no further job, or when the parent wants none.  What the parent has
to know goes over `parent` as lists of JSON objects: those of `worker_job`, `broken`, and between two jobs `idle`
(another one may be offered), `taken` (the client has given one) and `over` (there will be none).
docs/protocol.md section 4.4.
"""

from __future__ import annotations

import os
from time import monotonic

from cexec.errors import CexecError
from cexec.protocol import frames
from cexec.protocol.limits import GO_DEADLINE
from cexec.protocol.session import OFFERED
from cexec.system import process
from cexec.system.leftovers import MARK, Record
from cexec.worker_carrier import Carrier
from cexec.worker_job import HELD_BACK, Job

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Callable, Mapping
    from typing import TypeAlias

    from cexec.protocol.frames import Go
    from cexec.system.pump import Pump
    from cexec.worker_job import Program

    Environment: TypeAlias = Callable[[Go], Mapping[bytes, bytes]]  # what belongs to one job only


def run_jobs(pump: Pump, go: Go, program: Program, environment: Environment, parent: _socket.socket) -> None:
    """Runs the job that the client has given, and those that follow."""
    process.adopt_orphans()
    carrier = Carrier(pump, parent)
    record: Record | None = None
    following: Go | None = go
    try:
        while following is not None:
            extra = environment(following)
            record = _marked(record, program, extra)
            following = _run_job(carrier, Job(carrier, following, program, extra, record))
    finally:
        if record is not None:
            record.close()


def _run_job(carrier: Carrier, job: Job) -> Go | None:
    """The client's next job, if there is one; every failure that is not the program's is told as `broken`."""
    try:
        job.run()
    except CexecError as error:
        carrier.tell("broken", reason=str(error))
        return None
    go = None
    if job.offers and not job.released:
        if not job.announced_idle:
            carrier.tell("idle")
        go = _next_job(carrier)
    else:
        if job.announced_idle:
            carrier.tell("over")
            carrier.let_go()
        if job.leased:
            job.follow_up(carrier.hang_up)
    if go is None:
        job.follow_up(job.linger)
    return go


def _next_job(carrier: Carrier) -> Go | None:
    """Waits until the parent lets another job be offered, and offers it."""
    try:
        go = _offer(carrier)
    except CexecError:
        go = None  # what becomes of a client between two jobs is no failure of a job
    if go is None:
        carrier.tell("over")
    else:
        carrier.note("taken", job=go.job_id.hex(), attempt=go.attempt)
    return go


def _offer(carrier: Carrier) -> Go | None:
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
    """The lease ends from this side."""
    if carrier.pump.session.state == OFFERED:
        carrier.pump.session.withdraw("lease has ended")
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
