"""Through which slot modules go to a worker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cexec.pool import call_messages as m
from cexec.python.calls.module_courier import ModuleCourier


class Slot:
    """A slot that notes what it is told."""

    def __init__(self, instance: bytes = b"w") -> None:
        self.instance = instance
        self.told: list[str] = []

    def send(self, buffers: Sequence[Any]) -> None:
        (message,) = m.Decoder().feed(b"".join(buffers))
        assert (message.kind, message.parts) == (m.MODULES, [b"zip"])
        self.told.append("modules")

    def set_up(self) -> None:
        self.told.append("set up")


def test_one_slot_of_each_worker_gets_them_and_the_others_wait() -> None:
    courier = ModuleCourier(b"zip")
    first, second, elsewhere = Slot(), Slot(), Slot(b"v")
    for slot in (first, second, elsewhere):
        courier.hears(slot, m.MISSING_MODULES)
    assert (first.told, second.told, elsewhere.told) == (["modules"], [], ["modules"])
    courier.hears(first, m.KEPT_MODULES)
    assert (second.told, elsewhere.told) == (["set up"], ["modules"])
    courier.hears(second, m.MISSING_MODULES)  # they could not be kept
    assert second.told == ["set up", "modules"]


def test_the_next_slot_gets_them_if_the_first_one_is_lost() -> None:
    courier = ModuleCourier(b"zip")
    first, second, third = Slot(), Slot(), Slot()
    for slot in (first, second, third):
        courier.hears(slot, m.MISSING_MODULES)
    courier.leave(second)
    courier.leave(first)
    assert (second.told, third.told) == ([], ["set up"])
    courier.hears(third, m.MISSING_MODULES)
    assert third.told == ["set up", "modules"]
    courier.leave(Slot())
    assert ModuleCourier(b"").digest == b""
