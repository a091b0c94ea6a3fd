from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cexec.protocol.decisions.lottery import Lottery, Waiting


def ticket(number: int) -> bytes:
    return number.to_bytes(16, "big")


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 5), st.booleans())))
def test_draws_give_each_that_waits_once_and_nobody_else(steps: list[tuple[int, int, bool]]) -> None:
    lottery = Lottery(Random(1).random)
    waiting: set[bytes] = set()
    for number, weight, add in steps:
        if not add:
            lottery.discard(ticket(number))
            waiting.discard(ticket(number))
        elif ticket(number) not in waiting:
            lottery.add(ticket(number), weight)
            waiting.add(ticket(number))
        assert len(lottery) == len(waiting)
    assert {lottery.draw() for _ in range(len(waiting))} == waiting
    assert len(lottery) == 0


def test_draw_from_nothing_is_an_error() -> None:
    with pytest.raises(LookupError):
        Lottery(Random(1).random).draw()


@pytest.mark.parametrize("seed", range(10))
def test_shares_follow_the_weights_over_a_few_dozen_draws(seed: int) -> None:
    lottery = Lottery(Random(seed).random)
    weights = {ticket(number): 1 + 2 * (number % 2) for number in range(40)}
    for who, weight in weights.items():
        lottery.add(who, weight)
    counts = {1: 0, 3: 0}
    for _ in range(48):
        who = lottery.draw()
        counts[weights[who]] += 1
        lottery.add(who, weights[who])
    assert counts[1] == pytest.approx(12, abs=1)


def test_all_of_one_weight_have_their_turn() -> None:
    lottery = Lottery(Random(1).random)
    for number in range(10):
        lottery.add(ticket(number), 7)
    counts = dict.fromkeys(map(ticket, range(10)), 0)
    for _ in range(1000):
        who = lottery.draw()
        counts[who] += 1
        lottery.add(who, 7)
    assert min(counts.values()) > 60


def test_those_that_are_targeted_are_drawn_by_themselves_or_among_all() -> None:
    waiting = Waiting(Random(1).random)
    for number in range(6):
        waiting.add(ticket(number), 1, targeted=number < 2)
    assert {waiting.draw(targeted=True) for _ in range(2)} == {ticket(0), ticket(1)}
    assert (len(waiting), waiting.any_targeted) == (4, False)
    with pytest.raises(LookupError):
        waiting.draw(targeted=True)
    waiting.add(ticket(0), 1, targeted=True)
    waiting.discard(ticket(5))
    assert {waiting.draw(targeted=False) for _ in range(4)} == {ticket(number) for number in (0, 2, 3, 4)}
    assert (len(waiting), waiting.any_targeted) == (0, False)
