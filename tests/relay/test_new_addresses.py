"""The addresses that a relay connects to before they have answered: few at once, and few a minute."""

from __future__ import annotations

import socket

from cexec.relay.announcement_table import RelayedAnnouncement
from cexec.relay.new_addresses import MOST_NEW, NEW_RATE, NewAddresses

VIA = socket.socket  # no socket is opened


def target(port: int) -> RelayedAnnouncement:
    entry = RelayedAnnouncement(b"m" * 16, 0, ("10.0.0.9", 40_000), VIA)  # type: ignore[arg-type]
    entry.reply_port = port
    return entry


def test_sixty_four_at_once_and_thirty_a_minute() -> None:
    targets = NewAddresses(0.0)
    assert sum(targets.begin(target(2000 + number), 0.0) for number in range(1000)) == MOST_NEW
    assert targets.refused == 1000 - MOST_NEW
    begun = sum(targets.begin(target(5000 + tenth), tenth / 10) for tenth in range(1, 601))
    assert 60 * NEW_RATE <= begun <= 60 * NEW_RATE + 1


def test_an_address_counts_once() -> None:
    targets = NewAddresses(0.0)
    one = target(2000)
    assert all(targets.begin(one, 0.0) for _ in range(1000))
    assert sum(targets.begin(target(3000 + number), 0.0) for number in range(100)) == MOST_NEW - 1


def test_an_address_that_has_answered_gives_its_place_back_once() -> None:
    targets = NewAddresses(0.0)
    for number in range(1000):
        one = target(2000 + number)
        assert targets.begin(one, 0.0)
        targets.answered(one)
        targets.answered(one)
    assert sum(targets.begin(target(9000 + number), 0.0) for number in range(100)) == MOST_NEW


def test_an_announcement_whose_port_changes_is_another_address() -> None:
    """The reply port of a recorded announcement can be changed."""
    targets = NewAddresses(0.0)
    one = target(2000)
    begun = 0
    for port in range(2000, 2200):
        one.reply_port = port
        begun += targets.begin(one, 0.0)
    assert begun == MOST_NEW
