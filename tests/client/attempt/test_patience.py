from __future__ import annotations

from collections.abc import Sequence

import pytest

from cexec.client.attempt.patience import TIME_LIMIT_GRACE, Patience, make_patience
from cexec.errors import StalledError

LONG = 500.0  # seconds


def until_stalled(patience: Patience, *, bytes_at: Sequence[int] = (), ours: bool = False) -> float:
    """Looks as often as it is asked for; a byte comes at each of these seconds.  Returns when it stalls, or LONG."""
    now = 0.0
    while now < LONG:
        now = patience.next_timeout()
        count = sum(second <= now for second in bytes_at)
        try:
            patience.looked(count, now, now, ours=ours)
        except StalledError:
            return now
    return LONG


def test_a_worker_that_stands_still_is_given_up() -> None:
    assert until_stalled(Patience(progress=10.0, time_limit=0.0, began=0.0)) == pytest.approx(12.5, abs=2.6)


def test_every_byte_is_progress() -> None:
    patience = Patience(progress=10.0, time_limit=0.0, began=0.0)
    assert 106.0 <= until_stalled(patience, bytes_at=range(0, 101, 8)) <= 110.0


def test_a_worker_that_dribbles_is_held_to_its_time_limit() -> None:
    """A byte now and then is progress, so that a slow program is not given up; the time limit ends that."""
    patience = Patience(progress=10.0, time_limit=60.0, began=0.0)
    ended = until_stalled(patience, bytes_at=range(1000))
    assert ended == pytest.approx(60.0 + TIME_LIMIT_GRACE)


def test_time_in_which_the_worker_waits_for_us_does_not_count() -> None:
    assert until_stalled(Patience(progress=10.0, time_limit=5.0, began=0.0), ours=True) == LONG


def test_time_in_which_this_process_was_stopped_does_not_count() -> None:
    patience = Patience(progress=10.0, time_limit=0.0, began=0.0)
    patience.looked(1, 2.5, 2.5, ours=False)
    patience.looked(1, 3.0, 1000.0, ours=False)  # it was stopped in the middle of a step
    with pytest.raises(StalledError, match=r"no byte came or went for 10 s \(--progress-timeout\)"):
        for now in (1002.5, 1005.0, 1007.5, 1010.0, 1012.5):
            patience.looked(1, now, now, ours=False)


def test_a_late_time_limit_names_both_times() -> None:
    patience = Patience(progress=0.0, time_limit=1.5, began=0.0)
    now = 0.0
    with pytest.raises(StalledError, match=r"it still has the job 45 s after its time limit of 1\.5 s"):
        while now < 100.0:
            now = patience.next_timeout()
            patience.looked(0, now, now, ours=False)
    assert now == pytest.approx(46.5)


def test_nothing_is_limited_if_nobody_asks_for_it() -> None:
    assert make_patience(progress=0.0, time_limit=0.0, began=0.0) is None
