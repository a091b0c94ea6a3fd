"""A slot that is reserved in vain goes to another client that waits.

Regression: six clients that never sent GO let an honest job wait for 0.8 s in the first 20 s, at a worker of one slot.
"""

from __future__ import annotations

from random import Random

import pytest

from cexec.protocol.base.limits import GO_DEADLINE
from cexec.protocol.decisions.bid import Bidder, Connect, Outcome, Withdraw
from cexec.protocol.decisions.clients import (
    DECAY,
    LEAST_TURN,
    NOTICED,
    WASTEFUL,
    WITHIN,
    ClientAccounts,
    ClientLimits,
)
from cexec.protocol.decisions.remembered import RESERVED, Origin, RememberedAnnouncement
from cexec.protocol.decisions.reservations import (
    LEASE_PATIENCE,
    MOST_LATENCY,
    MOST_OF_WASTEFUL,
    OFTEN,
    PATIENCE,
    Reservations,
    patience,
)
from cexec.protocol.decisions.standing import Standing
from tests.protocol.decisions.bidders import connects, identity

IDLE, SLOW, OTHER = b"idle", b"slow", b"other"
LIMITS = ClientLimits(jobs=100, places=100)


class Clock:
    """A worker, and the time."""

    def __init__(self, slots: int = 1) -> None:
        self.machine = Bidder(slots=slots, random=Random(1).random, limits=LIMITS)
        self.now = 0.0
        self.withdrawn: list[bytes] = []

    def announce(self, number: int, client: bytes, weight: int = 1) -> None:
        self.machine.consider(identity(number), weight, 1000.0, self.now, origin=Origin(client))

    def confirm(self, number: int, client: bytes, latency: float = 0.0) -> None:
        """A slot is reserved for it."""
        self.announce(number, client)
        found = self.connects()
        while not found:  # other workers may be faster
            found = self.wait(0.01)
        assert found == [identity(number)]
        assert self.machine.reserved(identity(number), self.now, latency=latency)

    def connects(self) -> list[bytes]:
        found = []
        while (event := self.machine.next_event()) is not None:
            if isinstance(event, Withdraw):
                self.withdrawn.append(event.identity)
            elif isinstance(event, Connect):
                found.append(event.identity)
        return found

    def wait(self, seconds: float) -> list[bytes]:
        """Lets time pass; returns the connections that are to be made."""
        found, until = self.connects(), self.now + seconds
        while (due := self.machine.next_timeout()) is not None and due <= until:
            self.now = max(self.now, due)
            self.machine.handle_timeout(self.now)
            found += self.connects()
        self.now = until
        return found

    def run(self, number: int) -> None:
        """Its client gives the job, which takes no time."""
        self.machine.started(identity(number), self.now)
        self.machine.finished(identity(number), Outcome.SUCCEEDED, 0.0, self.now)


def test_a_slot_that_is_reserved_in_vain_goes_to_another_client_that_waits() -> None:
    clock = Clock()
    clock.confirm(1, IDLE)
    clock.announce(2, OTHER)
    assert clock.wait(PATIENCE - 0.01) == [] and clock.withdrawn == []
    assert clock.wait(0.02) == [] and clock.withdrawn == [identity(1)]
    clock.machine.released(identity(1), clock.now)
    assert clock.wait(0.0) == [identity(2)]
    assert clock.machine.accounts.rank(IDLE) == WASTEFUL


def test_whoever_comes_while_a_slot_is_reserved_in_vain_gets_it_at_once() -> None:
    clock = Clock()
    clock.confirm(1, IDLE)
    clock.wait(PATIENCE + 0.01)
    assert clock.withdrawn == []  # nobody else waits
    clock.announce(2, OTHER)
    clock.wait(0.0)
    assert clock.withdrawn == [identity(1)]


def test_a_slot_is_taken_back_for_each_client_that_waits_and_for_no_more() -> None:
    clock = Clock(slots=4)
    for number in range(4):
        clock.confirm(number, b"idle %d" % number)
    clock.announce(10, OTHER)
    clock.announce(11, OTHER)
    clock.announce(12, SLOW)
    clock.wait(PATIENCE + 0.01)
    assert len(clock.withdrawn) == 2
    clock.wait(GO_DEADLINE)
    assert len(clock.withdrawn) == 2


def test_a_job_that_comes_although_its_slot_is_taken_back_keeps_it() -> None:
    clock = Clock()
    clock.confirm(1, SLOW)
    clock.announce(2, OTHER)
    clock.wait(PATIENCE + 0.01)
    assert clock.withdrawn == [identity(1)]
    clock.run(1)
    assert clock.machine.accounts.rank(SLOW) == WITHIN
    assert clock.wait(0.0) == [identity(2)]


