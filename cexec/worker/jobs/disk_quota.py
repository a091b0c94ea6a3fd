"""What one job has on this machine's disk: files of its client, and what its program writes beside them.

Contract: a `DiskQuota` belongs to one job.  `receive(size)` is called before so many bytes of a file are written; it
raises `OSError` (EDQUOT) if the job, or its client with all its jobs, would have more than it may.  `problem` then says
so to the client.  `measure` looks at the private directory while the program runs, a little at a time, and returns the
reason to end the job; `next_timeout` says when.  The worker is told of what the job has by `Stored`, in steps, and
answers FULL.  cservice(1), --disk-limit and --per-client.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING

from cexec.system.io.fds import Sink
from cexec.system.storage.directory_use import DirectoryUse
from cexec.system.units import show_size
from cexec.worker.jobs.reports import Stored

if TYPE_CHECKING:
    from cexec.worker.jobs.carrier import Carrier

LARGEST_STEP = 16 << 20  # bytes (ours) between two reports; so much more may be written before the worker's FULL comes
STEPS = 64  # (ours) reports for what one client may have, if that is less
FIRST_LOOK = 1.0  # seconds (ours) after the program's start: most jobs have ended by then
PAUSE = 20.0  # (ours) times as long as a look takes until the next one, and a second at least


@dataclass(slots=True)
class DiskLimits:
    """Bytes, 0 for no limit.  `job`: of one job's directory; `client`: of the files that one client has sent."""

    job: int = 0
    client: int = 0


class DiskQuota:
    """`limits` are those of the worker."""

    __slots__ = ("_carrier", "_count", "_limits", "_look_at", "_told", "_use", "problem")

    def __init__(self, carrier: Carrier, limits: DiskLimits) -> None:
        self.problem = ""
        self._carrier = carrier
        self._limits = limits
        self._count = 0  # bytes received
        self._told = 0
        self._use: DirectoryUse | None = None
        self._look_at: float | None = None
        carrier.orders.full = False  # a word about an earlier job

    def receive(self, size: int) -> None:
        """So many bytes are about to be written."""
        limits = self._limits
        if limits.job and self._count + size > limits.job:
            self._refuse(f"its files are more than {show_size(limits.job)}, the most that a job may have here "
                         "(cservice --disk-limit SIZE)")  # fmt: skip
        if self._carrier.orders.full or (limits.client and self._count + size > limits.client):
            self._refuse(f"files of this client would take more than {show_size(limits.client)} here; wait for its "
                         "other jobs, or send less (cservice --per-client files=SIZE)")  # fmt: skip
        self._count += size
        step = max(1, min(LARGEST_STEP, limits.client // STEPS))
        if limits.client and self._count - self._told >= step:
            self._tell(self._count)

    def watch(self, path: str) -> None:
        """The program has started, with this directory; from now on that is looked at."""
        if self._limits.job:
            self._use = DirectoryUse(path)
            self._look_at = monotonic() + FIRST_LOOK

    def next_timeout(self) -> float | None:
        return self._look_at

    def measure(self, now: float) -> str:
        """Goes on with a look at the directory if it is time; returns a reason to end the job, or ""."""
        if self._use is None or self._look_at is None or now < self._look_at:
            return ""
        if self._use.advance():
            self._look_at = monotonic() + max(FIRST_LOOK, PAUSE * self._use.seconds)
        if self._use.size <= self._limits.job:
            return ""
        self._look_at = None
        return f"ended because its directory had more than its disk limit of {show_size(self._limits.job)}"

    def leave(self) -> None:
        """The directory has been removed."""
        self._look_at = None
        if self._told:
            self._tell(0)

    def _tell(self, size: int) -> None:
        self._told = size
        self._carrier.tell(Stored(size))

    def _refuse(self, problem: str) -> None:
        self.problem = problem
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))


class QuotaSink(Sink):
    """A file of a job that counts."""

    def __init__(self, fd: int, quota: DiskQuota) -> None:
        super().__init__(fd)
        self._quota = quota

    def write(self, view: memoryview) -> int:
        self._quota.receive(len(view))
        return super().write(view)
