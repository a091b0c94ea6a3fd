"""A rate for each source and one for all of them."""

from __future__ import annotations

from cexec.protocol.base.source_rates import SourceRates


def taken(rates: SourceRates, source: str, count: int, now: float) -> int:
    return sum(rates.take(source, now) for _ in range(count))


def test_each_source_has_its_rate() -> None:
    rates = SourceRates(each=(1.0, 5.0), total=(100.0, 100.0), now=0.0)
    assert [taken(rates, source, 10, 0.0) for source in ("a", "b")] == [5, 5]
    assert [taken(rates, source, 10, 2.0) for source in ("a", "b")] == [2, 2]


def test_invented_sources_share_the_rate_of_all() -> None:
    rates = SourceRates(each=(1.0, 5.0), total=(2.0, 20.0), now=0.0)
    assert sum(taken(rates, str(number), 10, 0.0) for number in range(1000)) == 20
    assert sum(taken(rates, str(number), 10, 5.0) for number in range(1000)) == 10


def test_the_source_that_is_silent_for_longest_is_forgotten() -> None:
    rates = SourceRates(each=(0.0, 1.0), total=(1e9, 1e9), now=0.0, sources=2)
    assert taken(rates, "a", 2, 0.0) == 1
    for number in range(10):
        assert not rates.left("a", 0.0)
        assert rates.take(str(number), 0.0)
    assert rates.take("0", 0.0)


def test_more_may_be_spent_than_is_left() -> None:
    rates = SourceRates(each=(1.0, 1.0), total=(10.0, 10.0), now=0.0)
    rates.spend("a", 3.0, 0.0)
    assert not rates.left("a", 2.0)
    assert rates.left("a", 2.5)
    assert rates.left("b", 0.0)
