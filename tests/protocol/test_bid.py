from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cexec.protocol import limits
from cexec.protocol.bid import (
    IDLE_DELAY,
    LOAD_DELAY,
    QUEUED_SPACING,
    RETRIES,
    STALL,
    STALLED_ALLOWED,
    Bidder,
    Connect,
    Forget,
    Load,
    Penalized,
    Queued,
    Recovered,
)
from cexec.protocol.competition import LEAST_COMPETITORS, LEAST_SPREAD
from cexec.protocol.remembered import DONE_LIFETIME, MAXIMUM_REMEMBERED, SILENT
from cexec.protocol.reputation import LONGEST_DELAY

WANTED = 15.0
LARGEST_LITTLE_SPREAD = LEAST_SPREAD * (LEAST_COMPETITORS - 1.0)  # the logarithm is below its tangent


def identity(number: int) -> bytes:
    return number.to_bytes(16, "big")


def bidder(slots: int = 1, speed: float = 1.0, boost: float | None = None, seed: int = 1) -> Bidder:
    return Bidder(slots=slots, speed=speed, boost=boost, random=Random(seed).random)


def with_rivals(slots: int = 1, speed: float = 1.0, boost: float | None = None, seed: int = 1) -> Bidder:
    made = bidder(slots, speed, boost, seed)
    made.rival_heard(0.0)
    return made


def events(machine: Bidder) -> list[tuple[str, bytes | None]]:
    found = []
    while (event := machine.next_event()) is not None:
        found.append((type(event).__name__, getattr(event, "identity", None)))
    return found


def connects(machine: Bidder) -> list[bytes]:
    return [who for name, who in events(machine) if name == "Connect" and who is not None]


def run(machine: Bidder, who: bytes, now: float) -> None:
    """Win the race for an announcement that a Connect was given for."""
    assert machine.reserved(who, now)
    machine.started(who, now)


def delay_of(machine: Bidder, now: float = 0.0, number: int = 1) -> float:
    """Seconds until an announcement that is heard now is answered."""
    machine.consider(identity(number), 1, WANTED, now)
    start = now
    while not connects(machine):
        due = machine.next_timeout()
        assert due is not None
        now = due
        machine.handle_timeout(now)
    return now - start


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
    machine.finished(identity(1), "ok", 1.0, 1.0)
    assert delay_of(machine, 1.0, number=2) >= IDLE_DELAY


def test_worker_that_won_alone_still_thinks_that_it_is_alone() -> None:
    machine = bidder()
    machine.consider(identity(1), 1, WANTED, 0.0)
    events(machine)
    run(machine, identity(1), 0.01)
    machine.claimed(identity(1), 1, 0.02)
    machine.finished(identity(1), "ok", 1.0, 1.0)
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
    machine.claimed(identity(1), 60, 0.0)
    assert machine.competitors == 1
    machine.consider(identity(1), 1, WANTED, 0.01)
    assert events(machine) == []
    assert machine.competitors == 20
    machine.consider(identity(1), 1, WANTED, 0.02)
    assert machine.competitors == 20


def test_claim_before_its_announcement_is_forgotten_in_the_end() -> None:
    machine = bidder()
    machine.claimed(identity(1), 60, 0.0)
    machine.consider(identity(1), 1, WANTED, DONE_LIFETIME + 0.1)
    assert connects(machine) == [identity(1)]


def test_repeated_claims_teach_once() -> None:
    machine = bidder()
    machine.consider(identity(1), 1, WANTED, 0.0)
    events(machine)
    run(machine, identity(1), 0.0)
    for _ in range(5):
        machine.claimed(identity(1), 30, 0.1)
    assert machine.competitors == 10


def test_claim_does_not_take_the_job_from_its_winner() -> None:
    machine = bidder()
    machine.consider(identity(1), 1, WANTED, 0.0)
    events(machine)
    assert machine.reserved(identity(1), 0.0)
    machine.claimed(identity(1), 3, 0.01)
    machine.started(identity(1), 0.02)
    assert (machine.running, machine.reserved_count, machine.free) == (1, 0, 0)
    assert events(machine) == []


