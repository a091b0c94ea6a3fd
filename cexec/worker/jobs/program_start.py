"""How the program of a job is started: its words, its environment, its limits, and the sandbox around it.

Contract: an `Order` says what is to be run.  `spawn` starts it and returns its pid; `OSError` if that is not possible.
docs/protocol.md section 4.2.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cexec.system.process import process
from cexec.worker.jobs.sent_programs import PLACE

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

    @property
    def name(self) -> str:
        """The program's name, for messages and as argv[0]."""
        return os.path.basename(self.program.executable).replace(PLACE, "program")


def spawn(order: Order, limits: Limits, workplace: Workplace, ends: Mapping[int, int]) -> int:
    """`ends`: the program's descriptors.  `workplace` has the group for its memory, if that is limited."""
    program = order.program
    executable, *given = workplace.command([program.executable, *program.arguments])
    arguments: list[bytes | str] = [order.name, *given, *order.go.arguments]
    if program.sandbox is not None:
        words = [executable, *arguments[1:]]
        arguments = program.sandbox.command(words, os.getcwd(), private=workplace.private)
        executable = os.fsdecode(arguments[0])
    environment = {**program.environment, **order.extra}
    if not limits.inherited:
        return process.spawn(executable, arguments, environment, ends)
    return process.spawn(executable, arguments, environment, ends, prepare=lambda: limits.apply(workplace.group))
