"""Which arrays go to which slots: once to each machine, again after a loss, and no more than are kept."""

from __future__ import annotations

from typing import Any

from cexec.pool import call_messages as m
from cexec.python.calls.array_courier import ArrayCourier, SlotArrays
from cexec.python.calls.array_sharing import SentArray, SharedArray
from cexec.python.calls.call import CallFuture, PoolCall
from cexec.python.calls.functions import SentFunction

FUNCTION = SentFunction(1, "f", [], None)


def array(number: int, size: int = 10) -> SharedArray:
    return SharedArray(number, b"digest", size)


def a_call(wire_id: int, *arrays: SharedArray) -> PoolCall:
    sent = [SentArray(one, lambda: memoryview(b"bytes")) for one in arrays]
    made = PoolCall(m.CALL, FUNCTION, [], 0, CallFuture(lambda call: None), sent)
    made.wire_id = wire_id
    return made


class Slot:
    """A slot that notes what goes there: messages by kind and id, and calls."""

    def __init__(self, courier: ArrayCourier) -> None:
        self.given: dict[int, PoolCall] = {}
        self.wire: list[Any] = []
        self.arrays = SlotArrays(courier, self.given.values, self._send, lambda call: self.wire.append(call.wire_id))

    def _send(self, buffers: Any) -> None:
        (message,) = m.Decoder().feed(b"".join(bytes(one) for one in buffers))
        self.wire.append((message.kind, message.id))

    def give(self, call: PoolCall) -> None:
        self.given[call.wire_id] = call
        self.arrays.give(call)

    def hears(self, kind: int, id: int, *parts: bytes) -> None:
        self.arrays.hears(m.CallMessage(kind, id, 0, list(parts)))

    def told(self) -> list[Any]:
        wire, self.wire = self.wire, []
        return wire


def slots(courier: ArrayCourier, *identities: bytes) -> list[Slot]:
    """Slots whose stores are open; those of one identity share theirs."""
    made = [Slot(courier) for _ in identities]
    for slot, identity in zip(made, identities, strict=True):
        first = a_call(10_000, array(10_000))
        slot.arrays.give(first)
        assert slot.told() == [(m.OPEN_STORE, 0)]
        assert slot.arrays.take_out(10_000)
        slot.hears(m.STORE, 0, identity, b"")
    return made


def test_calls_without_arrays_go_at_once_but_not_before_others() -> None:
    slot = Slot(ArrayCourier("name"))
    slot.give(a_call(1))
    slot.give(a_call(2, array(1)))
    slot.give(a_call(3))
    assert slot.told() == [1, (m.OPEN_STORE, 0)]
    slot.hears(m.STORE, 0, b"identity", b"")
    assert slot.told() == [(m.ARRAY, 1), 2, 3]  # the array is ahead of its call


def test_an_array_is_sent_once_to_each_machine() -> None:
    courier = ArrayCourier("name")
    here, beside, elsewhere = slots(courier, b"one", b"one", b"two")
    shared = array(1)
    for wire_id, slot in enumerate((here, beside, elsewhere), 1):
        slot.give(a_call(wire_id, shared))
    assert (here.told(), beside.told(), elsewhere.told()) == ([(m.ARRAY, 1), 1], [], [(m.ARRAY, 1), 3])
    here.hears(m.KEPT, 1, b"")
    assert beside.told() == [2]
    beside.give(a_call(4, shared))
    assert beside.told() == [4]


def test_if_the_sender_is_lost_another_slot_sends() -> None:
    courier = ArrayCourier("name")
    here, beside = slots(courier, b"one", b"one")
    shared = array(1)
    here.give(a_call(1, shared))
    beside.give(a_call(2, shared))
    assert here.arrays.close() == []
    assert beside.told() == [(m.ARRAY, 1), 2]
    assert beside.arrays.close() == []
    (later,) = slots(courier, b"one")  # the machine has removed it with its last slot
    later.give(a_call(3, shared))
    assert later.told() == [(m.ARRAY, 1), 3]


def test_calls_that_wait_can_be_taken_out_and_are_told_at_the_end() -> None:
    courier = ArrayCourier("name")
    here, beside = slots(courier, b"one", b"one")
    here.give(a_call(1, array(1)))
    shared = array(2)
    here.give(a_call(2, shared))
    for wire_id in (3, 4, 5):
        beside.give(a_call(wire_id, shared))
    assert beside.arrays.take_out(4) and not here.arrays.take_out(2)
    assert [call.wire_id for call in beside.arrays.close()] == [3, 5]


def test_what_is_lacking_is_sent_again() -> None:
    (slot,) = slots(ArrayCourier("name"), b"one")
    shared = array(1)
    slot.give(a_call(1, shared))
    slot.hears(m.KEPT, 1, b"")
    slot.arrays.lacks(1)
    slot.give(a_call(2, shared))
    assert slot.told() == [(m.ARRAY, 1), 1, (m.ARRAY, 1), 2]


def test_a_problem_is_remembered_and_the_array_is_not() -> None:
    (slot,) = slots(ArrayCourier("name"), b"one")
    shared = array(1)
    slot.give(a_call(1, shared))
    slot.hears(m.KEPT, 1, b"no room")
    assert slot.arrays.problem == "no room"
    slot.give(a_call(2, shared))
    assert slot.told() == [(m.ARRAY, 1), 1, (m.ARRAY, 1), 2]


def test_without_a_store_calls_go_without_their_arrays() -> None:
    slot = Slot(ArrayCourier("name"))
    slot.give(a_call(1, array(1)))
    slot.hears(m.STORE, 0, b"", b"not private")
    assert slot.told() == [(m.OPEN_STORE, 0), 1] and slot.arrays.problem == "not private"


def test_arrays_that_no_call_names_are_kept_up_to_a_limit() -> None:
    (slot,) = slots(ArrayCourier("name", kept_bytes=20), b"one")
    made = [array(number) for number in range(1, 6)]
    for number, one in enumerate(made[:3], 1):
        slot.give(a_call(number, one))
        slot.hears(m.KEPT, number, b"")
    slot.told()
    slot.given.clear()
    slot.give(a_call(4, made[0]))  # is used again, so the second is the oldest one
    slot.give(a_call(5, made[3]))
    slot.hears(m.KEPT, 4, b"")
    assert slot.told() == [4, (m.ARRAY, 4), 5]  # two without a call: 20 bytes
    del slot.given[4]
    slot.give(a_call(6, made[4]))
    assert slot.told() == [(m.DROP_ARRAY, 2), (m.ARRAY, 5), 6]
