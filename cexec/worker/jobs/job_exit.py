"""The exit frame of a job: how the program ended, what it used, and the limit that ended it.

Contract: values only; the session adds how the streams ended.  docs/protocol.md section 4.2 (EXIT).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cexec.protocol.connection.frames import EXITED, LIMITED, SIGNALLED, Exit
from cexec.system.process import resource_limits

if TYPE_CHECKING:
    from cexec.system.process.memory_group import MemoryGroup
    from cexec.system.process.resource_limits import Hit, Limits
    from cexec.worker.jobs.job_tree import JobTree


def exit_of(tree: JobTree, limits: Limits, hit: Hit | None, group: MemoryGroup | None) -> Exit:
    """The frame of a program that has ended.  `hit` is the time limit, if that has ended it."""
    status = tree.status or 0
    user, system, memory = tree.usage
    killed = 0 if group is None else group.killed()
    hit = hit or resource_limits.find_hit(limits, status, (user + system) / 1e6, killed)
    message = hit.message if hit else resource_limits.remark(limits, status, killed, group is not None)
    kind, number = (SIGNALLED, os.WTERMSIG(status)) if os.WIFSIGNALED(status) else (EXITED, os.WEXITSTATUS(status))
    if hit is not None:
        kind, number = LIMITED, number if kind == SIGNALLED else hit.signal
    return Exit(
        kind=kind, status=number, endings=[], user_time=user, system_time=system, memory=memory, message=message
    )
