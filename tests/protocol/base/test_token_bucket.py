"""How much may be spent."""

from __future__ import annotations

import pytest

from cexec.protocol.base.token_bucket import TokenBucket


def spent(bucket: TokenBucket, now: float, most: int = 100) -> int:
    """How many units are allowed at once."""
    count = 0
    while count < most and bucket.left(now):
        bucket.spend(1.0)
        count += 1
    return count


def test_so_much_at_once_and_so_much_a_second() -> None:
    bucket = TokenBucket(2.0, 5.0, now=10.0)
    assert spent(bucket, 10.0) == 5
    assert spent(bucket, 10.0) == 0
    assert spent(bucket, 11.0) == 2
    assert spent(bucket, 1000.0) == 5


def test_what_was_spent_too_much_is_missing_later() -> None:
    bucket = TokenBucket(1.0, 1.0, now=0.0)
    bucket.spend(4.0)
    assert not bucket.left(3.0)
    assert bucket.left(3.5)


def test_a_clock_that_stands_still_gives_nothing() -> None:
    bucket = TokenBucket(1.0, 1.0, now=5.0)
    bucket.spend(1.0)
    assert not bucket.left(5.0) and not bucket.left(4.0)


def test_when_there_is_something_again() -> None:
    bucket = TokenBucket(2.0, 1.0, now=10.0)
    assert bucket.due(10.0) == 10.0
    bucket.spend(3.0)
    due = bucket.due(10.0)
    assert due == pytest.approx(11.0, abs=0.001)
    assert not bucket.left(due - 0.001) and bucket.left(due)


def test_what_is_given_back_does_not_make_it_more_than_full() -> None:
    """Regression: what was given back after it had flowed in could be spent on top of all else in the same moment."""
    bucket = TokenBucket(1.0, 5.0, now=0.0)
    for _ in range(3):
        bucket.spend(1.0)
    assert bucket.left(1.0)
    for _ in range(3):
        bucket.give_back(1.0)
    assert spent(bucket, 1.0) == 5