def test_claims_of_targeted_announcements_teach_nothing() -> None:
    machine = bidder()
    machine.consider(identity(1), 1, WANTED, 0.0, targeted=True)
    machine.claimed(identity(1), 900, 0.01)
    assert machine.competitors == 1


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


# Slots


def test_full_worker_says_so_at_once_and_every_ten_seconds() -> None:
    machine = bidder()
    machine.consider(identity(1), 1, WANTED, 0.0)
    events(machine)
    run(machine, identity(1), 0.0)
    machine.consider(identity(2), 1, 60.0, 1.0)
    assert events(machine) == [("Queued", identity(2))]
    assert machine.waiting == 1
    machine.handle_timeout(1.0 + limits.QUEUED_INTERVAL - 0.01)
    assert events(machine) == []
    machine.handle_timeout(1.0 + limits.QUEUED_INTERVAL)
    assert events(machine) == [("Queued", identity(2))]


def test_many_queued_are_spaced() -> None:
    machine = bidder()
    machine.consider(identity(0), 1, WANTED, 0.0)
    events(machine)
    run(machine, identity(0), 0.0)
    for number in range(1, 101):
        machine.consider(identity(number), 1, WANTED, 0.0)
    assert len(events(machine)) == 1
    machine.handle_timeout(50 * QUEUED_SPACING)
    assert 49 <= len(events(machine)) <= 51


def test_free_slot_is_given_to_one_that_waits_in_the_same_call() -> None:
    machine = bidder()
    machine.consider(identity(1), 1, WANTED, 0.0)
    events(machine)
    run(machine, identity(1), 0.0)
    machine.consider(identity(2), 1, WANTED, 1.0)
    events(machine)
    machine.finished(identity(1), "ok", 2.0, 2.0)
    assert events(machine) == [("Connect", identity(2))]


def test_job_that_outlasts_its_announcement_keeps_its_slot_until_it_ends() -> None:
    """Regression: the timer of the connection attempt was still on, and dropped a running job that had expired."""
    machine = bidder()
    machine.consider(identity(1), 1, WANTED, 0.0)
    events(machine)
    run(machine, identity(1), 0.01)
    for now in (STALL, SILENT, WANTED, 10 * WANTED):
        machine.handle_timeout(now)
    assert events(machine) == []
    machine.finished(identity(1), "ok", 1.0, 11 * WANTED)
    assert (machine.running, machine.free) == (0, 1)


def test_next_is_drawn_at_once_when_a_connection_fails() -> None:
    machine = bidder()
    for number in range(3):
        machine.consider(identity(number), 1, WANTED, 0.0)
    seen = set()
    for _ in range(3):
        (who,) = connects(machine)
        seen.add(who)
        machine.failed(who, 0.01)
    assert seen == {identity(0), identity(1), identity(2)}


def test_worker_connects_to_no_more_clients_than_it_has_slots() -> None:
    machine = bidder(slots=2)
    for number in range(500):
        machine.consider(identity(number), 1, WANTED, 0.0)
    assert len(connects(machine)) == 2


def test_stalled_connections_give_way_but_only_a_few() -> None:
    machine = bidder(slots=2)
    for number in range(500):
        machine.consider(identity(number), 1, WANTED, 0.0)
    total = len(connects(machine))
    now = 0.0
    for _ in range(20):
        now += STALL
        machine.handle_timeout(now)
        total += len(connects(machine))
    assert total == 2 + STALLED_ALLOWED


def test_slots_are_never_exceeded_and_the_surplus_withdraws() -> None:
    machine = bidder(slots=1)
    for number in range(3):
        machine.consider(identity(number), 1, WANTED, 0.0)
    (first,) = connects(machine)
    machine.handle_timeout(STALL)
    (second,) = connects(machine)
    assert machine.reserved(first, STALL)
    assert not machine.reserved(second, STALL)
    machine.withdrawn(second, STALL)
    assert (machine.free, machine.waiting) == (0, 2)


