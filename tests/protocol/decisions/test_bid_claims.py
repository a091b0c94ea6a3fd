"""What a claim of another worker's win means, whether it comes before its announcement or after it."""

from __future__ import annotations

from cexec.protocol.decisions.bid import Bidder
from cexec.protocol.decisions.bid_events import Forget
from cexec.protocol.decisions.clients import LEAST_TURN
from cexec.protocol.decisions.remembered import FIRST_RETRY, LONGEST_RETRY, Origin, Retry
from tests.protocol.decisions.bidders import WANTED, bidder, connects, identity

ONE = identity(1)


def forgotten(machine: Bidder) -> list[bool]:
    """Whether each announcement that is to be forgotten is over."""
    found = []
    while (event := machine.next_event()) is not None:
        if isinstance(event, Forget):
            found.append(event.over)
    return found


def test_a_claim_tells_of_a_rival_whether_it_comes_first_or_last() -> None:
    first, last = bidder(), bidder()
    first.claimed(ONE, 1, 0.0)
    assert first.competition.alone(0.0)  # it may be of an announcement for other workers
    first.consider(ONE, 1, WANTED, 0.0)
    assert not first.competition.alone(0.0) and connects(first) == []
    last.consider(ONE, 1, WANTED, 0.0)
    last.claimed(ONE, 1, 0.0)
    assert not last.competition.alone(0.0)
    assert forgotten(last) == [True]


def test_copies_that_come_after_a_claim_count_for_nothing() -> None:
    machine = bidder()
    machine.consider(ONE, 1, WANTED, 0.0)
    machine.claimed(ONE, 40, 0.0)
    count = machine.competition.count
    assert count > 1
    for _ in range(3):
        machine.consider(ONE, 1, WANTED, 1.0)
    assert machine.competition.count == count


def test_a_claim_that_comes_first_is_counted_once() -> None:
    machine = bidder()
    machine.claimed(ONE, 40, 0.0)
    machine.consider(ONE, 1, WANTED, 0.0)
    count = machine.competition.count
    assert count > 1
    machine.consider(ONE, 1, WANTED, 1.0)
    assert machine.competition.count == count


def test_claims_of_one_connection_teach_the_same_whether_they_come_first_or_last() -> None:
    first, last = bidder(), bidder()
    for machine in (first, last):
        machine.consider(ONE, 1, WANTED, 0.0)
        machine.claimed(ONE, 1000, 0.0)
    for number in range(2, 12):
        first.claimed(identity(number), 1, 1.0)
        first.consider(identity(number), 1, WANTED, 1.0)
        last.consider(identity(number), 1, WANTED, 1.0)
        last.claimed(identity(number), 1, 1.0)
    assert first.competition.count == last.competition.count > 1


def test_what_is_not_heard_any_more_is_forgotten_but_not_over() -> None:
    machine = bidder()
    machine.consider(identity(2), 1, WANTED, 0.0)
    (running,) = connects(machine)
    assert machine.reserved(running, 0.0)
    machine.started(running, 0.0)
    machine.consider(ONE, 1, 2.0, 0.0)
    machine.handle_timeout(1000.0)
    assert forgotten(machine) == [False]


def test_the_pauses_between_tries_double_up_to_the_longest() -> None:
    retry = Retry()
    pauses = []
    for _ in range(12):
        retry.failed(100.0, 0.5)
        pauses.append(retry.at - 100.0)
    assert pauses == [min(FIRST_RETRY * 2.0**number, LONGEST_RETRY) for number in range(12)]


def test_a_copy_does_not_put_off_a_try_that_is_due() -> None:
    machine = bidder()
    machine.consider(ONE, 1, WANTED, 0.0)
    connects(machine)
    machine.failed(ONE, 0.0)
    machine.consider(ONE, 1, WANTED, 5.0)
    machine.consider(ONE, 1, WANTED, 6.0)
    due = machine.next_timeout()
    assert due is not None and due <= 5.0


def test_a_slot_that_is_given_back_after_a_claim_tells_of_a_rival() -> None:
    """Before that it was not known who had won."""
    machine = bidder()
    machine.consider(ONE, 1, WANTED, 0.0)
    assert connects(machine) == [ONE] and machine.reserved(ONE, 0.0)
    machine.claimed(ONE, 1, 0.0)
    assert machine.competition.alone(0.0)
    machine.released(ONE, 0.0)
    assert not machine.competition.alone(0.0)


def test_a_claim_that_comes_while_this_worker_connects_is_a_turn_without_a_job() -> None:
    machine = bidder()
    machine.consider(ONE, 1, WANTED, 0.0, origin=Origin(b"client"))
    assert connects(machine) == [ONE]
    machine.claimed(ONE, 2, 0.0)
    assert machine.accounts.wasted(b"client", 0.0) == LEAST_TURN
