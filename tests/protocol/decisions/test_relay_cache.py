"""What a relay passes on: repetitions, and not what has come round; and no more than it may."""

from __future__ import annotations

import pytest

from cexec.protocol.decisions.relay_cache import (
    MAXIMUM_HOSTS,
    MAXIMUM_SEEN,
    REPEAT_INTERVAL,
    SHARE,
    WAY_LIFETIME,
    RateLimits,
    SeenCache,
)

ONE, OTHER = b"1" * 16, b"2" * 16
NEAR, FAR = 0, 1
SOON = REPEAT_INTERVAL / 2
LATER = REPEAT_INTERVAL * 1.1


def test_a_datagram_passes_once() -> None:
    seen = SeenCache()
    assert seen.passes(ONE, 0, 8, NEAR, 0.0)
    assert not seen.passes(ONE, 0, 8, NEAR, SOON)


def test_a_repetition_with_another_counter_passes_at_once() -> None:
    seen = SeenCache()
    assert [seen.passes(ONE, counter, 8, NEAR, SOON) for counter in (0, 1, 2, 1)] == [True, True, True, False]


def test_what_is_sent_again_on_purpose_with_the_same_counter_passes_after_the_interval() -> None:
    seen = SeenCache()
    assert [seen.passes(ONE, 0, 8, NEAR, when) for when in (0.0, LATER, LATER + SOON, 2 * LATER)] == [
        True, True, False, True,
    ]  # fmt: skip


def test_what_comes_round_a_loop_never_passes_however_long_the_round_takes() -> None:
    seen = SeenCache()
    for second in range(30):
        assert seen.passes(ONE, second, 8, NEAR, float(second))
        for hops in (6, 7):
            assert not seen.passes(ONE, second, hops, FAR, second + 0.9)


def test_what_comes_round_a_loop_does_not_pass_when_its_first_copy_was_lost() -> None:
    seen = SeenCache()
    assert seen.passes(ONE, 0, 8, NEAR, 0.0)
    assert not seen.passes(ONE, 1, 6, FAR, 0.3)
    assert seen.passes(ONE, 2, 8, NEAR, 1.0)


def test_a_nearer_copy_from_the_other_side_takes_over() -> None:
    seen = SeenCache()
    assert seen.passes(ONE, 0, 6, NEAR, 0.0)
    assert seen.passes(ONE, 0, 8, FAR, 0.001)
    assert not seen.passes(ONE, 1, 6, NEAR, 0.5)
    assert seen.passes(ONE, 1, 8, FAR, 0.5)


def test_where_both_sides_are_as_near_both_count() -> None:
    """A client in both networks; or a stranger who sends copies, and must not stand in the way of the real ones."""
    seen = SeenCache()
    for counter, when in enumerate((0.0, 0.5)):
        for side in (FAR, NEAR):
            assert seen.passes(ONE, counter, 8, side, when)
            assert not seen.passes(ONE, counter, 8, side, when)
    assert seen.passes(ONE, 3, 7, FAR, 1.0)


def test_a_longer_way_counts_when_the_shorter_one_is_not_heard_any_more() -> None:
    seen = SeenCache()
    assert seen.passes(ONE, 0, 8, NEAR, 0.0)
    assert not seen.passes(ONE, 1, 6, FAR, WAY_LIFETIME - 0.1)
    assert seen.passes(ONE, 2, 6, FAR, WAY_LIFETIME)
    assert not seen.passes(ONE, 3, 5, NEAR, WAY_LIFETIME + 0.1)


def test_a_worse_way_on_the_same_side_passes_and_does_not_keep_the_best_one_alive() -> None:
    seen = SeenCache()
    assert seen.passes(ONE, 0, 8, NEAR, 0.0)
    assert seen.passes(ONE, 1, 5, NEAR, 5.0)
    assert seen.passes(ONE, 2, 7, FAR, WAY_LIFETIME)


def test_datagrams_are_told_apart_by_mac1() -> None:
    seen = SeenCache()
    assert seen.passes(ONE, 0, 8, NEAR, 0.0)
    assert seen.passes(OTHER, 0, 8, FAR, 0.0)


def test_memory_is_bounded_and_what_was_heard_longest_ago_is_forgotten_first() -> None:
    seen = SeenCache(60.0)
    assert seen.passes(ONE, 0, 8, NEAR, 0.0)
    for number in range(MAXIMUM_SEEN - 1):
        assert seen.passes(number.to_bytes(16, "big"), 0, 8, NEAR, 0.0)
    assert not seen.passes(ONE, 0, 8, NEAR, 0.0)
    assert seen.passes(OTHER, 0, 8, NEAR, 0.0)
    assert seen.passes(ONE, 0, 8, NEAR, 0.0)
    assert len(seen) == MAXIMUM_SEEN


def spent(limits: RateLimits, host: str, now: float) -> int:
    """How many datagrams of a host pass now."""
    count = 0
    while limits.left(host, now):
        limits.spend(host)
        count += 1
    return count


def test_a_host_may_use_its_share_and_all_together_no_more_than_the_rate() -> None:
    limits = RateLimits(100.0, 0.0)
    assert spent(limits, "10.0.0.1", 0.0) == pytest.approx(100 * SHARE, abs=1)
    assert sum(spent(limits, f"10.0.0.{number}", 0.0) for number in range(2, 9)) == pytest.approx(50, abs=1)
    assert spent(limits, "10.0.0.1", 0.1) == pytest.approx(5, abs=1)
    assert spent(limits, "10.0.0.2", 0.1) == pytest.approx(5, abs=1)


def test_a_flood_of_one_host_leaves_room_for_another() -> None:
    limits = RateLimits(1000.0, 0.0)
    passed = 0
    for millisecond in range(3000):
        spent(limits, "10.0.0.1", millisecond / 1000)
        if millisecond % 10 == 0 and limits.left("10.0.0.2", millisecond / 1000):
            limits.spend("10.0.0.2")
            passed += 1
    assert passed == 300


def test_hosts_that_are_told_apart_are_bounded() -> None:
    limits = RateLimits(100.0, 0.0)
    for number in range(2 * MAXIMUM_HOSTS):
        limits.left(str(number), 0.0)
    assert limits.hosts == MAXIMUM_HOSTS
