"""The allowances of announcements whose source nothing proves, and what a worker answers out of them."""

from __future__ import annotations

from cexec.protocol.decisions.bid import Bidder
from cexec.protocol.decisions.bid_events import Forget
from cexec.protocol.decisions.remembered import Origin
from cexec.protocol.decisions.standing import Standing
from cexec.protocol.decisions.unproved import (
    ANSWERS_BURST,
    ANSWERS_RATE,
    SPARE_TRIES_BURST,
    SPARE_TRIES_RATE,
    WORDS_BURST,
    Unproved,
)
from tests.protocol.decisions.bidders import WANTED, bidder, connects, events, identity, run, use_up_words

ONE = identity(1)
DOUBTED, UNPROVED, PROVED = Standing


def heard(standing: Standing) -> Bidder:
    machine = bidder()
    machine.consider(ONE, 1, WANTED, 0.0, standing=standing, source="10.0.0.1")
    return machine


def test_a_source_gets_a_bounded_number_of_answers() -> None:
    allowances = Unproved()
    for _ in range(int(ANSWERS_BURST)):
        assert allowances.take_answer("10.0.0.1", 0.0)
    assert not allowances.take_answer("10.0.0.1", 0.0)
    assert allowances.take_answer("10.0.0.2", 0.0)
    for _ in range(int(ANSWERS_RATE)):
        assert allowances.take_answer("10.0.0.1", 1.0)
    assert not allowances.take_answer("10.0.0.1", 1.0)


def test_clients_of_0_1_0_share_a_few_connections_at_once_and_one_now_and_then() -> None:
    allowances = Unproved()

    def tries(now: float) -> int:
        count = 0
        while allowances.spare_try(now):
            allowances.spend_spare_try()
            count += 1
        return count

    assert [tries(0.0), tries(1.0 / SPARE_TRIES_RATE), tries(1000.0)] == [SPARE_TRIES_BURST, 1, SPARE_TRIES_BURST]


def tried(machine: Bidder, count: int, first: int) -> int:
    """Announcements of 0.1.0 come and their connections fail at once; returns how many connections there were."""
    found = 0
    for number in range(first, first + count):
        machine.consider(identity(number), 1, WANTED, 0.0, standing=UNPROVED, source=str(number), proves=False)
        for who in connects(machine):
            found += 1
            machine.failed(who, 0.0)
    return found


def test_beside_proved_clients_those_of_0_1_0_have_the_quota_also_for_their_first_connections() -> None:
    machine = bidder()
    assert tried(machine, 10, 100) == 10  # there is a place: that costs nothing of the quota
    machine.consider(ONE, 1, WANTED, 0.0)
    assert connects(machine) == [ONE]
    assert tried(machine, 10, 200) == SPARE_TRIES_BURST


def test_a_client_that_is_not_proved_is_answered_once() -> None:
    machine = heard(UNPROVED)
    assert [machine.may_answer(ONE, 0.0) for _ in range(3)] == [True, False, False]


def test_what_is_refused_costs_nothing_of_the_quota_of_0_1_0() -> None:
    machine = heard(UNPROVED)
    assert [machine.may_answer(ONE, 0.0) for _ in range(200)].count(True) == 1
    machine.consider(identity(2), 1, WANTED, 0.0, standing=UNPROVED, source="10.0.0.2", proves=False)
    assert all(machine.may_answer(identity(2), 0.0) for _ in range(5))


def test_whoever_is_forgiven_has_a_new_allowance() -> None:
    allowances = Unproved()
    allowances.note_told(ONE)
    allowances.forgive(ONE)
    allowances.forgive(identity(2))  # that nobody has heard of
    assert not allowances.told_once(ONE)


def test_an_answer_counts_for_the_source_that_was_heard_last() -> None:
    machine = heard(UNPROVED)
    machine.consider(ONE, 1, WANTED, 0.0, standing=UNPROVED, source="10.0.0.2")
    use_up_words(machine.unproved, "10.0.0.2", 0.0)
    assert not machine.may_answer(ONE, 0.0)
    machine.consider(ONE, 1, WANTED, 0.0, standing=UNPROVED, source="10.0.0.3")
    assert machine.may_answer(ONE, 0.0)


def test_a_client_that_is_proved_is_answered_each_time() -> None:
    machine = heard(PROVED)
    assert all(machine.may_answer(ONE, 0.0) for _ in range(int(2 * WORDS_BURST)))


def test_nobody_is_answered_of_whom_nothing_is_known() -> None:
    assert bidder().may_answer(ONE, 0.0) is False


def test_one_that_has_had_everything_is_over_and_not_remembered() -> None:
    """It may come again for as long as somebody sends it, and each time it would take room."""
    machine = heard(UNPROVED)
    assert connects(machine) == [ONE]
    machine.failed(ONE, 0.0)
    assert machine.may_answer(ONE, 0.0)
    machine.handle_timeout(WANTED)
    assert events(machine) == [("Forget", ONE)]
    for now in (WANTED + 1.0, WANTED + 100.0):
        machine.consider(ONE, 1, WANTED, now, standing=UNPROVED, source="10.0.0.2")
        event = machine.next_event()
        assert isinstance(event, Forget) and event.over
        assert events(machine) == [] and machine.next_timeout() is None


def test_a_connection_to_a_source_that_nothing_proves_is_no_turn_of_a_client_that_has_a_job_here() -> None:
    """Somebody may have sent a recorded announcement of it from elsewhere."""
    machine = bidder(slots=2)
    machine.consider(ONE, 1, WANTED, 0.0, origin=Origin(b"client"))
    assert connects(machine) == [ONE]
    run(machine, ONE, 0.0)
    machine.consider(identity(2), 1, WANTED, 5.0, origin=Origin(b"client"), standing=UNPROVED, source="10.0.0.1")
    machine.handle_timeout(5.0)
    assert connects(machine) == [identity(2)]
    machine.failed(identity(2), 6.0)
    assert machine.accounts.wasted(b"client", 6.0) == 0.0