@pytest.mark.parametrize("latency", [0.05, 0.3])
def test_a_client_on_a_slow_link_has_the_time_of_a_round_trip(latency: float) -> None:
    """It answers the first flight after a round trip, and so it does with CONFIRM."""
    clock = Clock()
    for number in range(10):
        clock.confirm(number, SLOW, latency)
        clock.announce(100 + number, OTHER)
        clock.wait(latency + 0.05)
        clock.run(number)
        assert clock.connects() == [identity(100 + number)]
        assert clock.machine.reserved(identity(100 + number), clock.now)
        clock.run(100 + number)
    assert clock.withdrawn == []
    assert clock.machine.accounts.rank(SLOW) == WITHIN


def test_a_client_that_was_stopped_has_its_turn_again_within_seconds_although_others_wait_all_the_time() -> None:
    """Regression: it went behind the others until it had done a job, which it could not while others waited."""
    clock = Clock()
    clock.confirm(1, SLOW)
    clock.announce(2, OTHER)
    clock.wait(PATIENCE + 0.01)
    clock.machine.released(identity(1), clock.now)
    clock.machine.forget(identity(1), clock.now)
    clock.announce(3, SLOW)
    turns = []
    for number in range(10, 200):
        clock.announce(number, OTHER)
        for who in clock.wait(0.1):
            turns.append(who)
            assert clock.machine.reserved(who, clock.now)
            clock.run(int.from_bytes(who, "big"))
        if identity(3) in turns:
            break
    assert identity(3) in turns
    assert clock.now < 10.0


def test_the_next_job_of_a_lease_may_take_longer() -> None:
    """`cmap --delay` waits between two jobs, and a lease is worth more than a connection."""
    assert patience(0.0, leased=True, wasted=0.0) == LEASE_PATIENCE
    assert patience(0.0, leased=True, wasted=NOTICED) == PATIENCE


def test_what_a_client_gets_for_its_slowness_is_bounded() -> None:
    """It may pretend, and then it lets slots be reserved for longer."""
    bounds = [patience(99.0, leased=False, wasted=wasted) - PATIENCE for wasted in (0.0, NOTICED, OFTEN)]
    assert bounds == pytest.approx([MOST_LATENCY, MOST_OF_WASTEFUL, 0.0])


def test_a_client_that_has_wasted_two_slots_gets_nothing_for_its_slowness() -> None:
    accounts = ClientAccounts(LIMITS)
    for number in range(2):
        accounts.enter(SLOW, identity(number), RESERVED, 0.0)
    for number in range(2):
        accounts.leave(SLOW, identity(number), RESERVED, GO_DEADLINE)
    assert patience(99.0, leased=False, wasted=accounts.wasted(SLOW, GO_DEADLINE)) == PATIENCE


def test_a_slot_that_has_come_back_makes_room_for_the_next_one_to_be_taken() -> None:
    reservations = Reservations()
    for number in range(5):
        one = RememberedAnnouncement(identity(number), 1, 0.0, 99.0, targeted=False, origin=Origin(IDLE))
        reservations.late(one)
        assert reservations.surplus(1, lambda client: WITHIN, lambda client: True) is one
        assert reservations.surplus(1, lambda client: WITHIN, lambda client: True) is None
        assert reservations.left(one.identity)
        assert not reservations.left(one.identity)


def test_turns_without_a_job_let_a_client_go_behind_the_others() -> None:
    """Regression: clients that cancelled within 0.1 s kept every other client out for ever, the more the heavier."""
    clock, number = Clock(), 0
    while clock.machine.accounts.rank(IDLE) == WITHIN:
        number += 1
        clock.confirm(number, IDLE)
        clock.machine.released(identity(number), clock.now)
        clock.machine.forget(identity(number), clock.now)
        assert number < 100
    assert number <= NOTICED / LEAST_TURN + 1
    clock.announce(1000, IDLE, weight=100)
    clock.announce(1001, OTHER)
    assert clock.connects() == [identity(1001)]


def test_lost_races_are_forgotten_and_hold_nobody() -> None:
    """Most clients whose turn leads to no job have chosen another worker."""
    clock = Clock()
    for number in range(1, 1000):
        clock.confirm(number, SLOW)
        clock.machine.claimed(identity(number), 3, clock.now)
        clock.machine.released(identity(number), clock.now)
        clock.connects()
    assert clock.machine.accounts.rank(SLOW) == WASTEFUL
    clock.wait((1.0 - NOTICED) / DECAY + 1.0)
    clock.announce(2000, OTHER)
    clock.connects()
    assert clock.machine.accounts.rank(SLOW) == WITHIN


def test_a_stranger_who_repeats_announcements_costs_their_clients_no_rank() -> None:
    """Only turns of clients that have proved where they receive count: anybody can send a copy from elsewhere."""
    machine = Bidder(slots=1, random=Random(1).random, limits=LIMITS)
    for number in range(100):
        now = float(number)
        machine.consider(
            identity(number), 1, 10.0, now, origin=Origin(OTHER), standing=Standing.UNPROVED, source=f"10.0.0.{number}"
        )
        machine.handle_timeout(now)
        for who in connects(machine):
            machine.failed(who, now)
    assert machine.accounts.rank(OTHER) == WITHIN
