"""How many searches there are at a time."""

from __future__ import annotations

from cexec.cmap.pacing import (
    CONTENDED_FOR,
    CONTENDED_SEARCHES,
    FIRST_PAUSE,
    LONGEST_PAUSE,
    MOST_SEARCHES,
    SEARCH_PATIENCE,
    Pacing,
)


def test_several_search_until_all_slots_seem_to_be_taken() -> None:
    pacing = Pacing()
    assert pacing.searches(None, 0.0) == MOST_SEARCHES
    assert pacing.searches(0.0, SEARCH_PATIENCE - 0.1) == MOST_SEARCHES
    assert pacing.searches(0.0, SEARCH_PATIENCE) == 1
    assert pacing.searches(1.0, 1.1) == 1


def test_searches_that_succeed_at_once_become_more_again() -> None:
    pacing = Pacing()
    pacing.searches(0.0, SEARCH_PATIENCE)
    pacing.succeeded(5.0, 5.1, needless=False)
    assert pacing.searches(None, 5.1) == 2
    pacing.succeeded(4.0, 5.2, needless=False)  # it has waited
    assert pacing.searches(None, 5.2) == 2


def test_a_search_that_finds_nothing_new_is_followed_later_and_later() -> None:
    pacing = Pacing()
    now, pauses = 0.0, []
    for _ in range(6):
        pacing.succeeded(now, now, needless=True)
        due = pacing.next_timeout(now)
        assert due is not None and pacing.searches(None, now) == 0
        pauses.append(due - now)
        now = due
        assert pacing.searches(None, now) == MOST_SEARCHES
    assert (pauses[0], pauses[1], pauses[-1]) == (FIRST_PAUSE, 2 * FIRST_PAUSE, LONGEST_PAUSE)
    pacing.succeeded(now, now, needless=False)
    assert pacing.next_timeout(now) is None
    pacing.succeeded(now, now, needless=True)
    assert pacing.next_timeout(now) == now + FIRST_PAUSE


def test_where_others_wait_too_many_search_and_no_lease_is_kept() -> None:
    pacing = Pacing()
    assert not pacing.contended(0.0)
    pacing.waited_in_vain(0.0)
    assert pacing.contended(1.0)
    pacing.succeeded(1.0, 1.1, needless=True)
    assert pacing.searches(0.0, 2.0) == CONTENDED_SEARCHES
    assert not pacing.contended(CONTENDED_FOR)
