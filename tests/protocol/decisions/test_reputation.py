from __future__ import annotations

import pytest

from cexec.protocol.decisions.bid import Bidder, Connect, Outcome, Penalized, Recovered
from cexec.protocol.decisions.competition import Competition
from cexec.protocol.decisions.complaints import COMPLAINT_DELAY, FIRST_REST, HALF_LIFE
from cexec.protocol.decisions.remembered import Origin
from cexec.protocol.decisions.reputation import LONGEST_ALONE, LONGEST_DELAY, Reputation
from cexec.protocol.decisions.rivals import RivalWord
from tests.protocol.decisions.bidders import (
    WANTED,
    bidder,
    connects,
    delay_of,
    drop,
    events,
    identity,
    run,
    told_of_a_healthy_rival,
    with_rivals,
)

# Workers that do harm


def fail_quickly(machine: Bidder, times: int, now: float = 0.0, outcome: Outcome = Outcome.FAILED) -> list[float]:
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
    assert fail_quickly(bidder(), 1, outcome=Outcome.REFUSED) == [0.5]


def test_what_every_worker_would_refuse_slows_none() -> None:
    """A client's mistake, arguments that no worker allows, made its workers slow for everybody."""
    machine = bidder()
    assert fail_quickly(machine, 20, outcome=Outcome.UNFIT) == []
    machine.complained(identity(7000), 1.0)  # as the client does of every refusal
    assert (machine.penalty, machine.health, machine.slots.free) == (0.0, "ok", 1)


def test_a_slowed_worker_that_is_alone_rests_as_briefly_from_jobs_that_name_it() -> None:
    machine = bidder()
    fail_quickly(machine, 8)
    starts = []
    now = 50.0
    for number in range(3):
        machine.consider(identity(number), 1, WANTED, now, targeted=True)
        while not (found := connects(machine)):
            due = machine.next_timeout()
            assert due is not None
            now = due
            machine.handle_timeout(now)
        run(machine, found[0], now)
        starts.append(now)
        machine.finished(found[0], Outcome.FAILED, 0.01, now)
    assert starts[2] - starts[0] <= 2 * LONGEST_ALONE + 0.1


def test_success_ends_the_penalty() -> None:
    machine = bidder()
    fail_quickly(machine, 4)
    delay_of(machine, 100.0, number=1)
    run(machine, identity(1), 110.0)
    machine.finished(identity(1), Outcome.SUCCEEDED, 0.01, 110.0)
    assert isinstance(machine.next_event(), Recovered)
    assert (machine.penalty, machine.health) == (0.0, "ok")
    assert delay_of(machine, 110.0, number=2) == 0.0


def test_slow_failure_between_quick_ones_is_no_penalty() -> None:
    machine = bidder()
    fail_quickly(machine, 2)
    delay_of(machine, 1.0, number=1)
    run(machine, identity(1), 1.0)
    machine.finished(identity(1), Outcome.FAILED, 30.0, 31.0)
    assert fail_quickly(machine, 2, 32.0) == []


def test_penalized_worker_tells_the_client_that_it_has_to_wait() -> None:
    machine = with_rivals()
    fail_quickly(machine, 7)
    machine.consider(identity(1), 1, WANTED, 1000.0 - 601.0)
    assert events(machine) == [("Queued", identity(1))]


def failures_in(machine: Bidder, seconds: float, now: float) -> int:
    """How many of many waiting jobs that fail at once are taken."""
    for number in range(500):
        machine.consider(identity(number), 1, 3600.0, now)
    taken, end = 0, now + seconds
    while now < end:
        machine.handle_timeout(now)
        for who in connects(machine):
            taken += 1
            run(machine, who, now)
            machine.finished(who, Outcome.FAILED, 0.01, now)
        now += 0.1
    return taken


def test_penalized_worker_pauses_between_waiting_jobs() -> None:
    machine = with_rivals(slots=4)
    fail_quickly(machine, 8)
    assert 15 <= failures_in(machine, 100.0, 30.0) <= 20


