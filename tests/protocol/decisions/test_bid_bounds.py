"""What bounds a bidder: how long it believes that a job is wanted, and that nothing takes a slot from its job."""

from __future__ import annotations

from math import inf

import pytest

from cexec.protocol.base.limits import MAXIMUM_WEIGHT
from cexec.protocol.decisions import remembered
from cexec.protocol.decisions.bid import LONGEST_WANTED, STALL, Bidder, Load, Outcome, Penalized
from cexec.protocol.decisions.clients import LEAST_TURN
from cexec.protocol.decisions.remembered import MAXIMUM_REMEMBERED, SILENT, STILL_HEARD, Origin
from cexec.protocol.decisions.reputation import FIRST_PENALTY, LONGEST_DELAY
from cexec.protocol.decisions.standing import Standing
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
    slots_of,
    waiting_in,
    with_rivals,
)

BUSY, WAITS = identity(1), identity(2)


def occupy(machine: Bidder, who: bytes = BUSY) -> None:
    """A job takes a slot."""
    machine.consider(who, 1, WANTED, 0.0)
    assert connects(machine) == [who]
    run(machine, who, 0.0)


@pytest.mark.parametrize("wanted_for", [LONGEST_WANTED + 1.0, 0xFFFF, 1e300, inf])
def test_no_announcement_is_wanted_for_longer_than_an_hour(wanted_for: float) -> None:
    machine = bidder()
    occupy(machine)
    machine.consider(WAITS, 1, wanted_for, 0.0)
    machine.handle_timeout(LONGEST_WANTED - 0.001)
    assert ("Forget", WAITS) not in events(machine) and waiting_in(machine) == 1
    machine.handle_timeout(LONGEST_WANTED)
    assert ("Forget", WAITS) in events(machine) and waiting_in(machine) == 0


@pytest.mark.parametrize("wanted_for", [0.0, -1.0, -inf])
def test_an_announcement_that_nobody_waits_for_is_forgotten_at_once(wanted_for: float) -> None:
    machine = bidder()
    occupy(machine)
    machine.consider(WAITS, 1, wanted_for, 1.0)
    machine.handle_timeout(1.0)
    assert ("Forget", WAITS) in events(machine) and waiting_in(machine) == 0


def test_each_copy_prolongs_what_is_wanted_by_an_hour_at_most() -> None:
    machine = bidder()
    occupy(machine)
    for now in (0.0, 1800.0):
        machine.consider(WAITS, 1, 0xFFFF, now)
    machine.handle_timeout(LONGEST_WANTED + 1799.0)
    assert waiting_in(machine) == 1
    machine.handle_timeout(LONGEST_WANTED + 1800.0)
    assert waiting_in(machine) == 0


@pytest.mark.parametrize("started", [False, True], ids=["reserved", "running"])
def test_a_job_that_holds_a_slot_is_not_forgotten(started: bool) -> None:
    """Its slot stayed counted for ever, or another job got it while this one ran."""
    machine = bidder()
    machine.consider(BUSY, 1, WANTED, 0.0)
    (who,) = connects(machine)
    assert machine.reserved(who, 0.0)
    if started:
        machine.started(who, 0.0)
    machine.consider(WAITS, 1, WANTED, 0.1)
    events(machine)
    machine.forget(BUSY, 0.2)
    machine.handle_timeout(2 * WANTED)
    assert slots_of(machine)[0] == 0 and ("Forget", BUSY) not in events(machine)
    machine.consider(WAITS, 1, WANTED, 2 * WANTED)
    if not started:
        machine.started(BUSY, 2 * WANTED)
    machine.finished(BUSY, Outcome.SUCCEEDED, 1.0, 2 * WANTED)
    assert slots_of(machine)[0] == 1 and connects(machine) == [WAITS]


