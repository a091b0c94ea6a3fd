"""Whose turn it is: weights, leases, and clients from whose jobs a slowed worker rests."""

from __future__ import annotations

import pytest

from cexec.protocol.decisions.bid import Bidder, Outcome
from cexec.protocol.decisions.complaints import COMPLAINT_DELAY, FIRST_REST
from cexec.protocol.decisions.remembered import Origin
from cexec.protocol.decisions.rivals import YIELDING_TO_HEALTHY, RivalWord
from cexec.protocol.decisions.turns import LONGEST_POSTPONED
from tests.protocol.decisions.bidders import (
    WANTED,
    bidder,
    connects,
    drop,
    events,
    identity,
    run,
    told_of_a_healthy_rival,
    with_rivals,
)


def shares(weights: list[int], draws: int) -> dict[int, int]:
    """One slot and 60 clients of each weight, each of which comes again after its job."""
    machine = bidder()
    number = 0
    clients = {}
    for weight in weights:
        for _ in range(60):
            number += 1
            clients[identity(number)] = weight
            machine.consider(identity(number), weight, 3600.0, 0.0)
    counts = dict.fromkeys(weights, 0)
    now = 0.0
    for _ in range(draws):
        (who,) = connects(machine)
        run(machine, who, now)
        weight = clients.pop(who)
        counts[weight] += 1
        now += 1.0
        number += 1
        clients[identity(number)] = weight
        machine.consider(identity(number), weight, 3600.0, now)
        machine.finished(who, Outcome.SUCCEEDED, 1.0, now)
    return counts


def test_weights_one_and_three_share_a_slot_one_to_three() -> None:
    counts = shares([1, 3], 100)
    assert counts[3] / counts[1] == pytest.approx(3.0, rel=0.15)


def test_light_jobs_beside_very_heavy_ones_do_not_starve() -> None:
    counts = shares([1, 60], 200)
    assert 1 <= counts[1] <= 8


def test_lease_takes_part_in_the_lottery_by_its_weight() -> None:
    machine = bidder()
    machine.consider(identity(1), 1, WANTED, 0.0)
    events(machine)
    run(machine, identity(1), 0.0)
    machine.consider(identity(2), 3, 3600.0, 0.0)
    events(machine)
    running, lease, leases_drawn = identity(1), 100, 0
    for step in range(40):
        now = 1.0 + step
        lease += 1
        machine.leased(identity(lease), 1, now)
        machine.finished(running, Outcome.SUCCEEDED, 1.0, now)
        (running,) = connects(machine)
        run(machine, running, now)
        if running == identity(lease):
            leases_drawn += 1
        else:
            machine.forget(identity(lease), now)
            machine.consider(identity(1000 + step), 3, 3600.0, now)
            events(machine)
    assert 8 <= leases_drawn <= 12


def test_lease_whose_connection_fails_is_forgotten() -> None:
    machine = bidder()
    machine.leased(identity(1), 1, 0.0)
    assert connects(machine) == [identity(1)]
    machine.failed(identity(1), 0.1)
    assert events(machine) == [("Forget", identity(1))]


