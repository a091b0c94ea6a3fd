"""When an announcement whose connections failed is tried again, and which announcement makes room for another one."""

from __future__ import annotations

import sys
from itertools import pairwise
from math import inf

import pytest

from cexec.protocol.decisions import remembered
from cexec.protocol.decisions.remembered import (
    DELAYED,
    DONE_LIFETIME,
    LONGEST_RETRY,
    NEW_WAYS_BURST,
    QUEUED_AGAIN,
    RUNNING,
    STILL_HEARD,
    Origin,
    Remembered,
    RememberedAnnouncement,
    Retry,
    Telling,
)
from cexec.protocol.decisions.standing import Standing
from tests.protocol.decisions.bidders import WANTED, bidder, connects, events, identity


def test_failed_connection_is_tried_again_only_if_the_client_is_heard_again() -> None:
    machine = bidder()
    machine.consider(identity(1), 1, WANTED, 0.0)
    events(machine)
    machine.failed(identity(1), 0.0)
    machine.handle_timeout(5.0)
    assert events(machine) == []
    machine.consider(identity(1), 1, WANTED, 5.0)
    machine.handle_timeout(5.0)
    assert connects(machine) == [identity(1)]


def tries(seconds: float, *, new_way: bool = False) -> list[float]:
    """When a worker tries to reach a client that asks every second, and that it cannot reach."""
    machine = bidder()
    tried, now = [], 0.0
    while now < seconds:
        machine.consider(identity(1), 1, WANTED, now, new_way=new_way)
        machine.handle_timeout(now)
        for name, _ in events(machine):
            assert name in ("Connect", "Queued")
            if name == "Connect":
                tried.append(now)
                machine.failed(identity(1), now)
        now += 0.25
    return tried


def test_client_that_cannot_be_reached_is_tried_for_ever_but_ever_later() -> None:
    """Regression: after five failures an announcement was forgotten for 60 s although its client still asked."""
    tried = tries(600.0)
    pauses = [later - earlier for earlier, later in pairwise(tried)]
    assert all(pause <= 1.5 * LONGEST_RETRY + 0.25 for pause in pauses)
    assert 600.0 - tried[-1] <= 1.5 * LONGEST_RETRY + 0.25
    assert len(tried) <= 6 + 600.0 / (0.5 * LONGEST_RETRY)


def test_new_way_to_a_client_is_tried_soon_but_invented_ones_only_now_and_then() -> None:
    assert tries(3.0, new_way=True)[:4] == pytest.approx([0.0, 0.5, 1.0, 1.5], abs=0.3)
    invented, known = tries(600.0, new_way=True), tries(600.0)
    assert len(invented) <= 2 * len(known) + NEW_WAYS_BURST
    assert (remembered.NEW_WAYS_RATE, NEW_WAYS_BURST) == (0.1, 5.0)


@pytest.mark.parametrize(("said", "counts"), [(0, 1), (1, 1), (65_535, 65_535), (65_536, 65_535)])
def test_a_weight_is_bounded(said: int, counts: int) -> None:
    made = RememberedAnnouncement(identity(1), said, 0.0, 1.0, targeted=False, origin=Origin())
    assert made.weight == counts


def test_new_way_that_is_heard_after_another_copy_shortens_the_wait_all_the_same() -> None:
    machine = bidder()
    machine.consider(identity(1), 1, WANTED, 0.0)
    now = 0.0
    for _ in range(6):
        while not connects(machine):
            now += 0.25
            machine.consider(identity(1), 1, WANTED, now)
            machine.handle_timeout(now)
        machine.failed(identity(1), now)
    machine.consider(identity(1), 1, WANTED, now + 1.0)
    machine.handle_timeout(now + 1.0)
    assert connects(machine) == []
    machine.consider(identity(1), 1, WANTED, now + 1.1, new_way=True)
    machine.handle_timeout(now + 1.1)
    assert connects(machine) == [identity(1)]


def test_a_word_counts_as_lost_when_a_copy_comes_a_second_after_it() -> None:
    telling = Telling()
    assert not telling.lost(100.0)
    telling.told(100.0, 10.0)
    assert [telling.lost(100.0 + QUEUED_AGAIN - 0.001), telling.lost(100.0 + QUEUED_AGAIN)] == [False, True]


def test_what_has_not_failed_is_not_tried_again() -> None:
    assert Retry().heard(1.0, new_way=True) == inf


# Room

GREEDY, MODEST = b"greedy", b"modest"
LATER = 10.0 * STILL_HEARD


def announcement(
    number: int, heard_at: float = 0.0, client: bytes = GREEDY, *, standing: Standing = Standing.PROVED,
    leased: bool = False,
) -> RememberedAnnouncement:  # fmt: skip
    expires = inf if leased else 1000.0
    return RememberedAnnouncement(
        identity(number), 1, heard_at, expires, targeted=leased, origin=Origin(client), standing=standing, source="host"
    )