def test_reservation_without_go_frees_the_slot_and_is_tried_again_when_heard() -> None:
    machine = bidder()
    machine.consider(identity(1), 1, WANTED, 0.0)
    events(machine)
    assert machine.reserved(identity(1), 0.0)
    machine.released(identity(1), 1.0)
    assert machine.free == 1
    machine.consider(identity(1), 1, WANTED, 3.0)
    machine.handle_timeout(3.0)
    assert connects(machine) == [identity(1)]


def test_reservation_that_another_won_is_forgotten() -> None:
    machine = bidder()
    machine.consider(identity(1), 1, WANTED, 0.0)
    events(machine)
    assert machine.reserved(identity(1), 0.0)
    machine.claimed(identity(1), 2, 0.01)
    machine.released(identity(1), 0.02)
    assert events(machine) == [("Forget", identity(1))]
    assert machine.free == 1


def test_failed_connection_is_tried_again_only_if_the_client_is_heard_again() -> None:
    machine = bidder()
    machine.consider(identity(1), 1, WANTED, 0.0)
    events(machine)
    machine.failed(identity(1), 0.0)
    machine.handle_timeout(5.0)
    assert events(machine) == []
    machine.consider(identity(1), 1, WANTED, 5.0)
    machine.handle_timeout(5.0)
    assert connects(machine) == [identity(1)]


def test_client_that_cannot_be_reached_is_given_up_and_later_tried_again() -> None:
    machine = bidder()
    now, attempts, forgotten_at = 0.0, 0, 0.0
    while now < 200.0:
        machine.consider(identity(1), 1, WANTED, now)
        machine.handle_timeout(now)
        for name, _ in events(machine):
            if name == "Connect":
                attempts += 1
                machine.failed(identity(1), now)
            elif name == "Forget" and not forgotten_at:
                forgotten_at = now
                assert attempts == RETRIES + 1
        now += 0.25
    assert 0 < forgotten_at < 40.0
    assert attempts <= 6 * (RETRIES + 1)


def test_every_other_call_for_an_unknown_announcement_does_nothing() -> None:
    machine = bidder()
    for method in (machine.failed, machine.withdrawn, machine.started, machine.released, machine.forget):
        method(identity(1), 0.0)
    machine.finished(identity(1), "ok", 1.0, 0.0)
    assert not machine.reserved(identity(1), 0.0)
    assert (machine.free, machine.next_event(), machine.next_timeout()) == (1, None, None)


def test_client_that_went_away_is_forgotten() -> None:
    machine = bidder()
    machine.consider(identity(1), 1, WANTED, 0.0)
    events(machine)
    run(machine, identity(1), 0.0)
    machine.consider(identity(2), 1, WANTED, 0.0)
    machine.forget(identity(2), 0.1)
    machine.finished(identity(1), "ok", 1.0, 1.0)
    assert connects(machine) == []


# The lottery


def shares(weights: list[int], draws: int) -> dict[int, int]:
    """One slot and 60 clients of each weight, each of which comes again after its job."""
    machine = bidder()
    number = 0
    clients = {}
    for weight in weights:
        for _ in range(60):
            number += 1
            clients[identity(number)] = weight
            machine.consider(identity(number), weight, 3600.0, 0.0)
    counts = dict.fromkeys(weights, 0)
    now = 0.0
    for _ in range(draws):
        (who,) = connects(machine)
        run(machine, who, now)
        weight = clients.pop(who)
        counts[weight] += 1
        now += 1.0
        number += 1
        clients[identity(number)] = weight
        machine.consider(identity(number), weight, 3600.0, now)
        machine.finished(who, "ok", 1.0, now)
    return counts


