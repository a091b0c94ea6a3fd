"""Which of the announcements that are not proved makes room."""

from __future__ import annotations

from random import Random

import pytest

from cexec.protocol.decisions.unproved_room import UnprovedRoom, network_of
from tests.protocol.decisions.bidders import identity


@pytest.mark.parametrize(
    ("source", "network"),
    [
        ("10.1.2.3", "10.1.2"),
        ("fe80::1%eth0", "fe80:0:0:0"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2"),
        ("2001:db8::5:6", "2001:db8:0:0"),
        ("::1", "0:0:0:0"),
        ("", ""),
    ],
)
def test_a_network_has_three_bytes_of_ipv4_or_half_an_address_of_ipv6(source: str, network: str) -> None:
    assert network_of(source) == network


def test_the_network_with_the_most_makes_room() -> None:
    room = UnprovedRoom(Random(1).random)
    for number in range(100):
        room.add(identity(number), f"10.0.0.{number}")
    for number in range(100, 110):
        room.add(identity(number), f"10.0.{number}.1")
    for _ in range(80):
        victim = room.victim(lambda who: True)
        assert victim is not None and victim < identity(100)
        room.discard(victim)
    assert len(room) == 30


def test_those_that_ask_again_stay() -> None:
    room = UnprovedRoom(Random(1).random)
    for number in range(50):
        room.add(identity(number), "10.0.0.1")
    for number in range(5):
        room.heard(identity(number))
    for _ in range(30):
        victim = room.victim(lambda who: True)
        assert victim is not None and victim >= identity(5)
        room.discard(victim)


def test_one_that_is_being_tried_makes_no_room() -> None:
    room = UnprovedRoom(Random(1).random)
    assert room.victim(lambda who: True) is None
    room.add(identity(1), "10.0.0.1")
    room.add(identity(1), "10.0.0.2")  # it is there already
    assert len(room) == 1
    assert room.victim(lambda who: False) is None
    room.discard(identity(2))
    room.discard(identity(1))
    assert len(room) == 0
