"""Says whether further attempts of a run begin: a table of states.

Contract: pure; `now` is monotonic seconds.  `TRANSITIONS` says which state may follow which.  `pause`, `go_on` and
`halt` return False, and change nothing, if the table does not allow it or the run is in that state already.
"""

from __future__ import annotations

from enum import Enum


class RunState(Enum):
    """A run that has halted stays so."""

    GOING = "going"
    PAUSED = "paused"  # by the user, until it goes on
    HALTED = "halted"  # by --halt, or by the user

    __hash__ = object.__hash__  # see `How`


TRANSITIONS = {
    RunState.GOING: (RunState.PAUSED, RunState.HALTED),
    RunState.PAUSED: (RunState.GOING, RunState.HALTED),
    RunState.HALTED: (),
}


class RunProgress:
    """The state of one run, and since when it is paused."""

    __slots__ = ("_paused_at", "state")

    def __init__(self) -> None:
        self.state = RunState.GOING
        self._paused_at = 0.0

    def pause(self, now: float) -> bool:
        if not self._move(RunState.PAUSED):
            return False
        self._paused_at = now
        return True

    def go_on(self) -> bool:
        return self._move(RunState.GOING)

    def halt(self) -> bool:
        return self._move(RunState.HALTED)

    def _move(self, state: RunState) -> bool:
        if state not in TRANSITIONS[self.state]:
            return False
        self.state = state
        return True

    @property
    def going(self) -> bool:
        return self.state is RunState.GOING

    @property
    def paused(self) -> bool:
        return self.state is RunState.PAUSED

    @property
    def halted(self) -> bool:
        return self.state is RunState.HALTED

    def paused_for(self, now: float) -> float:
        """Returns how long this pause has lasted; 0 if there is none."""
        return max(0.0, now - self._paused_at) if self.paused else 0.0
