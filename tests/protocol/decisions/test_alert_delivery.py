"""The worker's outbox, with a fake clock."""

from __future__ import annotations

from cexec.protocol.decisions.alert_delivery import (
    MANY_WAITING,
    TRANSMISSIONS,
    TRANSMISSIONS_TO_LOGGERS,
    Outbox,
)


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
