"""Whether further attempts begin: the table, and the length of a pause."""

from __future__ import annotations

from itertools import product

import pytest

from cexec.cmap.run.run_state import TRANSITIONS, RunProgress, RunState

VERBS = {RunState.GOING: "go_on", RunState.PAUSED: "pause", RunState.HALTED: "halt"}


def follow(progress: RunProgress, state: RunState, now: float = 0.0) -> bool:
    return progress.pause(now) if state is RunState.PAUSED else bool(getattr(progress, VERBS[state])())


def progress_in(state: RunState) -> RunProgress:
    progress = RunProgress()
    if state is not RunState.GOING:
        assert follow(progress, state)
    return progress


@pytest.mark.parametrize(("before", "after"), list(product(RunState, RunState)))
def test_only_the_moves_of_the_table_are_possible(before: RunState, after: RunState) -> None:
    progress = progress_in(before)
    moved = follow(progress, after)
    assert moved is (after in TRANSITIONS[before])
    assert progress.state is (after if moved else before)
    told = (progress.going, progress.paused, progress.halted)
    assert told == tuple(progress.state is state for state in (RunState.GOING, RunState.PAUSED, RunState.HALTED))


def test_a_pause_is_as_long_as_the_latest_one() -> None:
    progress = RunProgress()
    assert progress.paused_for(50.0) == 0.0
    progress.pause(100.0)
    progress.pause(103.0)  # it is paused already
    assert progress.paused_for(105.0) == 5.0
    progress.go_on()
    assert progress.paused_for(106.0) == 0.0
    progress.pause(110.0)
    assert progress.paused_for(111.0) == 1.0
