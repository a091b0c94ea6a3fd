from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cexec.protocol.base import limits
from cexec.protocol.decisions.bid import (
    STALL,
    Bidder,
    Connect,
    Forget,
    Outcome,
    Penalized,
    Queued,
    Recovered,
)
from cexec.protocol.decisions.clients import STALLED_EACH
from cexec.protocol.decisions.competition import FEW
from cexec.protocol.decisions.queue_words import QUEUED_SPACING
from cexec.protocol.decisions.remembered import MAXIMUM_REMEMBERED, SILENT, STILL_HEARD, Origin
from cexec.protocol.decisions.reservations import LEASE_PATIENCE
from cexec.protocol.decisions.rivals import RivalWord
from cexec.protocol.decisions.slots import STALLED_ALLOWED
from tests.protocol.decisions.bidders import WANTED, bidder, connects, delay_of, events, identity, run, with_rivals

# Slots


def test_it_counts_the_announcements_that_wait_and_their_clients() -> None:
    machine = bidder()
    machine.consider(identity(1), 1, WANTED, 0.0)
    assert connects(machine) == [identity(1)]
    run(machine, identity(1), 0.0)
    for number, client in ((2, b"a"), (3, b"a"), (4, b"b")):
        machine.consider(identity(number), 1, WANTED, 1.0, origin=Origin(client))
    assert (machine.waiting, machine.waiting_clients) == (3, 2)


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


def full_among(rivals: int) -> Bidder:
    """A worker without a free slot that has heard of so many others."""
    machine = bidder()
    machine.consider(identity(1), 1, WANTED, 0.0)
    events(machine)
    run(machine, identity(1), 0.0)
    for number in range(rivals):
        name = str(number).encode()
        word = RivalWord(name, job=identity(100 + number), completed=True, clock=0.5, said_at=0.5)
        machine.competition.rival_told(word, 0.5)
    return machine


def test_one_full_worker_of_many_waits_before_it_says_so_and_says_nothing_if_another_takes_the_job() -> None:
    machine = full_among(FEW + 1)
    for number in (2, 3):
        machine.consider(identity(number), 1, 60.0, 1.0)
    assert events(machine) == []
    machine.claimed(identity(2), 3, 1.03)
    assert events(machine) == [("Forget", identity(2))]
    machine.handle_timeout(1.0 + SILENT * 0.49)
    assert events(machine) == []
    machine.handle_timeout(1.0 + SILENT * 1.5 + QUEUED_SPACING)
    assert events(machine) == [("Queued", identity(3))]


def test_a_full_worker_says_so_at_once_if_there_are_few_others_or_only_it_is_asked() -> None:
    few = full_among(FEW)
    few.consider(identity(2), 1, 60.0, 1.0)
    assert events(few) == [("Queued", identity(2))]
    many = full_among(FEW + 1)
    many.consider(identity(2), 1, 60.0, 1.0, targeted=True)
    assert events(many) == [("Queued", identity(2))]


def test_a_client_that_asks_again_is_told_again_a_few_times_because_a_datagram_may_have_been_lost() -> None:
    """Regression: one lost QUEUED left a client without a word for ten seconds, longer than it may wait."""
    machine = bidder()
    machine.consider(identity(1), 1, WANTED, 0.0)
    events(machine)
    run(machine, identity(1), 0.0)
    told = []
    for now in (0.0, 0.25, 0.7, 1.4, 2.6, 4.7, 8.2, 9.9):
        machine.consider(identity(2), 1, WANTED, now)
        machine.handle_timeout(now)
        told += [now for _ in events(machine)]
    assert told == [0.0, 1.4, 2.6, 4.7]
    machine.handle_timeout(4.7 + limits.QUEUED_INTERVAL)
    assert events(machine) == [("Queued", identity(2))]


def test_where_many_workers_answer_one_lost_word_is_no_loss() -> None:
    machine = bidder()
    for number in range(10, 13):
        machine.consider(identity(number), 1, WANTED, 0.0)
        machine.claimed(identity(number), 200, 0.1)
    events(machine)
    machine.consider(identity(1), 1, WANTED, 1.0)
    machine.handle_timeout(2.0)
    events(machine)
    run(machine, identity(1), 2.0)
    machine.consider(identity(2), 1, WANTED, 3.0)
    machine.handle_timeout(4.0)
    events(machine)
    machine.consider(identity(2), 1, WANTED, 5.0)
    machine.handle_timeout(5.0)
    assert events(machine) == []


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
    machine.finished(identity(1), Outcome.SUCCEEDED, 2.0, 2.0)
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
    machine.finished(identity(1), Outcome.SUCCEEDED, 1.0, 11 * WANTED)
    assert (machine.slots.running, machine.slots.free) == (0, 1)


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


@pytest.mark.parametrize(("clients", "most"), [(1, STALLED_EACH), (100, 2 + STALLED_ALLOWED)])
def test_stalled_connections_give_way_but_only_a_few(clients: int, most: int) -> None:
    """Those of one client do not take the place of another's."""
    machine = bidder(slots=2)
    for number in range(500):
        machine.consider(identity(number), 1, WANTED, 0.0, origin=Origin(b"%d" % (number % clients)))
    total = len(connects(machine))
    now = 0.0
    for _ in range(40):
        now += STALL
        machine.handle_timeout(now)
        total += len(connects(machine))
    assert total == most
    if clients == 1:
        machine.consider(b"another client's", 1, WANTED, now, origin=Origin(b"other"))
        assert connects(machine) == [b"another client's"]


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
    assert (machine.slots.free, machine.waiting) == (0, 2)


