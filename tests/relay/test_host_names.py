"""Names among a relay's targets."""

from __future__ import annotations

import socket
import time

import pytest

from cexec.net import resolver
from cexec.net.destinations import Destination
from cexec.net.groups import GroupEntry, parse_groups
from cexec.relay.host_names import LOOK_UP_INTERVAL, Names
from tests.waiting import PATIENCE


class Answers:
    """What the name server says at the moment; it may hang."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.addresses: dict[str, list[str]] = {}
        self.hangs = False
        monkeypatch.setattr(resolver, "resolve", self)
        monkeypatch.setattr(resolver, "RESOLVE_PATIENCE", PATIENCE)  # its thread may be slow

    def __call__(self, entry: GroupEntry, port: int) -> tuple[list[Destination], str]:
        while self.hangs:
            time.sleep(0.01)
        label = entry.text
        found = [
            Destination(socket.AF_INET, (one, entry.port or port), label)
            for one in self.addresses.get(entry.address, [])
        ]
        return found, "no such name"


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Answers:
    return Answers(monkeypatch)


def shown(names: Names, now: float) -> list[tuple[str, int | None]]:
    return [(entry.address, entry.port) for entry in names.entries(now)]


def test_a_name_stands_for_all_its_addresses_and_others_stay_as_they_are(answers: Answers) -> None:
    answers.addresses = {"a.example": ["10.0.0.1", "10.0.0.2"], "b.example": ["10.0.0.3"]}
    names = Names(parse_groups("10.9.0.255,a.example,b.example:4000,mdns"), 3010)
    assert shown(names, 0.0) == [
        ("10.9.0.255", None), ("10.0.0.1", 3010), ("10.0.0.2", 3010), ("10.0.0.3", 4000), ("", None),
    ]  # fmt: skip


def test_a_name_is_looked_up_again_and_what_is_known_stays_until_something_else_is(answers: Answers) -> None:
    answers.addresses = {"a.example": ["10.0.0.1"]}
    names = Names(parse_groups("a.example"), 3010)
    assert shown(names, 0.0) == [("10.0.0.1", 3010)]
    answers.addresses = {}
    assert shown(names, LOOK_UP_INTERVAL) == [("10.0.0.1", 3010)]
    answers.addresses = {"a.example": ["10.0.0.9"]}
    assert shown(names, LOOK_UP_INTERVAL + 10) == [("10.0.0.9", 3010)]


def test_a_name_server_that_does_not_answer_keeps_nobody_waiting(
    answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolver, "RESOLVE_PATIENCE", 0.25)
    answers.hangs = True
    answers.addresses = {"a.example": ["10.0.0.1"]}
    names = Names(parse_groups("a.example,10.9.0.255"), 3010)
    started = time.monotonic()
    assert shown(names, 0.0) == [("10.9.0.255", None)]
    assert time.monotonic() - started < PATIENCE
    monkeypatch.setattr(resolver, "RESOLVE_PATIENCE", PATIENCE)
    answers.hangs = False
    assert shown(names, 10.0) == [("10.0.0.1", 3010), ("10.9.0.255", None)]
