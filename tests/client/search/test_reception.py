"""Who gets a place at the client's listener when more come than it handles at once."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from cexec.client.search.reception import ACCEPT_BATCH, PATIENCE, Reception
from cexec.protocol.base.limits import CONNECT_DEADLINE, MAXIMUM_UNAUTHENTICATED
from tests.protocol.wires import APPLICATION, hello_of

LISTENER = -7  # the descriptor of the fake listener
FLOOD = "10.0.0.66"


class FakeListener:
    def __init__(self) -> None:
        self.waiting: list[str] = []  # addresses
        self.ends: list[socket.socket] = []

    def accept(self) -> tuple[socket.socket, tuple[str, int]] | None:
        if not self.waiting:
            return None
        ours, theirs = socket.socketpair()
        self.ends += [ours, theirs]
        return ours, (self.waiting.pop(0), 999)

    def filenos(self) -> list[int]:
        return [LISTENER]

    def close(self) -> None:
        for end in self.ends:
            end.close()


class Desk:
    def __init__(self) -> None:
        self.listener = FakeListener()
        made: Any = self.listener
        shaking: Any = lambda now: None  # noqa: E731
        self.reception = Reception(made, shaking)

    def come(self, addresses: list[str], now: float) -> list[str]:
        """Lets peers connect, and takes as many as there is room for; returns their addresses."""
        self.listener.waiting += addresses
        taken: list[str] = []
        while batch := self.reception.accept(now):
            taken += [candidate.address[0] for candidate in batch]
        return taken

    def make_room(self, now: float) -> list[str]:
        """Lets those that have to give way go; returns their addresses."""
        ready = set(self.reception.filenos(now)) if self.listener.waiting else set()
        chosen = self.reception.giving_way(ready, now)
        for candidate in chosen:
            self.reception.gave_way(candidate)
            self.reception.drop(candidate)
        return [candidate.address[0] for candidate in chosen]


@pytest.fixture
def desk() -> Iterator[Desk]:
    made = Desk()
    yield made
    made.reception.close()
    made.listener.close()


def full(desk: Desk, address: str = FLOOD) -> None:
    assert len(desk.come([address] * MAXIMUM_UNAUTHENTICATED, 0.0)) == MAXIMUM_UNAUTHENTICATED


def test_nobody_gives_way_before_its_time_or_while_nobody_waits(desk: Desk) -> None:
    full(desk)
    assert LISTENER not in desk.reception.filenos(0.1)
    assert desk.reception.next_timeout(0.1) == pytest.approx(PATIENCE)
    assert desk.make_room(PATIENCE) == []
    desk.listener.waiting.append("10.0.0.3")
    assert desk.make_room(PATIENCE - 0.01) == []
    assert LISTENER in desk.reception.filenos(PATIENCE)
    assert desk.make_room(PATIENCE) == [FLOOD] * ACCEPT_BATCH
    assert desk.come([], PATIENCE) == ["10.0.0.3"]


def test_three_hundred_silent_connections_keep_a_worker_waiting_for_about_a_second(desk: Desk) -> None:
    """Regression: they held all places for 3 s each, and the worker gave the client up before its turn came."""
    desk.listener.waiting = [FLOOD] * 300 + ["10.0.0.3"]
    now, taken = 0.0, desk.come([], 0.0)
    while "10.0.0.3" not in taken:
        now += 0.01
        while desk.make_room(now):
            taken += desk.come([], now)
        taken += desk.come([], now)
        assert now < CONNECT_DEADLINE
    assert now <= PATIENCE * (300 // MAXIMUM_UNAUTHENTICATED + 1)


def test_the_busiest_address_gives_way_first(desk: Desk) -> None:
    desk.come(["10.0.0.3", *[FLOOD] * 40, "10.0.0.4", *["10.0.0.5"] * 22], 0.0)
    desk.listener.waiting += ["10.0.0.9"] * 40
    gone: list[str] = []
    for _ in range(3):
        gone += desk.make_room(1.0)
        desk.come([], 1.0)
    assert gone == [FLOOD] * 18 + [FLOOD, "10.0.0.5"] * 15
    assert "10.0.0.3" not in gone and "10.0.0.4" not in gone


def test_one_that_came_later_stays_although_its_address_is_the_busiest(desk: Desk) -> None:
    desk.come([FLOOD] * 10, 0.0)
    desk.come([FLOOD] * 50, 0.2)
    desk.come(["10.0.0.3"] * 4, 0.0)
    desk.listener.waiting += ["10.0.0.9"] * 64
    assert desk.make_room(PATIENCE) == [FLOOD] * 10 + ["10.0.0.3"] * 4


def test_whoever_has_finished_its_first_flight_does_not_give_way(desk: Desk) -> None:
    full(desk)
    for number, candidate in enumerate(desk.reception.candidates.values()):
        candidate.hello = hello_of(APPLICATION.worker, instance=number.to_bytes(16, "big"))
    assert len(desk.come([FLOOD] * 100, 1.0)) == MAXIMUM_UNAUTHENTICATED
    assert len(desk.make_room(1.0 + PATIENCE)) == ACCEPT_BATCH
    assert sum(candidate.hello is not None for candidate in desk.reception.candidates.values()) == 64


def test_the_message_tells_who_fills_the_listener(desk: Desk) -> None:
    assert desk.reception.crowd == ""
    full(desk)
    desk.listener.waiting += ["10.0.0.9"] * 20
    desk.make_room(1.0)
    desk.come([], 1.0)
    assert desk.reception.crowd == (
        f"16 connections without a word (most of them from {FLOOD}) filled the listener and were closed"
    )


def test_a_worker_has_one_connection(desk: Desk) -> None:
    desk.come(["10.0.0.3"] * 3, 0.0)
    first, second, third = desk.reception.candidates.values()
    first.hello = hello_of(APPLICATION.worker, instance=b"a" * 16)
    assert not desk.reception.has_another(first)
    second.hello = hello_of(APPLICATION.worker, instance=b"a" * 16)
    third.hello = hello_of(APPLICATION.worker, instance=b"b" * 16)
    assert desk.reception.has_another(second) and not desk.reception.has_another(third)
