from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cexec.protocol.decisions.bid import Load, Outcome
from cexec.protocol.decisions.bid_delay import IDLE_DELAY, LOAD_DELAY
from cexec.protocol.decisions.remembered import DONE_LIFETIME, Origin
from tests.protocol.decisions.bidders import (
    LARGEST_LITTLE_SPREAD,
    WANTED,
    bidder,
    connects,
    delay_of,
    drop,
    events,
    identity,
    run,
    with_rivals,
)

# When it bids


def test_lone_idle_worker_answers_in_the_same_call() -> None:
    machine = bidder()
    machine.consider(identity(1), 1, WANTED, 100.0)
    assert events(machine) == [("Connect", identity(1))]


def test_lone_worker_answers_at_once_however_loaded_it_is() -> None:
    machine = bidder(slots=4)
    machine.load_sampled(Load(cpu=1.0, run_queue=3.0), 0.0)
    assert delay_of(machine) == 0.0


def test_worker_that_has_lost_a_race_waits_for_its_rivals_next_time() -> None:
    machine = bidder()
    machine.consider(identity(1), 1, WANTED, 0.0)
    machine.claimed(identity(1), 1, 0.01)
    events(machine)
    assert IDLE_DELAY <= delay_of(machine, 1.0, number=2) <= IDLE_DELAY + LARGEST_LITTLE_SPREAD


def test_worker_that_won_against_another_waits_next_time() -> None:
    machine = bidder()
    machine.consider(identity(1), 1, WANTED, 0.0)
    events(machine)
    run(machine, identity(1), 0.01)
    machine.claimed(identity(1), 2, 0.02)
    machine.finished(identity(1), Outcome.SUCCEEDED, 1.0, 1.0)
    assert delay_of(machine, 1.0, number=2) >= IDLE_DELAY


def test_worker_that_won_alone_still_thinks_that_it_is_alone() -> None:
    machine = bidder()
    machine.consider(identity(1), 1, WANTED, 0.0)
    events(machine)
    run(machine, identity(1), 0.01)
    machine.claimed(identity(1), 1, 0.02)
    machine.finished(identity(1), Outcome.SUCCEEDED, 1.0, 1.0)
    assert delay_of(machine, 1.0, number=2) == 0.0


def test_rivals_that_are_silent_for_ten_minutes_are_no_longer_waited_for() -> None:
    machine = with_rivals()
    assert delay_of(machine, 601.0) == 0.0


def test_delay_grows_with_load_and_is_divided_by_speed() -> None:
    delays = {}
    for speed in (1.0, 2.0):
        for load in (0.0, 0.5, 1.0, 3.0):
            machine = with_rivals(speed=speed)
            machine.load_sampled(Load(cpu=min(load, 1.0), run_queue=load), 0.0)
            delays[speed, load] = delay_of(machine)
    for (speed, load), delay in delays.items():
        expected = (IDLE_DELAY + LOAD_DELAY * load) / speed
        assert expected <= delay <= expected + LARGEST_LITTLE_SPREAD


def test_each_part_of_the_load_counts() -> None:
    assert Load().level == 0.0
    assert Load(cpu=0.5).level == 0.5
    assert Load(run_queue=2.0).level == 2.0
    assert Load(cpu=0.5, memory_pressure=0.25).level == 0.75


def test_load_of_a_command_replaces_what_is_measured() -> None:
    assert Load(cpu=1.0, run_queue=4.0, memory_pressure=1.0, external=0.0).level == 0.0
    assert Load(external=1.5).level == 1.5
    assert Load(external=1e9).level == 5.0
    assert Load(external=-3.0).level == 0.0


def test_running_jobs_count_before_any_sample_shows_them() -> None:
    machine = with_rivals(slots=4)
    for number in range(2):
        delay_of(machine, 0.0, number)
        run(machine, identity(number), 0.1)
    assert delay_of(machine, 0.2, number=9) >= IDLE_DELAY + LOAD_DELAY / 2


def test_boost_replaces_the_computed_delay() -> None:
    machine = with_rivals(boost=0.0025)
    machine.load_sampled(Load(cpu=1.0), 0.0)
    assert delay_of(machine) == pytest.approx(0.0025)


def test_announcement_meant_for_this_worker_is_answered_at_once() -> None:
    machine = with_rivals()
    machine.consider(identity(1), 1, WANTED, 0.0, targeted=True)
    assert connects(machine) == [identity(1)]


def test_relayed_announcement_is_answered_later_and_a_shorter_way_makes_up_for_it() -> None:
    machine = bidder()
    machine.consider(identity(1), 1, WANTED, 0.0, extra_delay=0.2)
    assert machine.next_timeout() == pytest.approx(0.2)
    machine.consider(identity(1), 1, WANTED, 0.05, extra_delay=0.1)
    assert machine.next_timeout() == pytest.approx(0.1)
    machine.handle_timeout(0.1)
    assert connects(machine) == [identity(1)]


def test_announcement_heard_again_is_answered_once() -> None:
    machine = bidder(slots=3)
    for copy in range(5):
        machine.consider(identity(1), 1, WANTED, copy * 0.2)
        machine.handle_timeout(copy * 0.2)
    assert connects(machine) == [identity(1)]
    run(machine, identity(1), 1.0)
    machine.consider(identity(1), 1, WANTED, 1.1)
    assert events(machine) == []


