"""The counts of slots and of connections alone, without a bidder around them."""

from __future__ import annotations

from cexec.protocol.decisions.remembered import CONNECTING, RESERVED, RUNNING, TRYING
from cexec.protocol.decisions.slots import Slots


def test_a_connection_that_has_left_is_not_counted_any_more() -> None:
    slots = Slots(3)
    for state in (CONNECTING, TRYING):
        for _ in range(5):
            slots.enter(state)
            slots.leave(state)
    for _ in range(3):
        assert slots.may_connect(one_at_a_time=False)
        slots.enter(CONNECTING)
    assert not slots.may_connect(one_at_a_time=False)


def test_a_stalled_connection_keeps_no_slot_from_another_until_it_has_left() -> None:
    slots = Slots(1)
    slots.enter(CONNECTING)
    assert not slots.may_connect(one_at_a_time=False)
    slots.stall(CONNECTING)
    assert slots.may_connect(one_at_a_time=False)
    slots.leave(CONNECTING, stalled=True)
    slots.enter(CONNECTING)
    assert not slots.may_connect(one_at_a_time=False)


def test_an_unproved_client_is_tried_if_nobody_else_is_promised_the_slot() -> None:
    slots = Slots(1)
    assert slots.may_try(one_at_a_time=False)
    assert not slots.may_try(one_at_a_time=False, waiting=1)
    slots.enter(CONNECTING)
    assert not slots.may_try(one_at_a_time=False)
    assert slots.may_try(one_at_a_time=False, spare=True)
    slots.enter(TRYING)
    assert not slots.may_try(one_at_a_time=False, spare=True)


def test_slots_that_are_reserved_or_busy_are_in_use() -> None:
    slots = Slots(4)
    for state in (RESERVED, RUNNING, RUNNING):
        slots.enter(state)
    assert (slots.free, slots.use) == (1, 0.75)