def test_jobs_that_hold_slots_do_not_make_room_for_announcements() -> None:
    slots = 3
    machine = bidder(slots=slots)
    held = [identity(number) for number in range(slots)]
    for who in held:
        occupy(machine, who)
    for number in range(slots, MAXIMUM_REMEMBERED + 10):
        machine.consider(identity(number), 1, WANTED, 1.0)
    assert not {("Forget", who) for who in held} & set(events(machine))
    for who in held:
        machine.finished(who, Outcome.SUCCEEDED, 1.0, 2.0)
    assert slots_of(machine) == (slots, 0, 0)


@pytest.mark.parametrize(
    ("speed", "believed"), [(1e9, 100.0), (100.0, 100.0), (0.05, 0.05), (1e-9, 0.05), (-1.0, 0.05)]
)
def test_a_speed_that_cannot_be_is_the_nearest_that_can(speed: float, believed: float) -> None:
    delays = []
    for told in (speed, believed):
        machine = with_rivals(speed=told)
        machine.load_sampled(Load(cpu=1.0), 0.0)
        delays.append(delay_of(machine))
    least = 0.108 / believed  # docs/placement.md: 8 ms of an idle worker and 100 ms of a full one
    assert least <= delays[0] == delays[1] <= least + LARGEST_LITTLE_SPREAD


@pytest.mark.parametrize(("competitors", "told_again"), [(3, True), (4, True), (5, False)])
def test_a_client_is_told_again_where_up_to_four_workers_answer(competitors: int, told_again: bool) -> None:
    machine = bidder()
    machine.consider(identity(100), 1, WANTED, 0.0)
    machine.claimed(identity(100), 2 * competitors, 0.0)  # of which a client needs two
    events(machine)
    machine.consider(BUSY, 1, WANTED, 1.0)
    while not (drawn := connects(machine)):
        due = machine.next_timeout()
        assert due is not None
        machine.handle_timeout(due)
    run(machine, drawn[0], 2.0)
    machine.consider(WAITS, 1, WANTED, 3.0)
    machine.handle_timeout(4.0)
    assert ("Queued", WAITS) in events(machine)
    machine.consider(WAITS, 1, WANTED, 6.0)
    machine.handle_timeout(6.5)
    assert (("Queued", WAITS) in events(machine)) == told_again


def test_an_announcement_that_is_heard_again_does_not_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered, "MAXIMUM_REMEMBERED", 3)
    machine = bidder()
    occupy(machine)
    machine.consider(identity(2), 1, WANTED, 1.0)
    machine.consider(identity(3), 1, WANTED, 2.0)
    machine.consider(identity(2), 1, WANTED, 3.0)
    events(machine)
    machine.consider(identity(4), 1, WANTED, 2.0 + STILL_HEARD)
    assert ("Forget", identity(3)) in events(machine)


def test_a_claim_that_comes_first_teaches_once_however_often_it_comes() -> None:
    machine = bidder()
    for _ in range(3):
        machine.claimed(WAITS, 8, 0.0)
        machine.consider(WAITS, 1, WANTED, 0.1)
        assert machine.competition.count == 4
    assert events(machine) == []


@pytest.mark.parametrize(("extra", "believed"), [(-3.0, 0.0), (1.5, 1.5), (1e9, LONGEST_DELAY), (inf, LONGEST_DELAY)])
def test_no_way_is_so_far_that_its_client_is_never_answered(extra: float, believed: float) -> None:
    machine = bidder()
    machine.consider(WAITS, 1, WANTED, 0.0, extra_delay=extra)
    machine.handle_timeout(believed - 0.001)
    assert connects(machine) == ([] if believed else [WAITS])
    machine.handle_timeout(believed)
    assert connects(machine) == ([WAITS] if believed else [])


def test_a_full_worker_wants_no_timer_for_those_that_wait_for_a_slot() -> None:
    """Else it would wake up at once, again and again."""
    machine = bidder()
    occupy(machine)
    machine.consider(WAITS, 1, WANTED, 1.0)
    events(machine)
    due = machine.next_timeout()
    assert due is not None and due > 1.0


