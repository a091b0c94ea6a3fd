"""How the program of a job is started: its command (`command`), its limits and its terminal.

Contract: an `Order` says what is to be run.  `spawn` starts it and returns its pid; `OSError` if that is not possible.
docs/protocol.md section 4.2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cexec.protocol.connection.terminal_request import INPUT
from cexec.system.io.pseudo_terminal import become_terminal
from cexec.system.process import process
from cexec.worker.jobs.command import command_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cexec.protocol.connection.frames import Go
    from cexec.system.process.resource_limits import Limits
    from cexec.worker.jobs.job_terminal import JobTerminal
    from cexec.worker.jobs.program import Program
    from cexec.worker.jobs.workplace import Workplace


@dataclass(slots=True)
class Order:
    """Says what a job has to do.  `extra` is the part of the environment that is this job's own."""

    go: Go
    program: Program
    extra: Mapping[bytes, bytes]


def spawn(
    order: Order, limits: Limits, workplace: Workplace, ends: Mapping[int, int], terminal: JobTerminal | None = None
) -> int:
    """`ends`: the program's descriptors.  `workplace` has the group for its memory, if that is limited."""
    path, words, environment = command_of(order.program, workplace, order.go, order.extra)
    if terminal is not None:
        environment = terminal.environment(environment)
        if order.program.shell is not None:
            environment[b"SSH_TTY"] = terminal.name.encode()
    elif not limits.inherited:
        return process.spawn(path, words, environment, ends)

    def prepare() -> None:
        if terminal is not None:
            become_terminal(ends[INPUT])
        if limits.inherited:
            limits.apply(workplace.group)

    return process.spawn(path, words, environment, ends, prepare=prepare)
