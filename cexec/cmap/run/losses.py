"""Says whether a worker was lost with one task or with several, of which any may have been the cause.

Contract: pure; `now` is monotonic seconds.  `add` is told of each attempt that was lost with its worker, and returns
true if another attempt of ours was at that worker meanwhile.  The connections of one worker do not break in one moment:
a host that vanishes is noticed on each of them within `ONE_LOSS` seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cexec.cmap.run.task_attempt import AttemptState
from cexec.protocol.connection.silence import LONGEST_SILENCE, LOOK_INTERVAL

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cexec.cmap.run.task_attempt import TaskAttempt

ONE_LOSS = LONGEST_SILENCE + LOOK_INTERVAL  # seconds (ours) between the first and the last connection of a lost worker


@dataclass(slots=True, frozen=True)
class Loss:
    """One attempt that was lost.  `began`: its program ran."""

    task: int
    worker: str
    time: float
    began: bool


class Losses:
    """The losses of one run that may belong together."""

    def __init__(self) -> None:
        self._recent: list[Loss] = []

    def add(self, attempt: TaskAttempt, running: Iterable[TaskAttempt], now: float, *, began: bool) -> bool:
        """`running`: all other attempts of the run.

        Beside a program that ran, one that was only offered counts, because it may have begun.  An attempt that has not
        begun itself shares a loss only with programs that ran: a worker that begins nothing is not lost by a task.
        """
        self._recent = [loss for loss in self._recent if now - loss.time < ONE_LOSS]
        shared = any(
            other.worker == attempt.worker and (began or other.state is not AttemptState.OFFERED) for other in running
        ) or any(
            loss.worker == attempt.worker
            and loss.task != attempt.task
            and loss.time >= attempt.started  # else it was over before this one came
            and (began or loss.began)
            for loss in self._recent
        )
        self._recent.append(Loss(attempt.task, attempt.worker, now, began))
        return shared
