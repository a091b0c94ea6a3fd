"""Decides whether a task is tried again, and where; keeps what has happened to it, and the tasks that wait.

Contract: pure.  A `TaskRecord` belongs to a task that has begun and is not over; `note` adds an attempt that did not
succeed, and `has_failed` says that there is no further one.  The `RetryQueue` holds the tasks that wait, the one that
was added first is given out first.

- A task whose program failed, was refused by --validate or took too long is tried again, up to `retries` times in all,
  on a worker on which it has not failed, as long as there is one.  At the beginning of a run a task that has failed on
  all known workers waits for a moment, because others may be about to answer.
- A task whose worker was lost is tried again elsewhere; when `crash_limit` workers were lost while it ran there alone,
  it has failed.  A loss that it shared with other tasks does not count, because any of them may be the cause.  After
  `SUSPICIOUS` losses of either kind it is suspect: it runs on a worker that has nothing else to do, so that the next
  loss tells.
- A task that a worker refused, or did not begin before it was lost, is tried again elsewhere; after `MAXIMUM_REFUSALS`
  it has failed, at once if it could not even be offered (REFUSED_FOR_GOOD).  A worker that is UNFIT does not count, and
  one that took its offer back counts only after `MAXIMUM_WITHDRAWALS`, because nobody is at fault.  So does one that
  was lost while the task waited there behind another one.
- What a service with --once has begun is never tried again, for any reason.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from cexec.client.attempt.repetition import MAXIMUM_REFUSALS, MAXIMUM_WITHDRAWALS
from cexec.cmap.run.ending import How

if TYPE_CHECKING:
    from collections.abc import Callable

    from cexec.cmap.run.ending import AttemptEnding
    from cexec.cmap.run.policy import Policy
    from cexec.cmap.run.task_attempt import TaskAttempt

SUSPICIOUS = 2  # losses (ours): workers die without any task's doing, but seldom twice under the same one


class TaskRecord:
    """`once`: a service that must not run a job twice has begun it.  `reason`: that of the last attempt."""

    __slots__ = (
        "attempts", "crashes", "failed_on", "failures", "once", "reason", "refusals", "running", "shared_losses",
        "withdrawals",
    )  # fmt: skip

    def __init__(self) -> None:
        self.once = False
        self.reason = ""
        self.attempts = self.failures = self.crashes = self.shared_losses = self.refusals = self.withdrawals = 0
        self.failed_on: set[str] = set()
        self.running: list[TaskAttempt] = []

    @property
    def losses(self) -> int:
        """Counts the workers that were lost while it ran there, alone or not."""
        return self.crashes + self.shared_losses

    @property
    def suspect(self) -> bool:
        """True if it may be the cause, so that it is to run alone."""
        return self.losses >= SUSPICIOUS

    def note(self, attempt: TaskAttempt, ending: AttemptEnding, *, began: bool, shared: bool = False) -> None:
        """Adds an attempt that has ended without success.

        `began`: its program ran; `shared`: the worker was lost while other tasks ran there.
        """
        self.reason = ending.reason or ending.how.value
        if ending.how is How.WITHDRAWN or ending.waited:
            self.withdrawals += 1
            return
        self.failed_on.add(attempt.worker)
        if ending.how is How.FAILED:
            self.failures += 1
        elif ending.how is How.LOST and shared:
            self.shared_losses += began
        elif ending.how is How.LOST and began:
            self.crashes += 1
        elif ending.how is not How.UNFIT:
            self.refusals += 1

    def has_failed(self, how: How, policy: Policy, *, halted: bool) -> bool:
        """True if the task is not to be tried again; `reason` then says why in full.  `how` its last attempt ended."""
        if how is How.REFUSED_FOR_GOOD or self.failures >= policy.retries or (self.failures and halted):
            return True
        if self.once:
            self.reason += "; this service must not run a task twice (cservice --once)"
        elif policy.crash_limit and self.crashes >= policy.crash_limit:
            lost = "1 worker was" if self.crashes == 1 else f"{self.crashes} workers were"
            self.reason += f"; {lost} lost while it ran alone (--crash-limit)"
        elif self.refusals >= MAXIMUM_REFUSALS:
            self.reason += f"; {self.refusals} workers did not begin it"
        elif self.withdrawals >= MAXIMUM_WITHDRAWALS:
            self.reason += f"; {self.withdrawals} offers were taken back"
        else:
            return False
        return True


class RetryQueue:
    """Thousands of tasks may wait that none of the present workers may have, so a worker looks at each only once."""

    def __init__(self) -> None:
        self._tasks: deque[int] = deque()
        self._additions = 0  # so far
        self._seen: dict[str, int] = {}  # how many additions a worker has looked at without finding a task

    def __len__(self) -> int:
        return len(self._tasks)

    def add(self, task: int) -> None:
        self._tasks.append(task)
        self._additions += 1

    def take(self, worker: str, may_have: Callable[[int], bool]) -> int | None:
        """The first task that this worker may have."""
        if self._tasks:
            for place in range(min(len(self._tasks), self._additions - self._seen.get(worker, 0)), 0, -1):
                task = self._tasks[-place]
                if may_have(task):
                    del self._tasks[-place]
                    return task
            self._seen[worker] = self._additions
        return None

    def look_again(self) -> None:
        """Workers have come or gone, so `may_have` may say something else."""
        self._seen.clear()

    def clear(self) -> None:
        self._tasks.clear()
