from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cexec.protocol.decisions.lottery import RANKS, ClientLottery, Lottery, Waiting


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


# clients


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 5), st.sampled_from(["add", "discard", "draw", "turn"]))))
def test_a_lottery_of_clients_gives_each_that_waits_once_and_those_of_the_lowest_rank_first(
    steps: list[tuple[int, int, str]],
) -> None:
    ranks: dict[bytes, int] = {}
    lottery = ClientLottery(Random(1).random, lambda client: ranks.get(client, 0))
    waiting: dict[bytes, bytes] = {}
    for number, weight, what in steps:
        client = b"client %d" % (number % 4)
        if what == "add" and ticket(number) not in waiting:
            lottery.add(ticket(number), client, weight)
            waiting[ticket(number)] = client
        elif what == "discard":
            lottery.discard(ticket(number))
            waiting.pop(ticket(number), None)
        elif what == "turn":
            ranks[client] = weight % RANKS
            lottery.reconsider(client)
        elif what == "draw" and waiting:
            lowest = min(ranks.get(one, 0) for one in waiting.values())
            assert ranks.get(waiting.pop(lottery.draw()), 0) == lowest
        assert (len(lottery), lottery.clients) == (len(waiting), len(set(waiting.values())))
    assert {lottery.draw() for _ in range(len(waiting))} == set(waiting)


def test_a_client_has_the_share_of_its_heaviest_ticket_however_many_it_has() -> None:
    lottery = ClientLottery(Random(1).random, lambda client: 0)
    for number in range(100):
        lottery.add(ticket(number), b"many", 1)
    for number in range(100, 200):
        lottery.add(ticket(number), b"heavy", 3 if number % 2 else 1)
    drawn = [lottery.draw() for _ in range(40)]
    assert 28 <= sum(one >= ticket(100) for one in drawn) <= 32


def test_of_one_client_the_heavier_tickets_are_drawn_more_often() -> None:
    """Several jobs of one user, with weights of their own."""
    lottery = ClientLottery(Random(1).random, lambda client: 0)
    for number in range(200):
        lottery.add(ticket(number), b"one", 1 + 2 * (number % 2))
    drawn = [lottery.draw() for _ in range(40)]
    assert 28 <= sum(one[-1] % 2 for one in drawn) <= 32
