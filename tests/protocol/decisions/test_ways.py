"""The ways to a client: which one is taken, which one makes room, and what a restarted relay changes."""

from __future__ import annotations

import pytest

from cexec.protocol.decisions.ways import MAXIMUM_WAYS, WAY_LIFETIME, Ways

DIRECT, ONE_RELAY, TWO_RELAYS = 8, 7, 6  # hops that are left
CLIENT = ("10.0.0.9", 41000)


def relay(number: int, port: int = 5000) -> tuple[str, int]:
    return f"10.0.1.{number}", port


def best(ways: Ways[str], now: float) -> object:
    way = ways.next_way(now)
    return None if way is None else way.address


def test_nearest_way_is_the_best_whatever_was_heard_last() -> None:
    ways: Ways[str] = Ways()
    ways.hear(relay(1), TWO_RELAYS, "", 0.0)
    ways.hear(CLIENT, DIRECT, "", 0.1)
    ways.hear(relay(2), ONE_RELAY, "", 0.2)
    assert [way.address for way in ways.order(0.2)] == [CLIENT, relay(2), relay(1)]


def test_way_that_failed_comes_back_with_its_next_copy() -> None:
    ways: Ways[str] = Ways()
    ways.hear(CLIENT, DIRECT, "", 0.0)
    ways.hear(relay(1), ONE_RELAY, "", 0.0)
    ways.failed(CLIENT)
    assert best(ways, 1.0) == relay(1)
    ways.failed(relay(1))
    assert best(ways, 1.0) is None
    ways.hear(CLIENT, DIRECT, "", 5.0)
    assert best(ways, 5.0) == CLIENT
    assert not ways.untried(5.0)  # so that retries stay spaced


def test_way_that_was_not_heard_for_ten_seconds_comes_last_but_is_still_tried() -> None:
    ways: Ways[str] = Ways()
    ways.hear(CLIENT, DIRECT, "", 0.0)
    ways.hear(relay(1), ONE_RELAY, "", WAY_LIFETIME - 1.0)
    assert best(ways, WAY_LIFETIME - 1.0) == CLIENT
    assert best(ways, WAY_LIFETIME) == relay(1)
    assert best(ways, 2 * WAY_LIFETIME) == CLIENT


@pytest.mark.parametrize("restarts", [1, 2, 3, 30])
def test_relay_that_was_restarted_is_reached_at_its_new_address(restarts: int) -> None:
    """Regression: four ways were kept and the newest was dropped, so no worker ever connected to the third relay.

    A relay that is heard by IPv4 and by IPv6 has two ways each time.
    """
    ways: Ways[str] = Ways()
    now = 0.0
    for incarnation in range(restarts + 1):
        for _ in range(2):
            now += 1.0
            for family in (4, 6):
                ways.hear(relay(family, 5000 + incarnation), ONE_RELAY, "", now)
    assert len(ways.order(now)) <= MAXIMUM_WAYS
    assert [way.address for way in ways.order(now)][:2] in (
        [relay(4, 5000 + restarts), relay(6, 5000 + restarts)],
        [relay(6, 5000 + restarts), relay(4, 5000 + restarts)],
    )
    assert ways.untried(now)


def test_of_ways_by_which_a_copy_comes_together_the_first_one_stays_the_best() -> None:
    """A worker connects by IPv4 as before where a client is heard by both."""
    ways: Ways[str] = Ways()
    for now in (0.0, 0.25, 5.0):
        ways.hear(CLIENT, DIRECT, "IPv4", now)
        ways.hear(("fe80::1", 41000), DIRECT, "IPv6", now + 0.01)
        assert best(ways, now + 0.01) == CLIENT


def test_one_of_two_killed_relays_that_comes_back_finds_room() -> None:
    ways: Ways[str] = Ways()
    for family in (4, 6):
        for number in (1, 2):
            ways.hear((f"relay {number}", 5000, family), ONE_RELAY, "", 0.0)
    back = ("relay 1", 6000, 4)
    ways.hear(back, ONE_RELAY, "", 4.0)
    assert best(ways, 4.0) == back


def test_client_whose_address_changes_is_reached_at_the_new_one() -> None:
    ways: Ways[str] = Ways()
    ways.hear(CLIENT, DIRECT, "old", 0.0)
    ways.hear(("10.0.0.77", 41000), DIRECT, "new", 3.0)
    assert best(ways, 3.0) == ("10.0.0.77", 41000)


def test_worker_that_hears_a_client_directly_and_through_relays_falls_back_to_a_relay() -> None:
    ways: Ways[str] = Ways()
    ways.hear(CLIENT, DIRECT, "", 0.0)
    for number in range(3):
        ways.hear(relay(number), ONE_RELAY, "", 0.0)
    for now in (5.0, 10.0):  # the link between the client and the worker is cut
        for number in range(3):
            ways.hear(relay(number), ONE_RELAY, "", now)
    assert best(ways, 10.0) in [relay(number) for number in range(3)]


def test_dead_way_makes_room_before_a_living_one_and_a_far_one_before_a_near_one() -> None:
    ways: Ways[str] = Ways()
    for number in range(MAXIMUM_WAYS):
        ways.hear(relay(number), ONE_RELAY if number else DIRECT, "", 0.0)
    ways.failed(relay(0))
    ways.hear(relay(7), TWO_RELAYS, "", 1.0)
    assert relay(0) not in [way.address for way in ways.order(1.0)]
    ways.hear(relay(8), ONE_RELAY, "", 2.0)
    assert relay(7) not in [way.address for way in ways.order(2.0)]
    ways.hear(relay(9), TWO_RELAYS, "", 3.0)
    assert relay(9) not in [way.address for way in ways.order(3.0)]
    assert len(ways.order(3.0)) == MAXIMUM_WAYS


def test_known_way_takes_the_socket_and_the_distance_of_its_last_copy() -> None:
    ways: Ways[str] = Ways()
    ways.hear(CLIENT, ONE_RELAY, "eth0", 0.0)
    ways.hear(CLIENT, DIRECT, "eth1", 1.0)
    (way,) = ways.order(1.0)
    assert (way.hops, way.origin) == (DIRECT, "eth1")
    ways.failed(relay(1))  # which has made room meanwhile
    assert way.living(1.0)