def test_penalized_worker_without_rivals_pauses_briefly() -> None:
    """Regression: a lone worker rested for 5 s after each crash of a task, although nobody else could take the next."""
    machine = bidder(slots=4)
    fail_quickly(machine, 8)
    assert 100 <= failures_in(machine, 30.0, 30.0) <= 300


def test_slowed_worker_does_not_rest_after_a_connection_that_failed() -> None:
    """Regression: clients that had gone, such as the searches that cmap had given up, cost a rest each."""
    machine = with_rivals()
    drop(machine, 99, 0.0)
    for number in range(4):
        machine.consider(identity(number), 1, WANTED, 0.0)
    machine.handle_timeout(3.0)
    for _ in range(3):
        (gone,) = connects(machine)
        machine.failed(gone, 3.0)
    (there,) = connects(machine)
    assert machine.reserved(there, 3.0)
    machine.released(there, 3.0)
    assert not connects(machine)


def test_one_success_lets_all_slots_work_again() -> None:
    machine = bidder(slots=4)
    fail_quickly(machine, 8)
    for number in range(50):
        machine.consider(identity(number), 1, 3600.0, 30.0)
    machine.handle_timeout(36.0)
    (who,) = connects(machine)
    run(machine, who, 36.0)
    machine.finished(who, Outcome.SUCCEEDED, 0.01, 36.1)
    assert len(connects(machine)) == 4


def succeed(machine: Bidder, number: int, now: float, client: bytes = b"client") -> None:
    """Does a job whose result the client acknowledges."""
    machine.consider(identity(number), 1, WANTED, now, targeted=True, origin=Origin(client))
    machine.handle_timeout(now + 10.0)
    assert connects(machine) == [identity(number)]
    run(machine, identity(number), now + 10.0)
    machine.finished(identity(number), Outcome.SUCCEEDED, 1.0, now + 11.0)
    machine.acknowledged(identity(number), now + 11.0)


def test_complaints_slow_a_worker_and_a_success_ends_it() -> None:
    machine = with_rivals()
    drop(machine, 1, 0.0)
    event = machine.next_event()
    assert isinstance(event, Penalized) and event.seconds == pytest.approx(COMPLAINT_DELAY)
    assert machine.health == "clients complained"
    succeed(machine, 2, 0.0)
    assert isinstance(machine.next_event(), Recovered)
    assert (machine.penalty, machine.health) == (0.0, "ok")


def test_a_result_that_no_client_has_got_ends_no_complaint() -> None:
    machine = with_rivals()
    drop(machine, 1, 0.0)
    machine.consider(identity(2), 1, WANTED, 0.0, targeted=True)
    machine.handle_timeout(10.0)
    events(machine)
    run(machine, identity(2), 10.0)
    machine.finished(identity(2), Outcome.SUCCEEDED, 1.0, 11.0)
    assert machine.penalty > 0.0
    assert events(machine) == []
    machine.acknowledged(identity(2), 11.0)
    assert machine.penalty == 0.0


def test_complaints_about_a_worker_do_not_delay_its_bids_once_it_has_rested() -> None:
    """A worker whose bids are late gets no job while others are idle, so it could not show that it is healthy."""
    machine = with_rivals()
    dropped_at = drop(machine, 1, 0.0)
    events(machine)
    assert delay_of(machine, dropped_at, 2) == pytest.approx(FIRST_REST, abs=0.05)
    assert delay_of(with_rivals(), 0.0) < 0.05
    machine = with_rivals()
    drop(machine, 1, 0.0)
    events(machine)
    assert delay_of(machine, 10.0, 2) < 0.05


def test_worker_that_is_alone_rests_briefly_after_a_complaint() -> None:
    machine = bidder()
    drop(machine, 1, 0.0)
    events(machine)
    assert delay_of(machine, 0.0, 2) == pytest.approx(LONGEST_ALONE)


def test_flood_of_complaints_about_one_job_counts_once() -> None:
    machine = bidder()
    drop(machine, 1, 0.0)
    for number in range(1000):
        machine.complained(identity(1), number * 0.01)
        machine.complained(identity(1000 + number), number * 0.01)  # invented
    assert machine.penalty <= COMPLAINT_DELAY
    assert [name for name, _ in events(machine)] == ["Penalized"]


