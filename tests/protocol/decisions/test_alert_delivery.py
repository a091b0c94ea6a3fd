"""The worker's outbox and the logger's ledger, with a fake clock."""

from __future__ import annotations

import random

from cexec.protocol.decisions.alert_delivery import (
    MANY_WAITING,
    PATIENCE,
    TRANSMISSIONS,
    TRANSMISSIONS_TO_LOGGERS,
    Ledger,
    Outbox,
)

S = b"s" * 16


def copies_until_quiet(outbox: Outbox) -> int:
    count = 0
    while (due := outbox.next_timeout()) is not None:
        count += len(outbox.due(due))
        assert due < 600
    return count


def test_an_alert_is_sent_at_once_and_five_times_when_nobody_listens() -> None:
    outbox = Outbox()
    outbox.add(1, b"a", 10.0)
    assert outbox.next_timeout() == 10.0
    assert outbox.due(10.0) == [(b"a", 0)]
    assert outbox.due(10.0) == []
    assert copies_until_quiet(outbox) == TRANSMISSIONS - 1
    assert outbox.empty


def test_an_acknowledged_alert_is_not_sent_again() -> None:
    outbox = Outbox()
    for number in (1, 2):
        outbox.add(number, b"%d" % number, 0.0)
    outbox.due(0.0)
    outbox.acknowledged([1, 99])
    assert {data for data, _ in outbox.due(1000.0)} == {b"2"}


def test_of_many_short_jobs_that_nobody_listens_to_each_is_told_once() -> None:
    """Regression: five copies of each were most of a worker's work."""
    outbox = Outbox()
    sent = 0
    for number in range(20 * MANY_WAITING):
        outbox.add(number, b"%d" % number, number / 100)
        sent += len(outbox.due(number / 100))
    assert 20 * MANY_WAITING <= sent < 24 * MANY_WAITING
    outbox.acknowledged([number])
    more = {data for now in range(20, 40) for data, _ in outbox.due(float(now))}
    assert len(more) > 500  # of those of the last seconds the logger gets another copy


def test_where_there_is_a_logger_it_tries_longer() -> None:
    outbox = Outbox()
    outbox.acknowledged([])
    outbox.add(1, b"a", 0.0)
    assert copies_until_quiet(outbox) == TRANSMISSIONS_TO_LOGGERS


def test_copies_have_growing_numbers_so_that_relays_pass_them() -> None:
    outbox = Outbox()
    outbox.add(1, b"a", 0.0)
    seen = []
    while (due := outbox.next_timeout()) is not None:
        seen += [copies for _, copies in outbox.due(due)]
    assert seen == list(range(TRANSMISSIONS))


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