def test_weights_one_and_three_share_a_slot_one_to_three() -> None:
    counts = shares([1, 3], 100)
    assert counts[3] / counts[1] == pytest.approx(3.0, rel=0.15)


def test_light_jobs_beside_very_heavy_ones_do_not_starve() -> None:
    counts = shares([1, 60], 200)
    assert 1 <= counts[1] <= 8


def test_lease_takes_part_in_the_lottery_by_its_weight() -> None:
    machine = bidder()
    machine.consider(identity(1), 1, WANTED, 0.0)
    events(machine)
    run(machine, identity(1), 0.0)
    machine.consider(identity(2), 3, 3600.0, 0.0)
    events(machine)
    running, lease, leases_drawn = identity(1), 100, 0
    for step in range(40):
        now = 1.0 + step
        lease += 1
        machine.leased(identity(lease), 1, now)
        machine.finished(running, "ok", 1.0, now)
        (running,) = connects(machine)
        run(machine, running, now)
        if running == identity(lease):
            leases_drawn += 1
        else:
            machine.forget(identity(lease), now)
            machine.consider(identity(1000 + step), 3, 3600.0, now)
            events(machine)
    assert 8 <= leases_drawn <= 12


def test_lease_whose_connection_fails_is_forgotten() -> None:
    machine = bidder()
    machine.leased(identity(1), 1, 0.0)
    assert connects(machine) == [identity(1)]
    machine.failed(identity(1), 0.1)
    assert events(machine) == [("Forget", identity(1))]


# Workers that do harm


def fail_quickly(machine: Bidder, times: int, now: float = 0.0, outcome: str = "failed") -> list[float]:
    """Jobs that end at once; returns the penalties that were told."""
    told = []
    for number in range(times):
        machine.consider(identity(7000 + number), 1, WANTED, now)
        while True:
            event = machine.next_event()
            if isinstance(event, Connect):
                break
            if event is None:
                due = machine.next_timeout()
                assert due is not None
                now = due
                machine.handle_timeout(now)
        run(machine, event.identity, now)
        machine.finished(event.identity, outcome, 0.01, now)
        while (event := machine.next_event()) is not None:
            assert isinstance(event, Penalized)
            told.append(event.seconds)
    return told


def test_three_quick_failures_running_slow_a_worker_further_and_further() -> None:
    machine = bidder()
    assert fail_quickly(machine, 8) == [0.5, 1.0, 2.0, 4.0, 5.0]
    assert machine.penalty == LONGEST_DELAY
    assert "failed" in machine.health


def test_refusal_slows_a_worker_at_once() -> None:
    assert fail_quickly(bidder(), 1, outcome="refused") == [0.5]


def test_success_ends_the_penalty() -> None:
    machine = bidder()
    fail_quickly(machine, 4)
    delay_of(machine, 100.0, number=1)
    run(machine, identity(1), 110.0)
    machine.finished(identity(1), "ok", 0.01, 110.0)
    assert isinstance(machine.next_event(), Recovered)
    assert (machine.penalty, machine.health) == (0.0, "ok")
    assert delay_of(machine, 110.0, number=2) == 0.0


def test_slow_failure_between_quick_ones_is_no_penalty() -> None:
    machine = bidder()
    fail_quickly(machine, 2)
    delay_of(machine, 1.0, number=1)
    run(machine, identity(1), 1.0)
    machine.finished(identity(1), "failed", 30.0, 31.0)
    assert fail_quickly(machine, 2, 32.0) == []


def test_penalized_worker_tells_the_client_that_it_has_to_wait() -> None:
    machine = bidder()
    fail_quickly(machine, 7)
    machine.consider(identity(1), 1, WANTED, 1000.0 - 601.0)
    assert events(machine) == [("Queued", identity(1))]


