"""Bidders and what they ask for, for tests."""

from __future__ import annotations

from os import urandom
from random import Random

from cexec.protocol.decisions.bid import Bidder, Outcome
from cexec.protocol.decisions.competition import LEAST_COMPETITORS, LEAST_SPREAD
from cexec.protocol.decisions.remembered import NOBODY, Origin, RememberedAnnouncement
from cexec.protocol.decisions.rivals import RivalWord
from cexec.protocol.decisions.standing import Standing
from cexec.protocol.decisions.unproved import Unproved

WANTED = 15.0
LARGEST_LITTLE_SPREAD = LEAST_SPREAD * (LEAST_COMPETITORS - 1.0)  # the logarithm is below its tangent


def identity(number: int) -> bytes:
    return number.to_bytes(16, "big")


def bidder(slots: int = 1, speed: float = 1.0, boost: float | None = None, seed: int = 1) -> Bidder:
    return Bidder(slots=slots, speed=speed, boost=boost, random=Random(seed).random)


def with_rivals(slots: int = 1, speed: float = 1.0, boost: float | None = None, seed: int = 1) -> Bidder:
    made = bidder(slots, speed, boost, seed)
    made.competition.rival_heard(0.0)
    return made


def events(machine: Bidder) -> list[tuple[str, bytes | None]]:
    found = []
    while (event := machine.next_event()) is not None:
        found.append((type(event).__name__, getattr(event, "identity", None)))
    return found


def connects(machine: Bidder) -> list[bytes]:
    return [who for name, who in events(machine) if name == "Connect" and who is not None]


def run(machine: Bidder, who: bytes, now: float) -> None:
    """Win the race for an announcement that a Connect was given for."""
    assert machine.reserved(who, now)
    machine.started(who, now)


def delay_of(machine: Bidder, now: float = 0.0, number: int = 1) -> float:
    """Seconds until an announcement that is heard now is answered."""
    machine.consider(identity(number), 1, WANTED, now)
    start = now
    while not connects(machine):
        due = machine.next_timeout()
        assert due is not None
        now = due
        machine.handle_timeout(now)
    return now - start


def drop(machine: Bidder, number: int, now: float, client: bytes = b"client") -> float:
    """Takes a job of a client and drops it, at which the client complains; returns when it was taken."""
    machine.consider(identity(number), 1, WANTED, now, origin=Origin(client))
    while not (found := connects(machine)):
        due = machine.next_timeout()
        assert due is not None
        now = due
        machine.handle_timeout(now)
    assert found == [identity(number)]
    run(machine, found[0], now)
    machine.finished(found[0], Outcome.BROKEN, 0.1, now)
    machine.complained(found[0], now)
    return now


def told_of_a_healthy_rival(machine: Bidder, now: float = 0.0) -> None:
    machine.competition.rival_told(RivalWord(b"rival", job=b"", completed=True, clock=now, said_at=now), now)


def slots_of(machine: Bidder) -> tuple[int, int, int]:
    """Slots that are free, reserved and busy."""
    return machine.slots.free, machine.slots.reserved, machine.slots.running


def waiting_in(machine: Bidder) -> int:
    """Announcements that would be answered if a slot were free."""
    return machine.waiting


def use_up_words(unproved: Unproved, source: str, now: float) -> None:
    """Recordings that nobody has heard before take all datagrams that their source may get now."""
    while True:
        one = RememberedAnnouncement(
            urandom(16), 1, now, now + WANTED, targeted=False, origin=NOBODY, standing=Standing.UNPROVED, source=source
        )  # fmt: skip
        if not unproved.may_tell(one, now):
            return
        unproved.told(one)
