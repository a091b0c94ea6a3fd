"""Which censuses of a source that has had many answers get the next ones, and when."""

from __future__ import annotations

from math import inf

import pytest

from cexec.protocol.decisions import census_turns
from cexec.protocol.decisions.boots import MAXIMUM_BOOTS, MAXIMUM_SOURCES
from cexec.protocol.decisions.census_turns import LONGEST_ASKED, CensusTurns
from cexec.protocol.decisions.unproved import ANSWERS_BURST, ANSWERS_RATE, Unproved

NOW = 100.0
SOURCE = "10.0.0.9"
NEXT = 1.0 / ANSWERS_RATE + 0.001


@pytest.fixture
def turns() -> CensusTurns:
    """Of a worker from which SOURCE has had as many answers as it may."""
    unproved = Unproved()
    for _ in range(int(ANSWERS_BURST)):
        assert unproved.take_answer(SOURCE, NOW)
    return CensusTurns(unproved)


def test_whoever_has_had_few_answers_gets_one_at_once(turns: CensusTurns) -> None:
    assert turns.next_timeout() == inf
    for number in range(int(ANSWERS_BURST)):
        assert turns.ask(b"%d" % number, "10.0.0.8", 1, 1, NOW) == []
        assert turns.take(NOW).answered == [b"%d" % number]
    assert turns.next_timeout() == inf and not turns.waits("10.0.0.8")


def test_the_newest_of_a_boot_gets_the_next_answer(turns: CensusTurns) -> None:
    assert turns.ask(b"old", SOURCE, 1, 5, NOW) == []
    assert turns.ask(b"new", SOURCE, 1, 7, NOW) == [b"old"]
    assert turns.ask(b"older", SOURCE, 1, 6, NOW) == [b"older"]
    assert turns.ask(b"later", SOURCE, 1, 7, NOW) == [b"new"]
    assert turns.take(NOW).answered == [] and turns.waits(SOURCE)
    assert NOW < turns.next_timeout() <= NOW + NEXT
    assert turns.take(turns.next_timeout()).answered == [b"later"]
    assert turns.next_timeout() == inf and not turns.waits(SOURCE)


def test_boots_get_their_answers_in_turn(turns: CensusTurns) -> None:
    now = NOW
    order: list[bytes] = []
    for number in range(6):
        turns.ask(b"a%d" % number, SOURCE, 1, 1000 + number, now)
        if not number:
            turns.ask(b"b", SOURCE, 2, 1, now)
            turns.ask(b"c", SOURCE, 0, 0, now)
        order += turns.take(now).answered
        now = turns.next_timeout()
        order += turns.take(now).answered
    # Every second answer is for the newest of all, the others are for the boots in turn.
    assert order == [b"a0", b"b", b"a2", b"c", b"a4", b"a5"]


def test_one_that_has_waited_too_long_gets_none(turns: CensusTurns) -> None:
    for number in range(60):
        turns.ask(b"%d" % number, SOURCE, number, 1, NOW)
    answered = dropped = 0
    now = NOW
    while turns.next_timeout() != inf:
        now = max(now + 0.001, turns.next_timeout())
        taken = turns.take(now)
        answered, dropped = answered + len(taken.answered), dropped + len(taken.dropped)
    assert NOW + LONGEST_ASKED <= now < NOW + LONGEST_ASKED + NEXT
    assert answered + dropped == 60 and answered <= LONGEST_ASKED * ANSWERS_RATE + 1


def test_what_waits_is_bounded(turns: CensusTurns) -> None:
    for number in range(MAXIMUM_BOOTS):
        assert turns.ask(b"%d" % number, SOURCE, number, 1, NOW) == []
    assert turns.ask(b"more", SOURCE, MAXIMUM_BOOTS, 1, NOW) == [b"more"]
    assert turns.ask(b"newest", SOURCE, MAXIMUM_BOOTS, 2, NOW) == [b"%d" % (MAXIMUM_BOOTS - 1)]
    assert turns.take(turns.next_timeout()).answered == []
    assert turns.take(turns.next_timeout()).answered == [b"newest"]
    for number in range(MAXIMUM_SOURCES - 1):
        assert turns.ask(b"s", f"source {number}", 1, 1, NOW) == []
    assert turns.ask(b"more", "another", 1, 1, NOW) == [b"more"]


def test_a_source_that_is_not_remembered_any_more_may_have_answers_again(
    turns: CensusTurns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cexec.protocol.decisions.unproved.MAXIMUM_SOURCES", 1)
    assert turns.ask(b"1", SOURCE, 1, 1, NOW) == []
    assert turns.take(NOW).answered == []
    turns.ask(b"2", "10.0.0.8", 1, 1, NOW)
    assert turns.take(NOW + census_turns.LONGEST_ASKED / 2).answered == [b"1", b"2"]
