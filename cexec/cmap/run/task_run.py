"""One attempt on one worker, from the moment that the worker is to be told of it, and how it ended.

Contract: `TaskRun` holds what belongs to the attempt; `conclude` and the others say how it ended, `outcome` makes of
that what is saved if the attempt counts.
"""

from __future__ import annotations

import time

from cexec.cmap.results.outcome import ENDED_BY_US, Outcome
from cexec.cmap.run.scheduler import FAILED, FAILURE, SUCCEEDED
from cexec.protocol.connection.frames import EXITED, LIMITED, READS, SIGNALLED, WRITES

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from cexec.client.aio.lease import Lease, LeaseJob
    from cexec.cmap.inputs.tasks import Task
    from cexec.cmap.results.attempt_files import AttemptFiles
    from cexec.cmap.results.collect import Live
    from cexec.cmap.run.events import Running
    from cexec.cmap.run.scheduler import Attempt
    from cexec.protocol.connection.frames import Exit

WITHOUT_STATUS = -1  # of an attempt whose program has not told one


class TaskRun:
    """`job` is None if it could not be made.  `owner` is the coroutine that runs it, `over` is done when it has ended.

    `how`, `status` and `reason` are those of `Scheduler.ended`.
    """

    def __init__(
        self, attempt: Attempt, task: Task, files: AttemptFiles, job: LeaseJob | None, running: Running
    ) -> None:
        self.attempt = attempt
        self.task = task
        self.files = files
        self.job = job
        self.running = running
        self.lease: Lease | None = None
        self.owner: asyncio.Task[None] | None = None
        self.over: asyncio.Future[None] | None = None  # for who has to know
        self.live: Live | None = None
        self.cancelled = False  # the coroutine has been told to stop
        self.journal_row = 0
        self.started = time.time()
        self.how = ""
        self.status = WITHOUT_STATUS
        self.reason = ""
        self._rejected = False
        self._exitval, self._signal = ENDED_BY_US, 0
        self._sent = self._received = 0

    def fail(self, how: str, reason: str) -> None:
        """It ended without an exit status."""
        self.how, self.reason = how, reason

    def conclude(self, result: Exit) -> None:
        """The program has ended and all that it wrote has come."""
        assert self.job is not None
        self._sent = sum(e.count for e in result.endings if e.direction == READS)
        self._received = sum(e.count for e in result.endings if e.direction == WRITES)
        self.status = result.exit_status
        self._exitval, self._signal = (0, result.status) if result.kind == SIGNALLED else (self.status, 0)
        missing = {s.name: self.job.missing[s.number] for s in self.job.streams if s.number in self.job.missing}
        if self.status:
            self.how, self.reason = FAILED, _reason(result)
        elif missing:
            self.reject("; ".join(f"cannot fetch {name}: {why}" for name, why in missing.items()))
        else:
            self.how, self.reason = SUCCEEDED, ""

    def reject(self, reason: str) -> None:
        """The program thinks that it has succeeded, but that is not so."""
        self.how, self.reason = FAILED, reason
        self.status = self._exitval = FAILURE
        self._rejected = True

    def outcome(self, reason: str, command: Callable[[], str]) -> Outcome:
        """`reason` is the scheduler's, empty after a success."""
        ended_by_us = self.attempt.timed_out
        return Outcome(
            self.task.number,
            succeeded=not reason,
            command=command,
            worker=self.running.worker,
            started=self.started,
            runtime=time.time() - self.started,
            sent=self._sent,
            received=self._received,
            exitval=ENDED_BY_US if ended_by_us else self._exitval,
            signal=0 if ended_by_us else self._signal,
            reason=reason,
            rejected=self._rejected,
        )

    @property
    def received(self) -> int:
        """Bytes that have come back so far."""
        return sum(output.size for output in self.files.outputs.values())


def _reason(result: Exit) -> str:
    if result.kind == EXITED:
        words = f"exited with {result.status}"
    elif result.kind == LIMITED:
        words = "ran into a limit"
    else:
        words = f"died of signal {result.status}"
    return f"{words}: {result.message}" if result.message else words