def test_penalized_worker_pauses_between_waiting_jobs() -> None:
    machine = bidder(slots=4)
    fail_quickly(machine, 8)
    now = 30.0
    for number in range(50):
        machine.consider(identity(number), 1, 3600.0, now)
    taken = 0
    while now < 130.0:
        machine.handle_timeout(now)
        for who in connects(machine):
            taken += 1
            run(machine, who, now)
            machine.finished(who, "failed", 0.01, now)
        now += 0.1
    assert 15 <= taken <= 20


def test_one_success_lets_all_slots_work_again() -> None:
    machine = bidder(slots=4)
    fail_quickly(machine, 8)
    for number in range(50):
        machine.consider(identity(number), 1, 3600.0, 30.0)
    machine.handle_timeout(36.0)
    (who,) = connects(machine)
    run(machine, who, 36.0)
    machine.finished(who, "ok", 0.01, 36.1)
    assert len(connects(machine)) == 4


def test_complaints_slow_a_worker_and_a_success_ends_it() -> None:
    machine = bidder()
    machine.complained(b"client", 0.0)
    event = machine.next_event()
    assert isinstance(event, Penalized) and event.seconds == pytest.approx(1.0)
    assert delay_of(machine, 0.0) == pytest.approx(1.0)
    run(machine, identity(1), 1.0)
    machine.finished(identity(1), "ok", 1.0, 2.0)
    assert machine.penalty == 0.0


# Memory


def test_memory_is_bounded_and_the_announcement_heard_longest_ago_goes_first() -> None:
    machine = bidder()
    machine.consider(identity(0), 1, WANTED, 0.0)
    events(machine)
    run(machine, identity(0), 0.0)
    for number in range(1, MAXIMUM_REMEMBERED + 100):
        machine.consider(identity(number), 1, 3600.0, 1.0)
    forgotten = [who for name, who in events(machine) if name == "Forget"]
    assert forgotten == [identity(number) for number in range(1, 101)]
    assert machine.waiting == MAXIMUM_REMEMBERED - 1
    machine.finished(identity(0), "ok", 1.0, 2.0)
    assert len(connects(machine)) == 1


def test_idle_worker_wants_no_timer() -> None:
    machine = with_rivals()
    for number in range(20):
        delay_of(machine, float(number), number)
        run(machine, identity(number), number + 0.1)
        machine.finished(identity(number), "ok", 0.1, number + 0.2)
    assert machine.next_timeout() is None


STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "consider",
                "claimed",
                "failed",
                "withdrawn",
                "reserved",
                "released",
                "started",
                "ok",
                "failed job",
                "lost",
            ]
        ),
        st.integers(0, 5),
        st.floats(0.0, 2.0),
    ),
    max_size=60,
)


@settings(max_examples=200, deadline=None)
@given(STEPS, st.integers(1, 3))
def test_any_order_of_calls_keeps_the_slots_and_ends_idle(steps: list[tuple[str, int, float]], slots: int) -> None:
    machine = bidder(slots=slots)
    now = 0.0
    for name, number, passed in steps:
        now += passed
        machine.handle_timeout(now)
        who = identity(number)
        if name == "consider":
            machine.consider(who, number + 1, WANTED, now)
        elif name == "claimed":
            machine.claimed(who, number, now)
        elif name in ("ok", "failed job", "lost"):
            machine.finished(who, name.removesuffix(" job"), passed, now)
        else:
            getattr(machine, name)(who, now)
        events(machine)
        assert 0 <= machine.free <= slots
        assert machine.free + machine.running + machine.reserved_count == slots
    for number in range(6):
        machine.released(identity(number), now)
        machine.finished(identity(number), "ok", 1.0, now)
        machine.failed(identity(number), now)
    for _ in range(1000):
        for event in iter(machine.next_event, None):
            assert isinstance(event, (Connect, Queued, Forget, Recovered, Penalized))
            if isinstance(event, Connect):
                machine.failed(event.identity, now)
        due = machine.next_timeout()
        if due is None:
            break
        assert due >= now
        now = due
        machine.handle_timeout(now)
    assert (machine.free, machine.waiting, machine.next_timeout()) == (slots, 0, None)