def memory_of(*announcements: RememberedAnnouncement) -> Remembered:
    memory = Remembered(lambda: 0.0)
    for one in announcements:
        assert memory.add(one) is None
    return memory


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is room for two that are proved and for one that is not."""
    monkeypatch.setattr(remembered, "MAXIMUM_REMEMBERED", 2)
    monkeypatch.setattr(remembered, "MOST_UNPROVED", 1)


@pytest.mark.usefixtures("few")
def test_one_that_is_doubted_takes_the_room_of_those_that_are_not_proved() -> None:
    one = announcement(1)
    memory = memory_of(one)
    one.standing = Standing.UNPROVED
    memory.stands(one)
    assert memory.add(announcement(2, standing=Standing.UNPROVED)) is one


@pytest.mark.usefixtures("few")
def test_one_that_is_proved_gives_that_room_back() -> None:
    one = announcement(1, standing=Standing.UNPROVED)
    memory = memory_of(one)
    one.standing = Standing.PROVED
    memory.stands(one)
    assert memory.add(announcement(2, standing=Standing.UNPROVED)) is None


@pytest.mark.usefixtures("few")
def test_one_that_is_not_remembered_takes_no_room() -> None:
    memory = memory_of()
    memory.stands(announcement(1, standing=Standing.UNPROVED))
    assert memory.add(announcement(2, standing=Standing.UNPROVED)) is None


@pytest.mark.usefixtures("few")
def test_one_that_is_not_proved_takes_no_room_of_those_that_are() -> None:
    memory = memory_of(announcement(1), announcement(2, standing=Standing.UNPROVED))
    assert memory.add(announcement(3, LATER)) is None


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("kind", ["leased", "running"])
def test_one_that_has_a_connection_makes_no_room_however_long_ago_it_was_heard(kind: str) -> None:
    kept, other = announcement(1, leased=kind == "leased"), announcement(2, 1.0)
    memory = memory_of(kept, other)
    if kind == "running":
        kept.state = RUNNING
    assert memory.add(announcement(3, LATER)) is other


@pytest.mark.usefixtures("few")
def test_a_lease_takes_no_room_of_those_that_are_heard() -> None:
    memory = memory_of(announcement(1), announcement(2))
    lease = announcement(3, 1.0, MODEST, leased=True)
    assert memory.add(lease) is lease
    memory.drop(lease)
    assert memory.add(announcement(4, 1.0, MODEST)) in (memory.get(identity(1)), memory.get(identity(2)))


@pytest.mark.parametrize(("greedy", "makes_room"), [(2, False), (3, True)])
def test_a_client_makes_room_for_one_that_has_fewer_even_with_the_newcomer(
    greedy: int, makes_room: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remembered, "MAXIMUM_REMEMBERED", greedy + 1)
    memory = memory_of(announcement(9, 0.0, MODEST), *(announcement(number) for number in range(greedy)))
    newcomer = announcement(100, 1.0, MODEST)
    assert memory.add(newcomer) is (memory.get(identity(0)) if makes_room else newcomer)


def test_one_that_is_done_is_known_for_its_time_and_no_longer() -> None:
    one = announcement(1)
    memory = memory_of(one)
    memory.finish(one, 0.0)
    assert memory.done(one.identity, DONE_LIFETIME - 0.001) == 0
    assert memory.done(one.identity, DONE_LIFETIME) is None


def test_a_new_announcement_has_no_delay_of_relays() -> None:
    one = announcement(1)
    one.timers.bid_at = 5.0
    one.heard_again(1.0, 0.0, new_way=False)
    assert one.timers.bid_at == 5.0


def test_nothing_is_kept_of_a_client_whose_announcements_have_gone() -> None:
    client = b"client %d" % 1  # of which nobody else has this one
    before = sys.getrefcount(client)
    memory = memory_of(announcement(1, client=client), announcement(2, client=client))
    assert sys.getrefcount(client) > before
    for number in (1, 2):
        one = memory.get(identity(number))
        assert one is not None
        memory.drop(one)
        del one
    assert sys.getrefcount(client) == before


def test_one_that_had_its_turn_has_no_retry_left_when_it_has_to_bid_again() -> None:
    """Else another copy would let its question for a proof wait as if a connection had failed a moment ago."""
    one = announcement(1)
    one.try_again(0.0, 0.5)
    one.heard_again(10.0, 0.0, new_way=False)
    one.wait()
    one.state = DELAYED
    one.ask(10.001)
    one.heard_again(10.0005, 0.0, new_way=False)
    assert (one.timers.bid_at, one.telling.due) == (10.0005, 10.001)


def test_one_that_is_not_proved_makes_no_room_for_one_that_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered, "MAXIMUM_REMEMBERED", 1)
    doubted, proved = announcement(1, standing=Standing.UNPROVED), announcement(2, 1.0)
    memory = memory_of(doubted, proved)
    assert memory.add(announcement(3, 1.0 + 2 * STILL_HEARD, client=b"another")) is proved
