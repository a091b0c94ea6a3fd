"""When a waiting client is told something, without a bidder around it."""

from __future__ import annotations

from math import inf

import pytest

from cexec.protocol.base.limits import QUEUED_INTERVAL
from cexec.protocol.decisions.queue_words import QueueWords
from cexec.protocol.decisions.remembered import NOBODY, RUNNING, RememberedAnnouncement
from cexec.protocol.decisions.slots import Slots
from cexec.protocol.decisions.standing import Standing
from cexec.protocol.decisions.unproved import Unproved
from tests.protocol.decisions.bidders import identity

NOW = 100.0


def words(*, full: bool) -> QueueWords:
    slots = Slots(1)
    if full:
        slots.enter(RUNNING)
    return QueueWords(slots, Unproved())


def waiting(*, proves: bool = True) -> RememberedAnnouncement:
    return RememberedAnnouncement(
        identity(1), 1, NOW, NOW + 100.0, targeted=False, origin=NOBODY, standing=Standing.UNPROVED, proves=proves
    )


@pytest.mark.parametrize(("due", "asked"), [(inf, NOW), (NOW + 5.0, NOW + 5.0)])
def test_a_full_worker_asks_when_the_next_word_is_due_and_at_once_if_none_is(due: float, asked: float) -> None:
    one = waiting()
    one.telling.due = due
    words(full=True).ask(one, NOW)
    assert (one.telling.due, one.timers.bid_at) == (asked, inf)


def test_a_worker_with_a_free_slot_asks_at_once() -> None:
    one = waiting()
    one.telling.due = NOW + 5.0
    words(full=False).ask(one, NOW)
    assert one.telling.due == NOW


@pytest.mark.parametrize("later", [1.0, QUEUED_INTERVAL + 1.0])
def test_a_client_of_0_1_0_that_asks_again_is_told_again_after_the_interval(later: float) -> None:
    one = waiting(proves=False)
    one.telling.told(NOW, inf)
    words(full=True).ask_again(one, NOW + later)
    assert one.telling.due == NOW + max(later, QUEUED_INTERVAL)


def test_a_client_that_can_prove_itself_and_does_not_is_told_once() -> None:
    one = waiting()
    one.telling.told(NOW, inf)
    words(full=True).ask_again(one, NOW + 1000.0)
    assert one.telling.due == inf
