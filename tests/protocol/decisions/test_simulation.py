"""A short part of what benchmarks/simulate_race.py and simulate_placement.py measure, with the goals of P6 and P7."""

from __future__ import annotations

from functools import partial
from statistics import median

import pytest

from benchmarks import simulate_attacks as attacks
from benchmarks import simulate_placement as placement
from benchmarks import simulate_race as race


def seeds(few: int, all_of_them: int) -> pytest.MarkDecorator:
    """Runs a test with so many seeds, and in the campaign with all of them.  A seed gives the same run every time."""
    return pytest.mark.parametrize("seeds", [few, pytest.param(all_of_them, marks=pytest.mark.campaign)])


@seeds(1, 3)
@pytest.mark.parametrize("at_once", [True, False], ids=["in its first 20 s", "after its first minute"])
@pytest.mark.parametrize("name", attacks.ATTACKS)
def test_an_honest_job_takes_three_times_as_long_during_an_attack_as_at_an_idle_worker(
    name: str, seeds: int, *, at_once: bool
) -> None:
    kind, clients, each, weight = attacks.ATTACKS[name]
    begin = partial(attacks.attack, kind=kind, clients=clients, each=each, weight=weight)
    idle = median(attacks.latencies(1, 1, lambda network: None, at_once=True))
    assert median(attacks.measure(range(seeds), 1, begin, at_once=at_once)) <= 3.0 * idle


def test_same_seed_is_the_same_run() -> None:
    assert race.races(20, seed=4, jobs=5) == race.races(20, seed=4, jobs=5)


def test_lone_worker_is_connected_after_two_round_trips_and_no_delay() -> None:
    for one in race.races(1, seed=1, jobs=5, latency=(0.001, 0.001)):
        assert one.connections == 1
        assert one.milliseconds == pytest.approx(6.0 + 0.35 + 1.0, abs=0.01)  # six ways, and the CPU times of the model


@pytest.mark.parametrize("jobs", [12, pytest.param(25, marks=pytest.mark.campaign)])
def test_thousand_workers_learn_from_five_claims(jobs: int) -> None:
    races = race.races(1000, seed=1, jobs=jobs)
    first, learned = races[0], races[race.CLAIMS_TO_LEARN :]
    assert first.connections <= 200
    assert first.milliseconds < 500
    assert median(one.connections for one in learned) <= 5
    assert median(one.connections + one.refused for one in learned) <= 10
    assert max(one.milliseconds for one in learned) < 100


@pytest.mark.parametrize("workers", [2, 3, 10, 60])
def test_about_three_connect_however_many_there_are(workers: int) -> None:
    races = [one for seed in range(3) for one in race.races(workers, seed)[race.CLAIMS_TO_LEARN :]]
    assert 2 <= median(one.connections for one in races) <= 4
    assert median(one.milliseconds for one in races) < 50


def test_lost_datagrams_cost_little() -> None:
    races = race.races(100, seed=1, loss=0.3)[race.CLAIMS_TO_LEARN :]
    assert median(one.connections for one in races) <= 5
    assert median(one.milliseconds for one in races) < 100


@seeds(3, 7)
def test_makespan_is_close_to_that_of_full_knowledge(seeds: int) -> None:
    assert median(placement.makespan_ratio(seed) for seed in range(seeds)) <= 1.15


@seeds(2, 5)
def test_busy_host_loses_to_an_idle_one(seeds: int) -> None:
    assert all(placement.share_of_busy(seed) <= 0.05 for seed in range(seeds))


def test_fast_idle_host_answers_before_a_slow_one() -> None:
    assert placement.share_of_fast(1, 1.0, 2.0) >= 0.8
    assert placement.share_of_fast(1, 1.0, 4.0) >= 0.95


def test_hosts_get_work_in_proportion_to_their_speed() -> None:
    shares = placement.shares_by_speed(1, at_a_time=10)
    assert shares == pytest.approx([1 / 7, 2 / 7, 4 / 7], abs=0.04)


@seeds(2, 5)
def test_fifty_clients_are_spread_evenly_and_no_host_exceeds_its_slots(seeds: int) -> None:
    assert all(placement.unevenness(seed) <= 1.3 for seed in range(seeds))


def test_host_that_exits_at_once_gets_few_jobs() -> None:
    assert placement.share_of_broken(1, at_a_time=8, length=1.0) < 0.1
    assert placement.share_of_broken(1, at_a_time=4, length=0.05) < 0.1


def test_host_that_wins_and_drops_gets_few_jobs_and_its_share_back() -> None:
    dropped, healed = placement.share_of_dropper(1, at_a_time=8, length=1.0)
    assert dropped < 0.05
    assert healed == pytest.approx(0.25, abs=0.05)


@seeds(2, 5)
def test_weights_share_one_slot(seeds: int) -> None:
    assert all(placement.ratio_of_weights(seed) == pytest.approx(3.0, rel=0.15) for seed in range(seeds))


@pytest.mark.parametrize("users", [1, 8])
def test_a_dropper_gets_as_few_jobs_of_several_users(users: int) -> None:
    dropped, healed = placement.share_of_dropper(2, at_a_time=8, length=5.0, users=users)
    assert dropped < 0.05
    assert healed == pytest.approx(0.25, abs=0.05)


@seeds(2, 5)
@pytest.mark.parametrize("length", [0.3, 5.0])
def test_after_all_connections_were_reset_the_next_job_runs_within_two_seconds(length: float, seeds: int) -> None:
    """Regression: every worker rested for the sake of rivals that rested, too: 26.8 s on an idle cluster."""
    assert all(placement.next_job_after_reset(seed, 8, length) <= 2.0 for seed in range(seeds))


@pytest.mark.parametrize("every", [1.0, 31.0])
def test_invented_and_replayed_complaints_leave_a_worker_its_share(every: float) -> None:
    """Regression: one invented complaint in 31 s took the whole share; two recorded alerts, replayed, slowed it."""
    assert placement.share_despite_lies(1, 8, 1.0, every) >= 0.8 * 0.25


@pytest.mark.parametrize("at_a_time", [pytest.param(2, marks=pytest.mark.campaign), 8])
def test_a_client_that_resets_its_own_jobs_and_complains_leaves_a_worker_half_of_its_share(at_a_time: int) -> None:
    assert placement.share_despite_resets(1, at_a_time, 1.0) >= 0.5 * 0.25
