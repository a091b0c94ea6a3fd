"""The table of announcements: found by content and by source, bounded in all and for each host, forgotten in time."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from itertools import product
from math import inf

import pytest

from cexec.relay.announcement_table import (
    CLAIMED,
    HEARD,
    LIFETIME,
    MAXIMUM_ANNOUNCED,
    MAXIMUM_OF_HOST,
    PASSED_ON,
    TRANSITIONS,
    WITHDRAWN,
    AnnouncementTable,
    RelayedAnnouncement,
)

HOST = "10.0.0.1"
STATES = (HEARD, PASSED_ON, CLAIMED, WITHDRAWN)


@pytest.fixture
def via() -> Iterator[socket.socket]:
    with socket.socket() as made:
        yield made


@pytest.fixture
def table() -> AnnouncementTable:
    return AnnouncementTable()


def add(
    table: AnnouncementTable, via: socket.socket, number: int, host: str = HOST, now: float = 0.0
) -> RelayedAnnouncement:
    entry = RelayedAnnouncement(number.to_bytes(16, "big"), 0, (host, 40_000), via)
    table.add(entry)
    table.heard(entry, now)
    return entry


def test_an_entry_is_found_by_content_and_by_source(table: AnnouncementTable, via: socket.socket) -> None:
    first, second = add(table, via, 1, "10.0.0.1"), add(table, via, 1, "10.0.0.2")
    other = add(table, via, 2)
    assert table.of(first.mac1) == [first, second] and table.of(other.mac1) == [other]
    assert table.get(first.mac1, first.source) is first and table.get(first.mac1, second.source) is second
    assert table.get(other.mac1, second.source) is None
    assert len(table) == 3 and table.all() == [first, second, other]


def test_what_is_removed_is_not_found_any_more(table: AnnouncementTable, via: socket.socket) -> None:
    first, second = add(table, via, 1, "10.0.0.1"), add(table, via, 1, "10.0.0.2")
    table.remove(first)
    assert table.of(first.mac1) == [second] and table.get(first.mac1, first.source) is None
    table.remove(second)
    assert table.of(first.mac1) == [] and len(table) == 0
    with pytest.raises(KeyError):
        table.remove(second)


def test_the_entry_that_was_heard_longest_ago_expires_first(table: AnnouncementTable, via: socket.socket) -> None:
    assert table.next_expiry() == inf and table.expired(1e9) == []
    first, second = add(table, via, 1, now=0.0), add(table, via, 2, now=1.0)
    assert table.next_expiry() == LIFETIME
    table.heard(first, 2.0)
    assert table.next_expiry() == 1.0 + LIFETIME
    assert table.expired(0.9 + LIFETIME) == []
    assert table.expired(1.0 + LIFETIME) == [second]
    assert table.expired(2.0 + LIFETIME) == [second, first]


def test_a_host_makes_room_among_its_own(table: AnnouncementTable, via: socket.socket) -> None:
    neighbour = add(table, via, 0, "10.0.0.2")
    entries = [add(table, via, 1 + number) for number in range(MAXIMUM_OF_HOST - 1)]
    assert table.crowded("10.0.0.1") is None
    entries.append(add(table, via, MAXIMUM_OF_HOST))
    assert table.crowded("10.0.0.1") is entries[0]
    table.heard(entries[0], 1.0)
    assert table.crowded("10.0.0.1") is entries[1]
    assert table.crowded("10.0.0.2") is None
    table.remove(entries[1])
    assert table.crowded("10.0.0.1") is None
    assert table.of(neighbour.mac1) == [neighbour]


def test_all_hosts_together_are_bounded(table: AnnouncementTable, via: socket.socket) -> None:
    entries = [add(table, via, number, f"10.0.{number % 200}.1") for number in range(MAXIMUM_ANNOUNCED)]
    assert table.crowded("10.1.0.1") is entries[0]


def test_an_address_of_a_client_has_its_reply_port(via: socket.socket) -> None:
    entry = RelayedAnnouncement(bytes(16), 0, ("10.0.0.1", 40_000), via)
    entry.reply_port = 41_234
    assert (entry.host, entry.client) == ("10.0.0.1", ("10.0.0.1", 41_234))


@pytest.mark.parametrize(("before", "after"), list(product(STATES, STATES)))
def test_only_the_transitions_of_the_table_are_allowed(via: socket.socket, before: str, after: str) -> None:
    entry = RelayedAnnouncement(bytes(16), 0, ("10.0.0.1", 40_000), via)
    entry.state = before
    if after in TRANSITIONS[before]:
        entry.move(after)
        assert entry.state == after
    else:
        with pytest.raises(ValueError, match=f"{before} cannot become {after}"):
            entry.move(after)
        assert entry.state == before


def test_what_the_states_mean(via: socket.socket) -> None:
    entry = RelayedAnnouncement(bytes(16), 0, ("10.0.0.1", 40_000), via)
    said = {}
    for entry.state in STATES:
        said[entry.state] = (entry.passed_on, entry.claimed)
    assert said == {
        HEARD: (False, False), PASSED_ON: (True, False), CLAIMED: (True, True), WITHDRAWN: (False, True),
    }  # fmt: skip
