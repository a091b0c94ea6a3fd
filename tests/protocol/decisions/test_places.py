"""Whoever waits for a place waits once, however what speaks for its source changes while it is postponed."""

from __future__ import annotations

from math import inf
from typing import Any

import pytest

from cexec.protocol.decisions import remembered
from cexec.protocol.decisions.clients import MOST_TURNS, ClientAccounts, ClientLimits
from cexec.protocol.decisions.places import Places
from cexec.protocol.decisions.remembered import CONNECTING, NOBODY, Origin, Remembered, RememberedAnnouncement
from cexec.protocol.decisions.slots import Slots
from cexec.protocol.decisions.standing import Standing
from tests.protocol.decisions.bidders import identity

REST = 5.0  # seconds from each job


class Slowed:
    """The reputation of a worker that rests from every client's jobs until REST."""

    def slowness(self, now: float) -> float:
        return 1.0

    def held_until(self, now: float, *, targeted: bool = False) -> float:
        return 0.0

    def client_held_until(self, client: bytes, now: float, *, targeted: bool) -> float:
        return REST


class Sound(Slowed):
    """The reputation of a worker that rests from nothing."""

    def slowness(self, now: float) -> float:
        return 0.0

    def client_held_until(self, client: bytes, now: float, *, targeted: bool) -> float:
        return 0.0


class Scene:
    """The places of a slowed worker, and one announcement that has just been postponed."""

    def __init__(self, standing: Standing) -> None:
        self.announcements = Remembered(lambda: 0.5)
        reputation: Any = Slowed()
        accounts = ClientAccounts(ClientLimits.of_slots(1))
        self.places = Places(lambda: 0.5, self.announcements, reputation, Slots(1), accounts)
        self.one = RememberedAnnouncement(
            identity(1), 1, 0.0, 100.0, targeted=False, origin=Origin(b"client"), standing=standing, source="host"
        )
        assert self.announcements.add(self.one) is None
        assert self.places.bid(self.one, 0.0)
        assert self.places.take(0.0) is None
        assert len(self.places) == 0


@pytest.mark.parametrize("again", [False, True])
def test_one_that_proves_itself_while_it_is_postponed_waits_once(again: bool) -> None:
    """Regression: a worker that recovered had it in both lotteries; when it was drawn again, cservice ended."""
    scene = Scene(Standing.UNPROVED)
    scene.places.proved(scene.one, 1.0)
    if again:
        assert scene.places.bid(scene.one, 2.0)
    scene.places.recovered()
    assert len(scene.places) == again


@pytest.mark.parametrize("standing", [Standing.UNPROVED, Standing.PROVED])
def test_a_worker_that_recovers_ends_the_rest(standing: Standing) -> None:
    scene = Scene(standing)
    scene.places.recovered()
    assert len(scene.places) == 1


def test_one_that_proves_itself_while_it_waits_is_drawn_with_those_that_come_first() -> None:
    announcements, reputation, accounts = Remembered(lambda: 0.5), Sound(), ClientAccounts(ClientLimits.of_slots(1))
    places = Places(lambda: 0.5, announcements, reputation, Slots(1), accounts)  # type: ignore[arg-type]
    one = RememberedAnnouncement(
        identity(1), 1, 0.0, 100.0, targeted=False, origin=NOBODY, standing=Standing.UNPROVED, source="host"
    )
    assert announcements.add(one) is None and places.bid(one, 0.0)
    one.wait()
    places.proved(one, 1.0)
    assert places.take(1.0) == (one, CONNECTING)


@pytest.mark.parametrize("again", [False, True])
def test_one_that_is_doubted_while_it_is_postponed_waits_once(again: bool) -> None:
    scene = Scene(Standing.PROVED)
    scene.places.doubted(scene.one, Standing.UNPROVED, 1.0)
    if again:
        assert scene.places.bid(scene.one, 2.0)
    scene.places.recovered()
    assert len(scene.places) == again
    scene.places.proved(scene.one, 3.0)
    scene.places.discard(scene.one)
    assert len(scene.places) == 0


@pytest.mark.parametrize("standing", [Standing.UNPROVED, Standing.PROVED])
def test_it_is_told_when_the_next_one_is_to_be_drawn(standing: Standing) -> None:
    """Otherwise nobody would wake up for it."""
    scene = Scene(standing)
    assert scene.places.due(REST) == inf  # it is postponed, and nobody waits
    assert scene.places.bid(scene.one, REST)
    assert scene.places.due(REST) <= REST
    drawn = scene.places.take(REST)
    assert drawn is not None and drawn[0] is scene.one
    assert scene.places.due(REST) == inf


def test_one_that_is_doubted_is_one_of_those_that_make_room_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered, "MOST_UNPROVED", 1)
    scene = Scene(Standing.PROVED)
    scene.places.doubted(scene.one, Standing.UNPROVED, 1.0)
    other = RememberedAnnouncement(
        identity(2), 1, 1.0, 100.0, targeted=False, origin=NOBODY, standing=Standing.UNPROVED, source="host"
    )
    assert scene.announcements.add(other) is scene.one


@pytest.mark.parametrize(("now", "first"), [(0.5, b"sparing"), (1000.0, b"wasteful")])
def test_one_that_waits_goes_first_no_longer_behind_others_once_its_waste_is_forgotten(
    now: float, first: bytes
) -> None:
    announcements, reputation, accounts = Remembered(lambda: 0.5), Sound(), ClientAccounts(ClientLimits.of_slots(1))
    places = Places(lambda: 0.5, announcements, reputation, Slots(1), accounts)  # type: ignore[arg-type]
    accounts.enter(b"wasteful", identity(9), CONNECTING, 0.0)
    accounts.turn_lost(b"wasteful", 10.0 * MOST_TURNS, 0.0)
    accounts.leave(b"wasteful", identity(9), CONNECTING, 0.0)
    for number, (client, weight) in enumerate([(b"wasteful", 1000), (b"sparing", 1)]):
        one = RememberedAnnouncement(identity(number), weight, 0.0, inf, targeted=False, origin=Origin(client))
        assert announcements.add(one) is None and places.bid(one, 0.0)
    drawn = places.take(now)
    assert drawn is not None and drawn[0].origin.client == first
