"""One attempt as it is carried out: its job, its files, its lease, and in the end how it ended.

Contract: `TaskRun` holds what belongs to the attempt.  Whoever carries it out sets `ending`; `outcome` makes of that
what is saved if the attempt counts.  `cancel` ends the program by the signals of --term-seq, and then the connection,
unless the program's end has come meanwhile.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from cexec.cmap.inputs.tasks import STDERR
from cexec.cmap.results.attempt_files import last_line, last_lines
from cexec.cmap.results.outcome import TaskOutcome
from cexec.cmap.run.ending import How
from cexec.cmap.run.policy import KILL
from cexec.cmap.run.task_attempt import AttemptState

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cexec.client.aio.lease import Lease
    from cexec.client.aio.lease_job import LeaseJob
    from cexec.cmap.inputs.tasks import Task
    from cexec.cmap.results.attempt_files import AttemptFiles
    from cexec.cmap.results.collect import Live
    from cexec.cmap.run.ending import AttemptEnding
    from cexec.cmap.run.observer import Running
    from cexec.cmap.run.task_attempt import TaskAttempt


class TaskRun:
    """`job` is None if it could not be made.  `owner` is the coroutine that carries the attempt out."""

    def __init__(self, attempt: TaskAttempt, task: Task, files: AttemptFiles, running: Running) -> None:
        self.attempt = attempt
        self.task = task
        self.files = files
        self.running = running  # for the observers
        self.job: LeaseJob | None = None
        self.lease: Lease | None = None
        self.owner: asyncio.Task[None] | None = None
        self.cancelled = False  # the owner has been told to stop
        self.unwanted = False  # it was to be ended while it waited behind another one
        self.returned = False  # the program has succeeded, and --validate looks at its result
        self.live: Live | None = None
        self.journal_row = 0
        self.started = time.time()  # for people; the clock may be set while the task runs
        self._begun = time.monotonic()
        self.ending: AttemptEnding | None = None
        self._over: asyncio.Future[None] | None = None  # for `cancel`
        self._ended = False

    def turn_came(self) -> None:
        """Begins to count its time: it has waited behind another one until now."""
        self.started, self._begun = time.time(), time.monotonic()

    @property
    def recalled(self) -> bool:
        """True if it waits behind another one, and must not begin now."""
        return self.attempt.state is AttemptState.RECALLED

    def recall(self) -> None:
        """Asks the worker for it; without an effect if it has begun meanwhile."""
        if self.lease is not None and self.job is not None:
            self.lease.take_back(self.job)

    @property
    def received(self) -> int:
        """Counts the bytes that have come back so far."""
        size = 0
        for output in self.files.outputs.values():
            size += output.size
        return size

    def missing(self) -> dict[str, str]:
        """Returns the names of the files that did not come, and why."""
        assert self.job is not None
        missing = self.job.missing
        return {s.name: missing[s.number] for s in self.job.streams if s.number in missing} if missing else {}

    def add_last_words(self) -> None:
        """Adds the last line of the program's standard error to the reason why it failed."""
        ending = self.ending
        if ending is not None and ending.how is How.FAILED and ending.status > 0 and not ending.rejected:
            line = last_line(self.files.outputs[STDERR])
            ending.reason += f": {line}" if line else ""

    def outcome(self, ending: AttemptEnding, reason: str, command: Callable[[], str]) -> TaskOutcome:
        """Returns what is saved of the task; `reason` is the scheduler's, empty after a success."""
        return TaskOutcome(
            self.task.number,
            succeeded=not reason,
            command=command,
            worker=self.running.worker.name,
            started=self.started,
            runtime=time.monotonic() - self._begun,
            sent=ending.sent,
            received=ending.received,
            exitval=ending.exitval,
            signal=ending.signal,
            reason=reason,
            rejected=ending.rejected,
            last_words=last_lines(self.files.outputs.get(STDERR)) if reason else (),
        )

    async def cancel(self, sequence: Sequence[tuple[int, float]]) -> None:
        """Sends each signal and waits as long as the sequence says; hangs up on a program that does not end.

        An attempt may have ended before this begins, and its lease may carry the next task already.
        """
        if self._ended:
            return
        if self.attempt.waits:
            self.unwanted = True  # should it begin all the same
            if self.lease is not None and self.job is not None:
                self.lease.take_back(self.job)
            return
        self._over = asyncio.get_running_loop().create_future()
        for number, wait in sequence:
            if self.lease is not None and self.job is not None:
                self.lease.signal(number, self.job)
            done, _ = await asyncio.wait([self._over], timeout=wait)
            if done or number == KILL:
                break
        late = self.returned and self.attempt.state is AttemptState.TIMED_OUT  # a success that is late is one
        if late or self._over.done() or self.owner is None or self._concluded():
            return
        self.cancelled = True
        self.owner.cancel()

    def _concluded(self) -> bool:
        return self.lease is not None and self.job is not None and self.lease.conclude(self.job)

    def end(self) -> None:
        """Says that the attempt is over: nothing more comes, and it needs no cancelling."""
        self._ended = True
        if self.live is not None:
            self.live.end()
        if self._over is not None and not self._over.done():
            self._over.set_result(None)

    def discard(self) -> None:
        """Throws away what the attempt has written."""
        if self.job is not None:
            self.job.close()
        self.files.discard()
