"""The logger's ledger, with a fake clock: what is news, what is missing, and what made-up numbers cost."""

from __future__ import annotations

import random
import tracemalloc

import pytest

from cexec.protocol.decisions import ledger as module
from cexec.protocol.decisions.ledger import MAXIMUM_HOLES, MAXIMUM_HOLES_IN_ALL, MAXIMUM_SERIES, PATIENCE, Gap, Ledger

S = b"s" * 16


def test_a_copy_is_no_news() -> None:
    ledger = Ledger()
    assert ledger.heard(S, 5, [], "w", 0.0)
    assert not ledger.heard(S, 5, [], "w", 0.0)
    assert ledger.heard(S, 6, [], "w", 0.0)
    assert ledger.heard(b"t" * 16, 6, [], "w", 0.0)


def test_a_missing_number_is_a_gap_after_a_while_and_once() -> None:
    ledger = Ledger()
    for number in (1, 2, 5, 8):
        assert ledger.heard(S, number, [], "w", 0.0)
    assert ledger.gaps(PATIENCE - 1) == []
    assert ledger.next_timeout() == PATIENCE
    assert [(gap.first, gap.last, gap.worker) for gap in ledger.gaps(PATIENCE)] == [(3, 4, "w"), (6, 7, "w")]
    assert ledger.gaps(PATIENCE * 9) == []
    assert ledger.next_timeout() is None


def test_a_late_number_fills_its_gap() -> None:
    ledger = Ledger()
    for number in (1, 3, 2):
        assert ledger.heard(S, number, [], "w", 0.0)
    assert ledger.gaps(PATIENCE * 2) == []


def test_a_running_job_is_no_gap_until_another_alert_says_that_it_is_over() -> None:
    ledger = Ledger()
    ledger.heard(S, 1, [], "w", 0.0)
    ledger.heard(S, 3, [2], "w", 0.0)
    assert ledger.gaps(PATIENCE * 2) == []
    ledger.heard(S, 4, [], "w", PATIENCE * 2)
    assert [(gap.first, gap.last) for gap in ledger.gaps(PATIENCE * 3)] == [(2, 2)]


def test_jobs_that_ran_before_the_logger_came_are_news_once() -> None:
    ledger = Ledger()
    assert ledger.heard(S, 10, [5, 7], "w", 0.0)
    assert ledger.heard(S, 5, [], "w", 1.0)
    assert ledger.heard(S, 7, [], "w", 1.0)
    assert not ledger.heard(S, 5, [], "w", 1.0)
    assert not ledger.heard(S, 7, [], "w", 1.0)
    assert ledger.gaps(PATIENCE * 2) == []


def test_each_number_is_news_once_in_any_order_with_any_loss() -> None:
    rng = random.Random(7)
    for _ in range(50):
        numbers = [n for n in range(1, 200) for _ in range(rng.randint(0, 3))]
        rng.shuffle(numbers)
        ledger = Ledger()
        news = [number for number in numbers if ledger.heard(S, number, [], "w", 0.0)]
        assert sorted(news) == sorted(set(numbers))
        gaps = {n for gap in ledger.gaps(PATIENCE) for n in range(gap.first, gap.last + 1)}
        expected = {n for n in range(numbers[0], max(numbers)) if n not in set(numbers)}
        assert gaps == expected


def test_a_running_job_does_not_keep_a_logger_awake() -> None:
    """Regression: the time of a number whose job ran for more than a minute was in the past, so `crat` never slept."""
    ledger = Ledger()
    ledger.heard(S, 1, [], "w", 0.0)
    ledger.heard(S, 3, [2], "w", 0.0)
    for now in (PATIENCE, 2 * PATIENCE, 3 * PATIENCE):
        assert ledger.gaps(now) == []
        assert ledger.next_timeout() == now + PATIENCE


def runs(gaps: list[Gap]) -> list[tuple[int, int]]:
    return [(gap.first, gap.last) for gap in gaps]


def test_a_jump_of_the_numbers_costs_nothing_and_hides_nothing() -> None:
    """One alert with a high number cost 0.1.0 5.3 MB, which it never freed."""
    ledger = Ledger()
    tracemalloc.start()
    try:
        for number in range(1000):
            assert ledger.heard(number.to_bytes(16, "big"), 1, [], "w", 0.0)
            assert ledger.heard(number.to_bytes(16, "big"), 2**64 - 1, [], "w", 0.0)
        assert tracemalloc.get_traced_memory()[0] < 2_000_000
    finally:
        tracemalloc.stop()
    assert ledger.heard(bytes(16), 77, [], "w", 1.0)  # what comes late is still news
    assert runs(ledger.gaps(PATIENCE)[-2:]) == [(2, 76), (78, 2**64 - 2)]


def test_a_series_of_jumps_gives_up_the_oldest_holes_and_says_so() -> None:
    """At most 16,384 holes are kept, whatever comes: 0.1.0 kept 65,536 numbers for each of 4,096 series."""
    ledger = Ledger()
    tracemalloc.start()
    try:
        for number in range(1, 100_000, 2):
            ledger.heard(S, number, [], "w", 0.0)
            ledger.gaps(0.0)
        assert tracemalloc.get_traced_memory()[0] < 1_500_000
    finally:
        tracemalloc.stop()
    ledger = Ledger()
    for number in range(1, 2 * MAXIMUM_HOLES + 6, 2):
        ledger.heard(S, number, [], "w", 0.0)
    assert runs(ledger.gaps(0.0)) == [(2, 2), (4, 4)]
    assert not ledger.heard(S, 2, [], "w", 0.0)
    assert ledger.heard(S, 6, [], "w", 0.0)


def test_many_series_with_holes_share_the_room_for_them() -> None:
    ledger = Ledger()
    series = MAXIMUM_HOLES_IN_ALL // 1000 + 1
    for number in range(1, 2002, 2):
        for one in range(series):
            ledger.heard(one.to_bytes(16, "big"), number, [], "w", 0.0)
    early = ledger.gaps(0.0)
    assert len(early) == series * 1000 - MAXIMUM_HOLES_IN_ALL
    assert len(early) + len(ledger.gaps(PATIENCE)) == series * 1000


def test_a_series_that_is_forgotten_is_not_forgotten_silently() -> None:
    ledger = Ledger()
    ledger.heard(S, 1, [], "w", 0.0)
    ledger.heard(S, 3, [], "w", 0.0)
    for number in range(MAXIMUM_SERIES):
        ledger.heard(number.to_bytes(16, "big"), 1, [], "other", 0.0)
    assert [(gap.series, gap.worker, gap.first, gap.last) for gap in ledger.gaps(0.0)] == [(S, "w", 2, 2)]


def test_a_series_that_is_heard_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAXIMUM_SERIES", 3)
    ledger = Ledger()
    for number in range(1, 50):
        assert ledger.heard(S, number, [], "w", 0.0)
        ledger.heard(number.to_bytes(16, "big"), 1, [], "other", 0.0)
        assert ledger.knows(S, number)
    assert not ledger.knows(S, 50)
    assert not ledger.knows(b"x" * 16, 1)