def test_announcement_is_forgotten_when_it_is_not_heard_any_more() -> None:
    machine = bidder()
    machine.consider(identity(1), 1, WANTED, 0.0)
    events(machine)
    run(machine, identity(1), 0.0)
    machine.consider(identity(2), 1, WANTED, 1.0)
    machine.consider(identity(2), 1, WANTED, 5.0)
    machine.handle_timeout(5.0 + WANTED - 0.1)
    assert ("Forget", identity(2)) not in events(machine)
    machine.handle_timeout(5.0 + WANTED)
    assert events(machine) == [("Forget", identity(2))]
    assert machine.waiting == 0


# Claims


def test_claim_ends_a_bid_that_is_pending() -> None:
    machine = with_rivals()
    machine.consider(identity(1), 1, WANTED, 0.0)
    machine.claimed(identity(1), 3, 0.001)
    assert events(machine) == [("Forget", identity(1))]
    assert machine.next_timeout() is None


def test_claim_ends_a_connection_under_way_and_gives_its_slot_back() -> None:
    machine = bidder()
    machine.consider(identity(1), 1, WANTED, 0.0)
    machine.consider(identity(2), 1, WANTED, 0.0)
    (first,) = connects(machine)
    machine.claimed(first, 2, 0.01)
    (second,) = {identity(1), identity(2)} - {first}
    assert events(machine) == [("Forget", first), ("Connect", second)]
    assert not machine.reserved(first, 0.02)


def test_claim_before_its_announcement_is_remembered_and_taught_from() -> None:
    machine = bidder()
    machine.claimed(identity(1), 30, 0.0)
    assert machine.competition.count == 1
    machine.consider(identity(1), 1, WANTED, 0.01)
    assert events(machine) == []
    assert machine.competition.count == 15
    machine.consider(identity(1), 1, WANTED, 0.02)
    assert machine.competition.count == 15


def test_claim_before_its_announcement_is_forgotten_in_the_end() -> None:
    machine = bidder()
    machine.claimed(identity(1), 60, 0.0)
    machine.consider(identity(1), 1, WANTED, DONE_LIFETIME + 0.1)
    assert connects(machine) == [identity(1)]


def test_a_claim_that_comes_when_the_first_one_is_forgotten_is_remembered_anew() -> None:
    machine = bidder()
    for when in (0.0, DONE_LIFETIME):
        machine.claimed(identity(1), 60, when)
    machine.consider(identity(1), 1, WANTED, DONE_LIFETIME + 1.0)
    assert connects(machine) == []


def test_repeated_claims_teach_once() -> None:
    machine = bidder()
    machine.consider(identity(1), 1, WANTED, 0.0)
    events(machine)
    run(machine, identity(1), 0.0)
    for _ in range(5):
        machine.claimed(identity(1), 30, 0.1)
    assert machine.competition.count == 15


def test_a_race_takes_the_time_from_the_announcement_to_its_claim() -> None:
    """Here none, however late it is: so bids are not spread any more than usually."""
    machine = bidder()
    for number in range(20):
        machine.consider(identity(number), 1, WANTED, 100.0 + number)
        machine.claimed(identity(number), 1, 100.0 + number)
    assert max(machine.competition.spread(1.0) for _ in range(200)) <= LARGEST_LITTLE_SPREAD


def test_a_complaint_tells_the_time() -> None:
    """What is said of the worker after it is as of then."""
    machine = bidder()
    drop(machine, 1, 0.0)
    before = machine.penalty
    machine.consider(identity(2), 1, WANTED, 1.0, origin=Origin(b"client"))
    machine.complained(identity(1), 3000.0)
    assert before > 0.0 and machine.penalty == 0.0


def test_claim_does_not_take_the_job_from_its_winner() -> None:
    machine = bidder()
    machine.consider(identity(1), 1, WANTED, 0.0)
    events(machine)
    assert machine.reserved(identity(1), 0.0)
    machine.claimed(identity(1), 3, 0.01)
    machine.started(identity(1), 0.02)
    assert (machine.slots.running, machine.slots.reserved, machine.slots.free) == (1, 0, 0)
    assert events(machine) == []


def test_claims_of_targeted_announcements_teach_nothing() -> None:
    machine = bidder()
    machine.consider(identity(1), 1, WANTED, 0.0, targeted=True)
    machine.claimed(identity(1), 900, 0.01)
    assert machine.competition.count == 1


@given(st.lists(st.one_of(st.integers(), st.sampled_from([-1, 0, 1, 4096, 2**63])), max_size=60))
def test_lying_claims_cannot_freeze_a_worker(counts: list[int]) -> None:
    machine = bidder()
    for number, connected in enumerate(counts):
        machine.consider(identity(number), 1, WANTED, float(number))
        machine.claimed(identity(number), connected, number + 0.9)
    events(machine)
    assert delay_of(machine, 100.0, number=10_000) < 1.0


def test_claimed_announcement_heard_late_wakes_nobody() -> None:
    machine = bidder()
    machine.consider(identity(1), 1, WANTED, 0.0)
    machine.claimed(identity(1), 1, 0.1)
    events(machine)
    machine.consider(identity(1), 1, WANTED, 5.0)
    assert events(machine) == []


def test_an_acknowledgement_is_a_moment_too() -> None:
    machine, now = bidder(), 0.0
    for number in range(1, 8):
        now = drop(machine, number, now)
    assert machine.penalty > 0.0
    machine.acknowledged(identity(99), now + 1000.0)
    assert machine.penalty == 0.0 and machine.health == "ok"
