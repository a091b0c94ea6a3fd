"""Sessions that earlier versions had with themselves: today's client and worker take part in them byte for byte.

The recordings in `tests/protocol/recorded` were made by the client and the worker of `tests.protocol.wires` at 0.1.0,
and in the second revision before there was the frame WANTED.  Each side drew its random bytes from `Draws`, so a side
that acts alone draws the same ones again.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cexec.protocol.base import sodium
from cexec.protocol.base.limits import FIRST_REVISION
from cexec.protocol.datagrams import datagram
from cexec.protocol.datagrams.announcement import Announcement
from cexec.protocol.datagrams.opened_announcement import open_announcement
from tests.needs import require_aegis
from tests.protocol.wires import Application, ClientRobot, Side, WorkerRobot, client_handshake, worker_handshake

RECORDED = Path(__file__).parents[1] / "recorded"
NAMES = sorted(path.name for path in RECORDED.glob("session-0.1.0-*.json"))
OF_THE_SECOND_REVISION = sorted(path.name for path in RECORDED.glob("session-revision-2-*.json"))


class Draws:
    """Random bytes that depend on who draws them and how often it has drawn."""

    def __init__(self) -> None:
        self.role = "keys"
        self._drawn: Counter[str] = Counter()

    def take(self, size: int) -> bytes:
        self._drawn[self.role] += 1
        text = f"{self.role} {self._drawn[self.role]}"
        return hashlib.blake2b(text.encode(), digest_size=64).digest()[:size]


@pytest.fixture
def draws(monkeypatch: pytest.MonkeyPatch) -> Draws:
    made = Draws()
    monkeypatch.setattr(sodium, "random_bytes", made.take)
    return made


def read(name: str) -> dict[str, Any]:
    recorded: dict[str, Any] = json.loads((RECORDED / name).read_text())
    if recorded["cipher"] != sodium.CHACHA:
        require_aegis()
    return recorded


@pytest.fixture(params=NAMES)
def session(request: pytest.FixtureRequest) -> dict[str, Any]:
    return read(request.param)


@pytest.fixture(params=OF_THE_SECOND_REVISION)
def second(request: pytest.FixtureRequest) -> dict[str, Any]:
    """A session of the second revision, between sides that do not know WANTED."""
    return read(request.param)


def play(side: Side, name: str, turns: list[tuple[str, str]]) -> None:
    """Gives the side what the other one sent, and compares what it sends."""
    for who, data in turns:
        if who == name:
            assert side.bytes_to_send().hex() == data
        else:
            side.receive(bytes.fromhex(data), 0.0)
            assert side.error is None
    assert side.bytes_to_send() == b""


def with_known(known: bytes, encode: Callable[[Announcement], bytes]) -> Callable[[Announcement], bytes]:
    """What announcements said before they said what they say today."""

    def encoded(announcement: Announcement) -> bytes:
        announcement.known = known
        return encode(announcement)

    return encoded


def test_there_are_recordings() -> None:
    assert len(NAMES) == len(OF_THE_SECOND_REVISION) == 2


def test_a_client_of_today_talks_to_a_worker_of_0_1_0(
    session: dict[str, Any], draws: Draws, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was recorded answers an announcement of 0.1.0, which does not say that its client can prove itself."""
    monkeypatch.setattr(Announcement, "encode", with_known(b"", Announcement.encode))
    application = Application(b"\x03" * 32)
    draws.role = "client"
    sealed = application.announce()
    assert sealed.datagram(0, 4000, 8).hex() == session["datagram"]
    client = ClientRobot(client_handshake(sealed.handshake(), application.client, [session["cipher"]]))
    play(client, "client", session["turns"])
    assert [ended.exit_status for ended in client.exits] == [3]
    assert client.output == {1: ClientRobot.INPUT[::-1], 2: b"10"}
    assert not client.records.packed


def test_a_worker_of_today_talks_to_a_client_of_0_1_0(session: dict[str, Any], draws: Draws) -> None:
    """A worker that offers the second revision, too, says so in its hello; that one is tested with live clients."""
    application = Application(b"\x03" * 32)
    parsed = datagram.parse(bytes.fromhex(session["datagram"]), [application.client.mac1_key])
    assert parsed is not None
    opened = open_announcement(application.worker, parsed.inner)
    draws.role = "worker"
    offer = {"ciphers": [session["cipher"]], "revision": FIRST_REVISION, "tells_wanted": False}
    worker = WorkerRobot(worker_handshake(opened.handshake(), application.worker, **offer))
    play(worker, "worker", session["turns"])
    assert worker.output == {0: ClientRobot.INPUT}


def test_a_client_of_today_talks_to_a_worker_of_the_second_revision_without_wanted(
    second: dict[str, Any], draws: Draws, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Announcement, "encode", with_known(b"\x01", Announcement.encode))
    application = Application(b"\x03" * 32)
    draws.role = "client"
    sealed = application.announce()
    assert sealed.datagram(0, 4000, 8).hex() == second["datagram"]
    client = ClientRobot(client_handshake(sealed.handshake(), application.client, [second["cipher"]]))
    play(client, "client", second["turns"])
    assert [ended.exit_status for ended in client.exits] == [3]
    assert client.hello is not None and not client.hello.tells_wanted
    assert client.records.packed


def test_a_worker_of_today_talks_to_a_client_of_the_second_revision_without_wanted(
    second: dict[str, Any], draws: Draws
) -> None:
    """A worker that offers WANTED, too, sets one more bit of its hello, which that client passes over."""
    application = Application(b"\x03" * 32)
    parsed = datagram.parse(bytes.fromhex(second["datagram"]), [application.client.mac1_key])
    assert parsed is not None
    opened = open_announcement(application.worker, parsed.inner)
    draws.role = "worker"
    offer = {"ciphers": [second["cipher"]], "tells_wanted": False}
    worker = WorkerRobot(worker_handshake(opened.handshake(), application.worker, **offer))
    play(worker, "worker", second["turns"])
    assert worker.output == {0: ClientRobot.INPUT}
