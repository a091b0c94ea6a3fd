"""How the program of a job is started: its command (`command`) and its limits.

Contract: an `Order` says what is to be run.  `spawn` starts it and returns its pid; `OSError` if that is not possible.
docs/protocol.md section 4.2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cexec.system.process import process
from cexec.worker.jobs.command import command_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cexec.protocol.connection.frames import Go
    from cexec.system.process.resource_limits import Limits
    from cexec.worker.jobs.program import Program
    from cexec.worker.jobs.workplace import Workplace


@dataclass(slots=True)
class Order:
    """Says what a job has to do.  `extra` is the part of the environment that is this job's own."""

    go: Go
    program: Program
    extra: Mapping[bytes, bytes]


def spawn(order: Order, limits: Limits, workplace: Workplace, ends: Mapping[int, int]) -> int:
    """`ends`: the program's descriptors.  `workplace` has the group for its memory, if that is limited."""
    command = command_of(order.program, workplace, order.go, order.extra)
    if not limits.inherited:
        return process.spawn(*command, ends)
    return process.spawn(*command, ends, prepare=lambda: limits.apply(workplace.group))
