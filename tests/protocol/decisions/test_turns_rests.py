"""One announcement in and out of a rest, without a bidder around it."""

from __future__ import annotations

from math import inf
from random import Random

from cexec.protocol.decisions.clients import ClientAccounts, ClientLimits
from cexec.protocol.decisions.competition import Competition
from cexec.protocol.decisions.remembered import NOBODY, Remembered, RememberedAnnouncement
from cexec.protocol.decisions.reputation import Reputation
from cexec.protocol.decisions.turns import Turns
from tests.protocol.decisions.bidders import identity


class Rests(Reputation):
    """A slowed worker that rests from every client's jobs until `until`."""

    until = -inf

    def slowness(self, now: float) -> float:
        return 1.0

    def held_until(self, now: float, *, targeted: bool = False) -> float:
        return -inf

    def client_held_until(self, client: bytes, now: float, *, targeted: bool = False) -> float:
        return self.until


def waiting() -> tuple[Turns, Rests, RememberedAnnouncement]:
    """Turns in which one announcement waits."""
    chance = Random(1)
    rests, remembered = Rests(Competition(chance.random)), Remembered(chance.random)
    turns = Turns(chance.random, remembered, rests, ClientAccounts(ClientLimits.of_slots(1)))
    announcement = RememberedAnnouncement(identity(1), 1, 0.0, 100.0, targeted=False, origin=NOBODY)
    remembered.add(announcement)
    turns.add(announcement)
    return turns, rests, announcement


def test_one_that_waits_is_taken_once() -> None:
    turns, _, announcement = waiting()
    assert (len(turns), turns.due(0.0)) == (1, -inf)
    assert turns.take(0.0) is announcement
    assert (len(turns), turns.due(0.0), turns.take(0.0)) == (0, inf, None)


def test_one_that_was_postponed_once_and_then_taken_is_not_drawn_again() -> None:
    """Else a job that runs would be in the lottery again, as soon as the worker had recovered."""
    turns, rests, announcement = waiting()
    rests.until = 10.0
    assert turns.take(0.0) is None
    turns.add(announcement)  # its time has come
    assert turns.take(10.0) is announcement
    turns.recovered()
    assert len(turns) == 0


def test_one_that_is_discarded_does_not_come_back() -> None:
    turns, rests, announcement = waiting()
    rests.until = 10.0
    assert turns.take(0.0) is None
    turns.discard(announcement)
    turns.recovered()
    assert len(turns) == 0