def test_complaint_that_ends_the_turn_of_one_client_leaves_the_jobs_of_others() -> None:
    """A client that has complained waits longer when it complains again; the jobs of others do not."""
    machine = with_rivals()
    told_of_a_healthy_rival(machine)
    dropped_at = drop(machine, 1, 0.0, b"a")
    first_rest = dropped_at + YIELDING_TO_HEALTHY * COMPLAINT_DELAY
    machine.consider(identity(2), 1, 3600.0, 1.0, targeted=True, origin=Origin(b"a"))
    machine.handle_timeout(dropped_at + COMPLAINT_DELAY)
    events(machine)
    run(machine, identity(2), dropped_at + COMPLAINT_DELAY)
    machine.finished(identity(2), Outcome.BROKEN, 0.1, first_rest - 1.0)
    machine.complained(identity(2), first_rest - 1.0)
    machine.consider(identity(3), 1000, 3600.0, first_rest - 1.0, origin=Origin(b"a"))
    machine.consider(identity(4), 1, 3600.0, first_rest - 1.0, origin=Origin(b"b"))
    machine.handle_timeout(first_rest - 0.1)
    assert connects(machine) == []
    now = first_rest - 1.0
    while not (found := connects(machine)):
        due = machine.next_timeout()
        assert due is not None
        now = due
        machine.handle_timeout(now)
    assert found == [identity(4)]
    assert now < 2 * first_rest
    run(machine, identity(4), now)
    machine.finished(identity(4), Outcome.SUCCEEDED, 1.0, now + 1.0)
    machine.acknowledged(identity(4), now + 1.0)
    assert connects(machine) == [identity(3)]  # the success ends the rest from the jobs of the other client, too


def postponed() -> tuple[Bidder, float]:
    """A worker that rests from the jobs of the client `a`, of which two wait; and the end of the rest from all jobs."""
    machine = with_rivals()
    told_of_a_healthy_rival(machine)
    now = drop(machine, 1, 0.0, b"a") + YIELDING_TO_HEALTHY * COMPLAINT_DELAY
    machine.handle_timeout(now)
    machine.consider(identity(2), 1, 3600.0, now, origin=Origin(b"a"))
    now = drop_next(machine, now)
    machine.consider(identity(3), 1, 40.0, now, origin=Origin(b"a"))
    machine.leased(identity(4), 1, now, b"a")
    machine.handle_timeout(now + 1.0)
    events(machine)
    assert machine.waiting == 0
    return machine, now + 1.0


def drop_next(machine: Bidder, now: float) -> float:
    """Drops the job that is drawn next."""
    while not (found := connects(machine)):
        due = machine.next_timeout()
        assert due is not None
        now = max(now, due)
        machine.handle_timeout(now)
    run(machine, found[0], now)
    machine.finished(found[0], Outcome.BROKEN, 0.1, now)
    machine.complained(found[0], now)
    return now


def test_postponed_jobs_wait_for_their_turn_without_a_busy_loop() -> None:
    machine, now = postponed()
    told_of_a_healthy_rival(machine, now)
    due = machine.next_timeout()
    assert due is not None and due > now
    machine.consider(identity(5), 1, WANTED, now, origin=Origin(b"b"))
    machine.handle_timeout(now + 1.0)
    assert connects(machine) == [identity(5)]  # of a client that has not complained


def test_a_postponed_job_whose_client_goes_is_forgotten() -> None:
    machine, now = postponed()
    machine.forget(identity(4), now)
    assert events(machine) == [("Forget", identity(4))]
    machine.handle_timeout(now + 50.0)
    assert ("Forget", identity(3)) in events(machine)  # which has expired


def test_postponed_jobs_have_their_turn_at_once_when_a_job_succeeds() -> None:
    machine, now = postponed()
    machine.consider(identity(5), 1, WANTED, now, origin=Origin(b"b"))
    machine.handle_timeout(now + 1.0)
    (who,) = connects(machine)
    run(machine, who, now + 1.0)
    machine.finished(who, Outcome.SUCCEEDED, 1.0, now + 2.0)
    machine.acknowledged(who, now + 2.0)
    assert len(connects(machine)) == 1
    assert machine.waiting == 1


def test_a_postponed_job_is_taken_soon_after_all_rivals_have_lost_theirs() -> None:
    machine, now = postponed()
    machine.competition.rival_told(RivalWord(b"rival", job=b"", completed=False, clock=now, said_at=now), now)
    until = now + FIRST_REST * 2 + LONGEST_POSTPONED
    while not (found := connects(machine)):
        due = machine.next_timeout()
        assert due is not None and due <= until
        machine.handle_timeout(due)
    assert found[0] in (identity(3), identity(4))
