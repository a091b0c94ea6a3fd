"""The events by which the scheduler of a run says what its owner has to do, or what it has decided.

Contract: values; `Scheduler.next_event` returns them in their order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cexec.cmap.run.task_attempt import TaskAttempt


@dataclass(slots=True)
class Cancel:
    """End this attempt, then say that it has `ended`.  `began`: its program runs."""

    attempt: TaskAttempt
    began: bool

    @property
    def reason(self) -> str:
        return self.attempt.reason


@dataclass(slots=True)
class Recall:
    """Ask for this attempt, which waits behind another one; if it begins all the same, it goes on."""

    attempt: TaskAttempt


@dataclass(slots=True)
class Settled:
    """A task is over.  `attempt` is the one whose outputs count; `reason` is empty after a success."""

    attempt: TaskAttempt
    reason: str

    @property
    def task(self) -> int:
        return self.attempt.task
