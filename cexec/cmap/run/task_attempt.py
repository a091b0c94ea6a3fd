"""One attempt of a task on one worker, as the scheduler sees it: a table of states.

Contract: `TRANSITIONS` says which state may follow which, and `move` is the only place that changes the state;
`AssertionError` for any other change.  Only the scheduler moves an attempt.  `final` says how an attempt ended, with
regard to why we ended it.
"""

from __future__ import annotations

from dataclasses import replace
from enum import Enum

from cexec.cmap.results.outcome import ENDED_BY_US
from cexec.cmap.run.ending import AttemptEnding, How


class AttemptState(Enum):
    """Says how far an attempt is."""

    OFFERED = "offered"  # a worker is told of it; nothing runs yet
    RECALLED = "recalled"  # it waits behind another one, and the run is paused: its worker is asked to give it back
    RUNNING = "running"  # the worker has said that the program runs
    RETURNED = "returned"  # its exit frame has come, and --validate looks at the result
    TIMED_OUT = "timed out"  # it took too long and is being ended, which is a failure of its task
    CANCELLED = "cancelled"  # its result is not wanted any more and it is being ended, which is no failure
    ENDED = "ended"

    __hash__ = object.__hash__  # see `How`


TRANSITIONS = {
    AttemptState.OFFERED: (
        AttemptState.RECALLED,
        AttemptState.RUNNING,
        AttemptState.CANCELLED,
        AttemptState.ENDED,
    ),
    AttemptState.RECALLED: (AttemptState.RUNNING, AttemptState.CANCELLED, AttemptState.ENDED),
    AttemptState.RUNNING: (
        AttemptState.RETURNED,
        AttemptState.TIMED_OUT,
        AttemptState.CANCELLED,
        AttemptState.ENDED,
    ),
    AttemptState.RETURNED: (AttemptState.CANCELLED, AttemptState.ENDED),
    AttemptState.TIMED_OUT: (AttemptState.ENDED,),
    AttemptState.CANCELLED: (AttemptState.ENDED,),
    AttemptState.ENDED: (),
}


class TaskAttempt:
    """`number` counts the attempts of `task` from 1, `started` is when its time began, `reason` why it is being ended.

    Two attempts are never equal, so that they can be keys.
    """

    __slots__ = ("number", "reason", "started", "state", "task", "waits", "worker")

    def __init__(self, task: int, number: int, worker: str, now: float) -> None:
        self.task = task
        self.number = number
        self.worker = worker
        self.started = now
        self.state = AttemptState.OFFERED
        self.reason = ""
        self.waits = False  # behind another one, in the lease that carries that

    def move(self, state: AttemptState, reason: str = "") -> None:
        """Changes the state; `reason` is for TIMED_OUT and CANCELLED."""
        assert state in TRANSITIONS[self.state], f"an attempt that is {self.state.value} cannot become {state.value}"
        self.state = state
        self.reason = self.reason or reason

    @property
    def can_be_ended(self) -> bool:
        """True as long as nobody has asked to end it."""
        return self.state not in (AttemptState.TIMED_OUT, AttemptState.CANCELLED, AttemptState.ENDED)

    @property
    def has_begun(self) -> bool:
        """True if its program runs, or has ended and its result is looked at; one that is being ended has begun."""
        return self.state in (AttemptState.RUNNING, AttemptState.RETURNED, AttemptState.TIMED_OUT)

    def final(self, ending: AttemptEnding) -> AttemptEnding:
        """A success counts even if it came too late; any other end is the one that we asked for, if we did."""
        if ending.how is How.SUCCEEDED or self.can_be_ended:
            return ending
        if self.state is AttemptState.TIMED_OUT:
            return replace(ending, how=How.FAILED, reason=self.reason, exitval=ENDED_BY_US, signal=0)
        return replace(ending, how=How.CANCELLED, reason=self.reason)