def test_a_slowed_worker_rests_from_when_it_took_its_last_job_however_that_went() -> None:
    machine = with_rivals()
    delay_of(machine, 0.0, 1)
    run(machine, identity(1), 0.1)
    machine.finished(identity(1), Outcome.REFUSED, 0.0, 0.2)
    taken_at = 20.0 + delay_of(machine, 20.0, 2)
    assert machine.reserved(identity(2), taken_at)
    machine.consider(identity(3), 1, WANTED, taken_at)  # which waits for a slot, and so for nothing else
    machine.claimed(identity(2), 2, taken_at)
    machine.released(identity(2), taken_at)
    machine.handle_timeout(taken_at + FIRST_PENALTY - 0.01)
    assert connects(machine) == []
    machine.handle_timeout(taken_at + 10 * FIRST_PENALTY)
    assert connects(machine) == [identity(3)]


def test_a_client_whose_bid_comes_late_is_told_at_once_that_it_is_known() -> None:
    """Otherwise it is told after SILENT, by when it mostly has a connection."""
    for extra, told in ((SILENT - 0.001, False), (SILENT, True)):
        machine = bidder()
        machine.consider(WAITS, 1, WANTED, 0.0, extra_delay=extra)
        assert (("Queued", WAITS) in events(machine)) == told


def test_a_slowed_worker_is_so_at_the_moment_of_its_last_sample() -> None:
    machine = with_rivals()
    now = drop(machine, 1, 0.0)
    assert machine.penalty > 0.0
    machine.load_sampled(Load(), now + 100_000.0)
    assert machine.penalty == 0.0


def test_a_lease_whose_offer_was_withdrawn_has_no_turn_until_its_next_one() -> None:
    """Else all the time in between counted as a turn without a job, and its client went behind the others."""
    machine = bidder()
    machine.leased(WAITS, 1, 0.0, b"client")
    assert connects(machine) == [WAITS]
    machine.withdrawn(WAITS, 0.0)
    machine.handle_timeout(100.0)
    assert connects(machine) == [WAITS] and machine.reserved(WAITS, 100.0)
    assert slots_of(machine) == (0, 1, 0)
    machine.released(WAITS, 100.0)
    assert machine.accounts.wasted(b"client", 100.0) <= LEAST_TURN


def test_a_lease_that_fails_is_counted_off_once() -> None:
    machine = bidder()
    machine.leased(WAITS, 1, 0.0, b"client")
    assert connects(machine) == [WAITS] and machine.slots.connecting == 1
    machine.failed(WAITS, 0.0)
    assert machine.slots.connecting == 0
    assert events(machine) == [("Forget", WAITS)]


def test_a_connection_that_fails_late_leaves_nothing_that_is_never_forgotten() -> None:
    machine = bidder()
    machine.consider(WAITS, 1, WANTED, 0.0)
    assert connects(machine) == [WAITS]
    machine.handle_timeout(STALL)
    machine.failed(WAITS, 1.0)
    assert machine.next_timeout() == WANTED
    machine.handle_timeout(WANTED)
    assert events(machine) == [("Forget", WAITS)]


def test_a_client_that_proves_itself_while_it_waits_for_its_turn_is_told_so() -> None:
    machine = bidder()
    occupy(machine)
    machine.consider(WAITS, 1, WANTED, 1.0, standing=Standing.UNPROVED, source="10.0.0.1", proves=False)
    assert events(machine) == [("Queued", WAITS)] and waiting_in(machine) == 1
    machine.proved(WAITS, 2.0)
    assert machine.next_timeout() == 2.0 + SILENT
    machine.handle_timeout(2.0 + SILENT)
    assert events(machine) == [("Queued", WAITS)]


