from __future__ import annotations

import pytest

from cexec.protocol.decisions.bid import Bidder, Connect, Outcome, Penalized, Recovered
from cexec.protocol.decisions.reputation import (
    COMPLAINT_DELAY,
    COMPLAINT_HALF_LIFE,
    LONGEST_ALONE,
    LONGEST_DELAY,
    MAXIMUM_REMEMBERED,
    YIELDING,
    YIELDING_TO_HEALTHY,
    Reputation,
)
from tests.protocol.decisions.bidders import WANTED, bidder, connects, delay_of, events, identity, run, with_rivals

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
    machine.complained(b"client", 1.0, identity(7000))  # as the client does of every refusal
    assert (machine.penalty, machine.health, machine.free) == (0.0, "ok", 1)
    machine.complained(b"client", 1.0, identity(1))
    assert machine.penalty > 0.0


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
    machine = bidder()
    machine.complained(b"client", 0.0)
    assert delay_of(machine, 0.0) == pytest.approx(LONGEST_ALONE)


def test_slowed_worker_does_not_rest_after_a_connection_that_failed() -> None:
    """Regression: clients that had gone, such as the searches that cmap had given up, cost a rest each."""
    machine = with_rivals()
    machine.complained(b"client", 0.0)
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


def test_complaints_slow_a_worker_and_a_success_ends_it() -> None:
    machine = with_rivals()
    machine.complained(b"client", 0.0)
    event = machine.next_event()
    assert isinstance(event, Penalized) and event.seconds == pytest.approx(1.0)
    assert delay_of(machine, 0.0) == pytest.approx(1.0, abs=0.02)
    run(machine, identity(1), 1.0)
    machine.finished(identity(1), Outcome.SUCCEEDED, 1.0, 2.0)
    assert machine.penalty == 0.0


def test_flood_of_one_client_counts_once() -> None:
    machine = bidder()
    for number in range(1000):
        machine.complained(b"client", number * 0.01)
    assert machine.penalty <= COMPLAINT_DELAY
    assert [name for name, _ in events(machine)] == ["Penalized"]


def test_complaints_of_several_clients_add_up_to_a_limit() -> None:
    machine = bidder()
    for number in range(20):
        machine.complained(b"client %d" % number, 0.0)
    assert machine.penalty == LONGEST_DELAY


def test_complaints_fade() -> None:
    machine = bidder()
    machine.complained(b"client", 0.0)
    machine.handle_timeout(COMPLAINT_HALF_LIFE)
    assert machine.penalty == pytest.approx(COMPLAINT_DELAY / 2)
    machine.handle_timeout(20 * COMPLAINT_HALF_LIFE)
    assert (machine.penalty, machine.health) == (0.0, "ok")


def test_complaint_about_a_job_that_was_lost_counts_each_time() -> None:
    machine = bidder()
    for number in range(4):
        reputation_now = machine.penalty
        now = delay_of(machine, number * 10.0, number) + number * 10.0
        run(machine, identity(number), now)
        machine.finished(identity(number), Outcome.BROKEN, 0.1, now)
        machine.complained(b"client", now, identity(number))
        assert machine.penalty > reputation_now or machine.penalty == LONGEST_DELAY
        for _ in range(10):
            machine.complained(b"client", now, identity(number))
    assert machine.penalty == LONGEST_DELAY


def test_complaint_about_a_job_that_was_done_is_an_ordinary_one() -> None:
    machine = bidder()
    delay_of(machine, 0.0)
    run(machine, identity(1), 0.0)
    machine.finished(identity(1), Outcome.SUCCEEDED, 1.0, 1.0)
    machine.complained(b"client", 1.0, identity(1))
    machine.complained(b"client", 1.0, identity(1))
    assert machine.penalty == pytest.approx(COMPLAINT_DELAY)


def test_slowed_worker_yields_to_rivals_that_take_jobs_and_more_to_healthy_ones() -> None:
    reputation = Reputation()
    reputation.complained(b"client", None, 0.0)
    assert reputation.held_until(0.0) == pytest.approx(COMPLAINT_DELAY)
    reputation.rival_took_a_job(0.0)
    assert reputation.held_until(0.0) == pytest.approx(YIELDING * COMPLAINT_DELAY)
    reputation.rival_succeeded(0.0)
    assert reputation.held_until(0.0) == pytest.approx(YIELDING_TO_HEALTHY * COMPLAINT_DELAY)


def test_job_meant_for_a_slowed_worker_does_not_wait_for_its_healthy_rivals() -> None:
    machine = bidder(slots=4)
    machine.complained(b"client", 0.0)
    machine.rival_succeeded(0.0)
    machine.consider(identity(1), 1, WANTED, 0.0)
    machine.consider(identity(2), 1, WANTED, 0.0, targeted=True)
    machine.leased(identity(3), 1, 0.0)  # its client may have healthier workers
    machine.handle_timeout(COMPLAINT_DELAY)
    assert connects(machine) == [identity(2)]
    run(machine, identity(2), COMPLAINT_DELAY)
    machine.finished(identity(2), Outcome.FAILED, 2.0, 3.0)
    while (due := machine.next_timeout()) is not None and due < 8.0:
        machine.handle_timeout(due)
        assert connects(machine) == []


def test_job_meant_for_a_slowed_worker_that_is_forgotten_is_not_taken() -> None:
    machine = bidder()
    machine.complained(b"client", 0.0)
    machine.rival_succeeded(0.0)
    machine.consider(identity(1), 1, WANTED, 0.0, targeted=True)
    machine.handle_timeout(COMPLAINT_DELAY / 2)
    machine.forget(identity(1), COMPLAINT_DELAY / 2)
    machine.handle_timeout(2 * COMPLAINT_DELAY)
    assert connects(machine) == []


def test_worker_that_nobody_slows_is_never_held() -> None:
    reputation = Reputation()
    reputation.rival_succeeded(0.0)
    reputation.pause(0.0)
    assert reputation.held_until(0.0) < 0.0


def test_failures_are_forgiven_after_ten_minutes_so_that_a_repaired_worker_is_tried() -> None:
    machine = bidder()
    fail_quickly(machine, 5)
    machine.handle_timeout(1000.0)
    assert machine.penalty == 0.0
    assert fail_quickly(machine, 1, 1000.0) == [4.0]


def test_memory_of_clients_and_jobs_is_bounded() -> None:
    reputation = Reputation()
    for number in range(3 * MAXIMUM_REMEMBERED):
        assert reputation.complained(b"client %d" % number, None, 0.0)
        reputation.started(b"job %d" % number, 0.0)
    first, last = 2 * MAXIMUM_REMEMBERED, 3 * MAXIMUM_REMEMBERED - 1
    # A client that is remembered does not count again, except about a job that is remembered.
    assert not reputation.complained(b"client %d" % first, b"job %d" % (first - 1), 0.0)
    assert reputation.complained(b"client %d" % last, b"job %d" % first, 0.0)
    assert not reputation.complained(b"client %d" % last, None, 0.0)
    assert reputation.complained(b"client %d" % (first - 1), None, 0.0)
