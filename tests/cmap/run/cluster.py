"""A scheduler with workers that are letters, and a clock of the test's own.

Contract: `Cluster(tasks, workers, slots=..., **rules)` has the tasks 1, 2, ... and a `Policy` of these rules.  `end`,
`events` and `pass_time` tell what the scheduler says: `(what, task, reason)` with done, failed, cancel or recall.
"""

from __future__ import annotations

from typing import Any

from cexec.cmap.run.ending import AttemptEnding, How
from cexec.cmap.run.policy import Policy
from cexec.cmap.run.scheduler import OTHERS_ANSWER, Scheduler
from cexec.cmap.run.scheduler_events import Cancel, Recall, Settled
from cexec.cmap.run.task_attempt import TaskAttempt


class Cluster:
    """A scheduler with workers a, b, ... of some slots each, and the time."""

    def __init__(self, tasks: int = 3, workers: str = "ab", slots: int = 1, **rules: Any) -> None:
        self.now = 0.0
        policy = Policy(**rules)
        self.scheduler = Scheduler(policy, range(1, tasks + 1), tasks)
        for worker in workers:
            self.scheduler.worker_joined(worker, slots)

    def start(self, worker: str = "a", *, once: bool = False) -> TaskAttempt:
        attempt = self.offer(worker)
        assert attempt is not None
        self.scheduler.began(attempt, self.now, once=once)
        return attempt

    def let_others_answer(self) -> None:
        """Time passes until nobody can be expected to answer that is not known."""
        self.now += OTHERS_ANSWER
        self.scheduler.others_have_answered()

    def offer(self, worker: str) -> TaskAttempt | None:
        return self.scheduler.next_task(worker, self.now)

    def end(
        self, attempt: TaskAttempt, how: How = How.SUCCEEDED, *, reason: str = "", status: int = 1
    ) -> list[tuple[str, int, str]]:
        self.scheduler.ended(attempt, AttemptEnding(how, reason, status=status), self.now)
        return self.events()

    def events(self) -> list[tuple[str, int, str]]:
        found = []
        while (event := self.scheduler.next_event()) is not None:
            if isinstance(event, Settled):
                assert event.task == event.attempt.task
                found.append(("failed" if event.reason else "done", event.task, event.reason))
            elif isinstance(event, Recall):
                found.append(("recall", event.attempt.task, ""))
            else:
                assert isinstance(event, Cancel)
                found.append(("cancel", event.attempt.task, event.reason))
        return found

    def run(self, worker: str = "a", seconds: float = 1.0) -> None:
        """A task from its start to its success."""
        attempt = self.start(worker)
        self.now += seconds
        self.end(attempt)

    def pass_time(self, seconds: float) -> list[tuple[str, int, str]]:
        self.now += seconds
        self.scheduler.handle_timeout(self.now)
        return self.events()
