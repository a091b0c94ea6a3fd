"""When an announcement whose connections failed is tried again."""

from __future__ import annotations

from itertools import pairwise

import pytest

from cexec.protocol.decisions.remembered import LONGEST_RETRY, NEW_WAYS_BURST
from tests.protocol.decisions.bidders import WANTED, bidder, connects, events, identity


def test_failed_connection_is_tried_again_only_if_the_client_is_heard_again() -> None:
    machine = bidder()
    machine.consider(identity(1), 1, WANTED, 0.0)
    events(machine)
    machine.failed(identity(1), 0.0)
    machine.handle_timeout(5.0)
    assert events(machine) == []
    machine.consider(identity(1), 1, WANTED, 5.0)
    machine.handle_timeout(5.0)
    assert connects(machine) == [identity(1)]


def tries(seconds: float, *, new_way: bool = False) -> list[float]:
    """When a worker tries to reach a client that asks every second, and that it cannot reach."""
    machine = bidder()
    tried, now = [], 0.0
    while now < seconds:
        machine.consider(identity(1), 1, WANTED, now, new_way=new_way)
        machine.handle_timeout(now)
        for name, _ in events(machine):
            assert name in ("Connect", "Queued")
            if name == "Connect":
                tried.append(now)
                machine.failed(identity(1), now)
        now += 0.25
    return tried


def test_client_that_cannot_be_reached_is_tried_for_ever_but_ever_later() -> None:
    """Regression: after five failures an announcement was forgotten for 60 s although its client still asked."""
    tried = tries(600.0)
    pauses = [later - earlier for earlier, later in pairwise(tried)]
    assert all(pause <= 1.5 * LONGEST_RETRY + 0.25 for pause in pauses)
    assert 600.0 - tried[-1] <= 1.5 * LONGEST_RETRY + 0.25
    assert len(tried) <= 6 + 600.0 / (0.5 * LONGEST_RETRY)


def test_new_way_to_a_client_is_tried_soon_but_invented_ones_only_now_and_then() -> None:
    assert tries(3.0, new_way=True)[:4] == pytest.approx([0.0, 0.5, 1.0, 1.5], abs=0.3)
    invented, known = tries(600.0, new_way=True), tries(600.0)
    assert len(invented) <= 2 * len(known) + NEW_WAYS_BURST


def test_new_way_that_is_heard_after_another_copy_shortens_the_wait_all_the_same() -> None:
    machine = bidder()
    machine.consider(identity(1), 1, WANTED, 0.0)
    now = 0.0
    for _ in range(6):
        while not connects(machine):
            now += 0.25
            machine.consider(identity(1), 1, WANTED, now)
            machine.handle_timeout(now)
        machine.failed(identity(1), now)
    machine.consider(identity(1), 1, WANTED, now + 1.0)
    machine.handle_timeout(now + 1.0)
    assert connects(machine) == []
    machine.consider(identity(1), 1, WANTED, now + 1.1, new_way=True)
    machine.handle_timeout(now + 1.1)
    assert connects(machine) == [identity(1)]