def test_complaints_of_several_clients_add_up_to_a_limit() -> None:
    machine = bidder(slots=20)
    for number in range(20):
        machine.consider(identity(number), 1, WANTED, 0.0, origin=Origin(b"client %d" % number))
    for who in connects(machine):
        run(machine, who, 0.0)
    for number in range(20):
        machine.complained(identity(number), 0.0)
    assert machine.penalty == LONGEST_DELAY


def test_complaints_fade() -> None:
    machine = bidder()
    drop(machine, 1, 0.0)
    machine.handle_timeout(HALF_LIFE)
    assert machine.penalty == pytest.approx(COMPLAINT_DELAY / 2)
    machine.handle_timeout(20 * HALF_LIFE)
    assert (machine.penalty, machine.health) == (0.0, "ok")


def test_complaint_about_a_job_that_was_lost_counts_each_time() -> None:
    machine = bidder()
    now = 0.0
    for number in range(4):
        before = machine.penalty
        now = drop(machine, number, now + 1.0)
        assert machine.penalty > before or machine.penalty == LONGEST_DELAY
        events(machine)
    assert machine.penalty == LONGEST_DELAY


def test_refusal_and_what_was_acknowledged_are_no_reason_for_a_complaint() -> None:
    machine = bidder()
    for number, outcome in enumerate((Outcome.SUCCEEDED, Outcome.FAILED, Outcome.REFUSED)):
        machine.consider(identity(number), 1, WANTED, number * 10.0, targeted=True)
        events(machine)
        run(machine, identity(number), number * 10.0)
        machine.finished(identity(number), outcome, 2.0, number * 10.0)
        machine.acknowledged(identity(number), number * 10.0)
        before = machine.penalty
        machine.complained(identity(number), number * 10.0)
        assert machine.penalty == before


def test_job_meant_for_a_slowed_worker_does_not_wait_for_its_healthy_rivals() -> None:
    machine = bidder(slots=4)
    told_of_a_healthy_rival(machine)
    now = drop(machine, 99, 0.0) + COMPLAINT_DELAY
    machine.consider(identity(1), 1, WANTED, 0.1)
    machine.consider(identity(2), 1, WANTED, 0.1, targeted=True)
    machine.leased(identity(3), 1, 0.1)  # its client may have healthier workers
    machine.handle_timeout(now)
    assert connects(machine) == [identity(2)]
    run(machine, identity(2), now)
    machine.finished(identity(2), Outcome.FAILED, 2.0, 3.0)
    while (due := machine.next_timeout()) is not None and due < 8.0:
        machine.handle_timeout(due)
        assert connects(machine) == []


def test_job_meant_for_a_slowed_worker_that_is_forgotten_is_not_taken() -> None:
    machine = bidder()
    told_of_a_healthy_rival(machine)
    drop(machine, 99, 0.0)
    machine.consider(identity(1), 1, WANTED, 0.0, targeted=True)
    machine.handle_timeout(COMPLAINT_DELAY / 2)
    machine.forget(identity(1), COMPLAINT_DELAY / 2)
    machine.handle_timeout(2 * COMPLAINT_DELAY)
    assert connects(machine) == []


def test_worker_that_nobody_slows_is_never_held() -> None:
    competition = Competition(lambda: 0.5)
    reputation = Reputation(competition)
    competition.rival_told(RivalWord(b"rival", job=b"", completed=True, clock=0.0, said_at=0.0), 0.0)
    reputation.reserved(0.0)
    reputation.started(identity(1), b"client", 0.0)
    assert reputation.held_until(0.0) < 0.0


def test_failures_are_forgiven_after_ten_minutes_so_that_a_repaired_worker_is_tried() -> None:
    machine = bidder()
    fail_quickly(machine, 5)
    machine.handle_timeout(1000.0)
    assert machine.penalty == 0.0
    assert fail_quickly(machine, 1, 1000.0) == [4.0]
