"""Job processes whose clients have their exit frames and do not let go.

Contract: `add` returns the process that has to end because there are too many of them, or None.  It is the one that
waits longest of the client that has the most: the exit frame is on its way, and a client that has it, or whose host
has, loses nothing.  `drop` forgets a process, also one that was not there.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    from cexec.worker.jobs.job_process import JobProcess

T = TypeVar("T")
MAXIMUM_LINGERING = 64  # (ours) processes, about 5 MB each


class LingeringProcesses:
    """They have no slot any more."""

    def __init__(self) -> None:
        self._clients: dict[JobProcess, Hashable] = {}  # the longest waiting first

    def add(self, process: JobProcess) -> JobProcess | None:
        self._clients[process] = process.carried.peer
        if len(self._clients) <= MAXIMUM_LINGERING:
            return None
        first = surplus(self._clients)
        self.drop(first)
        return first

    def drop(self, process: JobProcess) -> None:
        self._clients.pop(process, None)


def surplus(clients: Mapping[T, Hashable]) -> T:
    """Returns the first one of the client that has the most."""
    ((worst, _),) = Counter(clients.values()).most_common(1)
    return next(one for one, client in clients.items() if client == worst)
