"""How many searches there are at a time."""

from __future__ import annotations

from cexec.client.aio.pacing import (
    CONTENDED_FOR,
    CONTENDED_SEARCHES,
    FIRST_SEARCHES,
    MOST_SEARCHES,
    SEARCH_PATIENCE,
    Pacing,
)


def test_several_search_until_all_slots_seem_to_be_taken() -> None:
    pacing = Pacing()
    assert pacing.searches(None, 0.0) == FIRST_SEARCHES
    assert pacing.searches(0.0, SEARCH_PATIENCE - 0.1) == FIRST_SEARCHES
    assert pacing.searches(0.0, SEARCH_PATIENCE) == 1
    assert pacing.searches(1.0, 1.1) == 1


def test_more_search_where_each_search_succeeds_at_once() -> None:
    pacing = Pacing()
    for number in range(100):
        pacing.succeeded(number, number + 0.01)
    assert pacing.searches(100.0, 100.1) == MOST_SEARCHES


def test_searches_that_succeed_at_once_become_more_again() -> None:
    pacing = Pacing()
    pacing.searches(0.0, SEARCH_PATIENCE)
    pacing.succeeded(5.0, 5.1)
    assert pacing.searches(None, 5.1) == 2
    pacing.succeeded(4.0, 5.2)  # it has waited
    assert pacing.searches(None, 5.2) == 2


def test_where_others_wait_too_many_search_and_no_lease_is_kept() -> None:
    pacing = Pacing()
    assert not pacing.contended(0.0)
    pacing.waited_in_vain(0.0)
    assert pacing.contended(1.0)
    pacing.succeeded(1.0, 1.1)
    assert pacing.searches(0.0, 2.0) == CONTENDED_SEARCHES
    assert not pacing.contended(CONTENDED_FOR)