@pytest.mark.parametrize("call", ["leased", "proved", "claimed", "failed", "withdrawn", "released", "forget"])
def test_a_connection_that_follows_from_a_call_stalls_after_its_time_from_then_on(call: str) -> None:
    """Its time was counted from an earlier call otherwise."""
    machine, now = bidder(), STALL / 4
    machine.consider(WAITS, 1, WANTED, 0.0)
    assert connects(machine) == [WAITS]
    if call == "leased":
        machine.forget(WAITS, 0.0)
        machine.leased(identity(3), 1, now)
    elif call == "proved":
        machine.forget(WAITS, 0.0)
        machine.consider(identity(3), 1, WANTED, 0.0, standing=Standing.DOUBTED, source="10.0.0.1")
        machine.proved(identity(3), now)
    else:
        machine.consider(identity(3), 1, WANTED, 0.0)
        if call == "claimed":
            machine.claimed(WAITS, 1, now)
        elif call == "released":
            assert machine.reserved(WAITS, 0.0)
            machine.released(WAITS, now)
        else:
            getattr(machine, call)(WAITS, now)
    found = connects(machine)
    assert len(found) == 1
    due = machine.next_timeout()
    while due is not None and due < now + STALL:
        machine.handle_timeout(due)
        assert not machine.slots.may_connect(one_at_a_time=False)  # it keeps its slot from others
        due = machine.next_timeout()
    machine.handle_timeout(now + STALL)
    assert machine.slots.may_connect(one_at_a_time=False)


def test_a_connection_that_fails_is_a_turn_without_a_job() -> None:
    machine = bidder()
    machine.consider(WAITS, 1, WANTED, 0.0, origin=Origin(b"client"))
    assert connects(machine) == [WAITS]
    machine.failed(WAITS, 0.5)
    assert machine.accounts.wasted(b"client", 0.5) == 0.5


@pytest.mark.parametrize("chance", [0.0, 0.3, 0.9])
def test_one_full_worker_of_many_hesitates_by_chance_around_the_time_of_silence(chance: float) -> None:
    machine = Bidder(slots=1, random=lambda: chance)
    occupy(machine)
    machine.competition.learn(100)
    machine.consider(WAITS, 1, WANTED, 1.0)
    assert events(machine) == []
    assert machine.next_timeout() == pytest.approx(1.0 + SILENT * (0.5 + chance))


def test_a_client_that_has_no_connection_after_a_while_is_told_that_it_waits() -> None:
    """A slowed worker tries one at a time, although it has slots that are free."""
    machine = with_rivals(slots=4)
    now = drop(machine, 1, 0.0)
    events(machine)
    for number in (2, 3):
        machine.consider(identity(number), 1, WANTED, now)
    told = []
    while (due := machine.next_timeout()) is not None and due <= now + SILENT:
        machine.handle_timeout(due)
        told += [name for name, _ in events(machine)]
    assert "Queued" in told


def test_a_penalty_is_told_with_its_seconds_and_its_reason() -> None:
    machine = with_rivals()
    delay_of(machine, 0.0, 1)
    run(machine, identity(1), 0.1)
    machine.finished(identity(1), Outcome.REFUSED, 0.0, 0.2)
    told = [event for event in iter(machine.next_event, None) if isinstance(event, Penalized)]
    assert [(event.seconds, event.reason) for event in told] == [(machine.penalty, machine.health)]
    assert machine.penalty == FIRST_PENALTY


@pytest.mark.parametrize("weight", [-1, 0, 1 << 40])
def test_a_weight_that_cannot_be_is_the_nearest_that_can(weight: int) -> None:
    """A weight of nothing would never be drawn, a huge one always."""
    counts = {True: 0, False: 0}
    nearest = max(1, min(weight, MAXIMUM_WEIGHT))
    for seed in range(200):
        machine = bidder(seed=seed)
        occupy(machine)
        machine.consider(WAITS, weight, WANTED, 0.0)
        machine.consider(identity(3), nearest, WANTED, 0.0)
        machine.finished(BUSY, Outcome.SUCCEEDED, 1.0, 1.0)
        counts[connects(machine) == [WAITS]] += 1
    assert 60 < counts[True] < 140
