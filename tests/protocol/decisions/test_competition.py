from __future__ import annotations

from math import log
from random import Random
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cexec.protocol.decisions.competition import (
    LEAST_COMPETITORS,
    LEAST_SPREAD,
    MOST_COMPETITORS,
    MOST_SPREAD,
    RIVALS_LIFETIME,
    Competition,
)


def competition(seed: int = 1) -> Competition:
    return Competition(Random(seed).random)


def test_one_claim_of_many_widens_the_spread_at_once() -> None:
    learner = competition()
    learner.learn(50)
    assert learner.estimate == 25.0


def test_claims_of_few_narrow_it_down_to_nothing() -> None:
    learner = competition()
    learner.learn(60)
    for _ in range(30):
        learner.learn(1)
    assert learner.estimate == 1.0


def test_claims_of_two_leave_it_as_it_is() -> None:
    learner = competition()
    learner.learn(60)
    before = learner.estimate
    learner.learn(2)
    assert learner.estimate == before


@given(st.lists(st.integers(-(2**70), 2**70)))
def test_estimate_stays_in_its_bounds(counts: list[int]) -> None:
    learner = competition()
    for connected in counts:
        learner.learn(connected)
        assert 1.0 <= learner.estimate <= MOST_COMPETITORS
        assert 0.0 <= learner.spread(1.0) <= MOST_SPREAD * log(MOST_COMPETITORS)


def test_spread_is_rare_at_its_start_and_dense_at_its_end() -> None:
    learner = competition()
    learner.learn(64)
    longest = LEAST_SPREAD * log(learner.estimate)
    samples = [learner.spread(1.0) for _ in range(4000)]
    assert max(samples) <= longest
    early = sum(sample < longest / 2 for sample in samples)
    assert early / len(samples) < 0.25


def test_fast_worker_is_early_as_often_as_two_of_half_its_speed() -> None:
    learner = competition()
    learner.learn(1000)
    single = [learner.spread(2.0) for _ in range(4000)]
    pairs = [min(learner.spread(1.0), learner.spread(1.0)) for _ in range(4000)]
    assert median(single) == pytest.approx(median(pairs), rel=0.05)


def test_nobody_is_spread_by_more_than_3_ms_before_claims_say_more() -> None:
    learner = competition()
    assert max(learner.spread(1.0) for _ in range(1000)) <= LEAST_SPREAD * log(LEAST_COMPETITORS) < 0.003


def test_long_races_widen_the_spread_slowly_and_a_short_one_narrows_it_at_once() -> None:
    learner = competition()
    learner.learn(1000)
    for _ in range(50):
        learner.race_took(0.1)
    assert max(learner.spread(1.0) for _ in range(1000)) > LEAST_SPREAD * log(1000)
    learner.race_took(0.001)
    assert max(learner.spread(1.0) for _ in range(1000)) <= LEAST_SPREAD * log(1000)


def test_alone_until_a_rival_is_heard_and_again_when_all_are_silent() -> None:
    learner = competition()
    assert learner.alone(0.0)
    learner.rival_heard(10.0)
    assert not learner.alone(10.0 + RIVALS_LIFETIME - 1.0)
    assert learner.alone(10.0 + RIVALS_LIFETIME)
