"""A rate for each source and one for all of them."""

from __future__ import annotations

from cexec.protocol.base.quota import Quota


def taken(quota: Quota, source: str, count: int, now: float) -> int:
    return sum(quota.take(source, now) for _ in range(count))


def test_each_source_has_its_rate() -> None:
    quota = Quota(each=(1.0, 5.0), total=(100.0, 100.0), now=0.0)
    assert [taken(quota, source, 10, 0.0) for source in ("a", "b")] == [5, 5]
    assert [taken(quota, source, 10, 2.0) for source in ("a", "b")] == [2, 2]


def test_invented_sources_share_the_rate_of_all() -> None:
    quota = Quota(each=(1.0, 5.0), total=(2.0, 20.0), now=0.0)
    assert sum(taken(quota, str(number), 10, 0.0) for number in range(1000)) == 20
    assert sum(taken(quota, str(number), 10, 5.0) for number in range(1000)) == 10


def test_the_source_that_is_silent_for_longest_is_forgotten() -> None:
    quota = Quota(each=(0.0, 1.0), total=(1e9, 1e9), now=0.0, sources=2)
    assert taken(quota, "a", 2, 0.0) == 1
    for number in range(10):
        assert not quota.left("a", 0.0)
        assert quota.take(str(number), 0.0)
    assert quota.take("0", 0.0)


def test_more_may_be_spent_than_is_left() -> None:
    quota = Quota(each=(1.0, 1.0), total=(10.0, 10.0), now=0.0)
    quota.spend("a", 3.0, 0.0)
    assert not quota.left("a", 2.0)
    assert quota.left("a", 2.5)
    assert quota.left("b", 0.0)
