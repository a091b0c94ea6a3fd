"""A job whose input is known and whose output is kept until its end: that of `run` and of `map`.

Contract: `outcome` is its `Completed` once it is over, or raises what it ended with; with `check` in its plan
`subprocess.CalledProcessError`.  `expire` gives the error for a job that takes too long, with what it has written.
"""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

from cexec.python.completed import Completed
from cexec.python.errand import Errand, MemorySink

if TYPE_CHECKING:
    from collections.abc import Callable

    from cexec.client.aio.lease import Lease
    from cexec.python.job_plan import JobPlan
    from cexec.system.io.fds import Sink


class WholeErrand(Errand):
    """One job.  `began` is called each time that its program begins."""

    may_wait = True

    def __init__(
        self, plan: JobPlan, ended: Callable[[Errand], None], begins: Callable[[WholeErrand], None] | None = None
    ) -> None:
        super().__init__(plan, ended)
        self._begins = begins
        self._stdout = MemorySink()
        self._stderr = MemorySink()

    def make_sinks(self) -> dict[int, Sink]:
        self._stdout, self._stderr = MemorySink(), MemorySink()
        return {1: self._stdout, 2: self._stderr}

    def began(self, lease: Lease, once: bool) -> None:
        super().began(lease, once)
        if self._begins is not None:
            self._begins(self)

    def outcome(self) -> Completed[Any]:
        """Returns the result, or raises the error."""
        plan = self.plan
        if self.error is not None:
            raise self.error
        stdout, stderr = self._text(self._stdout), self._text(self._stderr)
        if plan.check and self.returncode:
            raise subprocess.CalledProcessError(self.returncode, plan.args, stdout, stderr)
        return Completed(
            plan.args, self.returncode, stdout, stderr, files=self.files, circumstances=self.circumstances()
        )

    def expire(self) -> subprocess.TimeoutExpired:
        """Returns the error for a job that has taken longer than its timeout."""
        assert self.plan.timeout is not None
        return subprocess.TimeoutExpired(
            self.plan.args, self.plan.timeout, bytes(self._stdout.data), bytes(self._stderr.data)
        )

    def _text(self, kept: MemorySink) -> bytes | str:
        """Returns what was written, as text with one kind of line ends if that was asked for."""
        if self.plan.encoding is None:
            return bytes(kept.data)
        text = kept.data.decode(self.plan.encoding, self.plan.errors)
        return text.replace("\r\n", "\n").replace("\r", "\n")