def test_reservation_without_go_frees_the_slot_and_is_tried_again_when_heard() -> None:
    machine = bidder()
    machine.consider(identity(1), 1, WANTED, 0.0)
    events(machine)
    assert machine.reserved(identity(1), 0.0)
    machine.released(identity(1), 1.0)
    assert machine.slots.free == 1
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
    assert machine.slots.free == 1


def test_every_other_call_for_an_unknown_announcement_does_nothing() -> None:
    machine = bidder()
    for method in (machine.failed, machine.withdrawn, machine.started, machine.released, machine.forget):
        method(identity(1), 0.0)
    machine.finished(identity(1), Outcome.SUCCEEDED, 1.0, 0.0)
    assert not machine.reserved(identity(1), 0.0)
    assert (machine.slots.free, machine.next_event(), machine.next_timeout()) == (1, None, None)


def test_client_that_went_away_is_forgotten() -> None:
    machine = bidder()
    machine.consider(identity(1), 1, WANTED, 0.0)
    events(machine)
    run(machine, identity(1), 0.0)
    machine.consider(identity(2), 1, WANTED, 0.0)
    machine.forget(identity(2), 0.1)
    machine.finished(identity(1), Outcome.SUCCEEDED, 1.0, 1.0)
    assert connects(machine) == []


# Memory


def test_memory_is_bounded_and_the_announcement_heard_longest_ago_goes_first() -> None:
    machine = bidder()
    machine.consider(identity(0), 1, WANTED, 0.0)
    events(machine)
    run(machine, identity(0), 0.0)
    for number in range(1, MAXIMUM_REMEMBERED):
        machine.consider(identity(number), 1, 3600.0, 1.0)
    for number in range(MAXIMUM_REMEMBERED, MAXIMUM_REMEMBERED + 100):
        machine.consider(identity(number), 1, 3600.0, 1.0 + STILL_HEARD)
    forgotten = [who for name, who in events(machine) if name == "Forget"]
    assert forgotten == [identity(number) for number in range(1, 101)]
    assert machine.waiting == MAXIMUM_REMEMBERED - 1
    machine.finished(identity(0), Outcome.SUCCEEDED, 1.0, 8.0)
    assert len(connects(machine)) == 1


def test_idle_worker_wants_no_timer() -> None:
    machine = with_rivals()
    for number in range(20):
        delay_of(machine, float(number), number)
        run(machine, identity(number), number + 0.1)
        machine.finished(identity(number), Outcome.SUCCEEDED, 0.1, number + 0.2)
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
                *Outcome,
            ]
        ),
        st.integers(0, 5),
        st.floats(0.0, 2.0),
    ),
    max_size=60,
)


@settings(max_examples=200)
@given(STEPS, st.integers(1, 3))
def test_any_order_of_calls_keeps_the_slots_and_ends_idle(
    steps: list[tuple[str | Outcome, int, float]], slots: int
) -> None:
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
        elif isinstance(name, Outcome):
            machine.finished(who, name, passed, now)
        else:
            getattr(machine, name)(who, now)
        events(machine)
        assert 0 <= machine.slots.free <= slots
        assert machine.slots.free + machine.slots.running + machine.slots.reserved == slots
    for number in range(6):
        machine.released(identity(number), now)
        machine.finished(identity(number), Outcome.SUCCEEDED, 1.0, now)
        machine.failed(identity(number), now)
    for _ in range(1000):
        for event in iter(machine.next_event, None):
            assert isinstance(event, (Connect, Queued, Forget, Recovered, Penalized))
            if isinstance(event, Connect):
                machine.failed(event.identity, now)
        due = machine.next_timeout()
        if due is None:
            break
        now = max(now, due)  # what expired during a connection attempt is due at once
        machine.handle_timeout(now)
    assert (machine.slots.free, machine.waiting, machine.next_timeout()) == (slots, 0, None)


def test_a_lease_that_goes_on_in_its_slot_is_not_drawn() -> None:
    machine = bidder()
    machine.consider(identity(1), 1, WANTED, 0.0)
    (who,) = connects(machine)
    run(machine, who, 0.0)
    machine.finished(who, Outcome.SUCCEEDED, 1.0, 1.0)
    machine.hold(identity(2), 1, 1.0, latency=0.0)
    assert (machine.waiting, machine.slots.free, machine.slots.reserved) == (0, 0, 1)
    assert connects(machine) == []
    machine.started(identity(2), 1.0)
    assert machine.slots.running == 1


def test_a_lease_that_goes_on_without_a_slot_waits_for_one() -> None:
    machine = bidder()
    machine.consider(identity(1), 1, WANTED, 0.0)
    (who,) = connects(machine)
    run(machine, who, 0.0)
    machine.hold(identity(2), 1, 1.0, latency=0.0)
    assert (machine.waiting, machine.slots.reserved) == (1, 0)  # the last job has not ended
    machine.finished(who, Outcome.SUCCEEDED, 1.0, 1.0)
    assert connects(machine) == [identity(2)]


def test_a_slot_that_a_lease_holds_is_taken_back_for_another_client() -> None:
    machine = bidder()
    machine.hold(identity(1), 1, 0.0, b"client", latency=0.0)
    machine.consider(identity(2), 1, WANTED, 0.1, origin=Origin(b"other"))
    machine.handle_timeout(LEASE_PATIENCE - 0.01)
    assert "Withdraw" not in [name for name, _ in events(machine)]
    machine.handle_timeout(LEASE_PATIENCE)
    assert ("Withdraw", identity(1)) in events(machine)
