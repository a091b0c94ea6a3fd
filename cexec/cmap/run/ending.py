"""Tells how one attempt of a task ended.

Contract: an `AttemptEnding` is a value.  `of_exit` makes one of a worker's exit frame, `rejected` one of a program that
succeeded although its result cannot be used; every other way to end is `AttemptEnding(how, reason)`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from cexec.cmap.results.outcome import ENDED_BY_US
from cexec.protocol.connection.frames import EXITED, LIMITED, SIGNALLED
from cexec.protocol.connection.options import READS, WRITES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cexec.protocol.connection.frames import Exit

WITHOUT_STATUS = -1  # of an attempt whose program has not told an exit status
FAILURE = 1  # exit status (ours) of a task that has none of its own


class How(Enum):
    """The ways in which an attempt can end; the scheduler's rules for another try depend on nothing else."""

    SUCCEEDED = "succeeded"  # and --validate accepted the result
    FAILED = "failed"  # the program failed, its result was rejected, or it took too long
    LOST = "lost"  # the connection to the worker broke
    REFUSED = "refused"  # the worker did not begin it, but another one may
    WITHDRAWN = "withdrawn"  # the worker took its offer back before it was given the task
    REFUSED_FOR_GOOD = "refused for good"  # it cannot be offered to any worker
    UNFIT = "unfit"  # the worker refused, as it would refuse any other of the tasks
    CANCELLED = "cancelled"  # another attempt was faster, --halt now, or the user has ended it

    # Members are single objects.  The `__hash__` of Enum is a Python function that hashes the name.
    __hash__ = object.__hash__


NOT_BEGUN = frozenset((How.REFUSED, How.WITHDRAWN, How.REFUSED_FOR_GOOD, How.UNFIT))


@dataclass(slots=True)
class AttemptEnding:
    """`reason` is empty after a success.  `status` is 128 + n for signal n; `sent` and `received` are bytes.

    `exitval` and `signal` are those of a joblog (GNU parallel): a death by a signal has the exit value 0.
    `cpu`: seconds of processor time, None if nobody knows.
    `waited`: the task was LOST while it waited for its turn behind another one, so that says nothing about it.
    """

    how: How
    reason: str = ""
    status: int = WITHOUT_STATUS
    exitval: int = ENDED_BY_US
    signal: int = 0
    sent: int = 0
    received: int = 0
    rejected: bool = False
    waited: bool = False
    cpu: float | None = None

    @classmethod
    def of_exit(cls, result: Exit, missing: Mapping[str, str]) -> AttemptEnding:
        """`missing`: the files that the program should have left, and why each did not come."""
        status = result.exit_status
        ending = cls(
            How.FAILED if status else How.SUCCEEDED,
            _reason(result) if status else "",
            status=status,
            exitval=0 if result.kind == SIGNALLED else status,
            signal=result.status if result.kind == SIGNALLED else 0,
            cpu=(result.user_time + result.system_time) / 1e6,
        )
        for stream in result.endings:
            if stream.direction == READS:
                ending.sent += stream.count
            elif stream.direction == WRITES:
                ending.received += stream.count
        if missing and not status:
            ending.reject("; ".join(f"cannot fetch {name}: {why}" for name, why in missing.items()))
        return ending

    def reject(self, reason: str) -> None:
        """Makes a failure of it: the program succeeded, but its result cannot be used."""
        self.how, self.reason = How.FAILED, reason
        self.status = self.exitval = FAILURE
        self.rejected = True

    @property
    def failure_status(self) -> int:
        """The exit status of the task if it has failed with this attempt."""
        return self.status if self.status > 0 else FAILURE


def _reason(result: Exit) -> str:
    if result.kind == EXITED:
        words = f"exited with {result.status}"
    elif result.kind == LIMITED:
        words = "ran into a limit"
    else:
        words = f"died of signal {result.status}"
    return f"{words}: {result.message}" if result.message else words
