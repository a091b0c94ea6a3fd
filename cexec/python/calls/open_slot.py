"""A planned slot with the line to its worker.

Contract: an `OpenSlot` begins the search at once and tells its `SlotPool` what happens, at last `lost_slot`.  `close`
gives it back, or ends the search.  `send_call` sends the call's function before it, if the worker does not have it;
the call goes once the arrays are there that it shares with others.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from cexec.pool import call_messages as m
from cexec.python.calls.array_courier import SlotArrays

if TYPE_CHECKING:
    from cexec.pool.call_messages import CallMessage
    from cexec.python.calls.array_courier import ArrayCourier
    from cexec.python.calls.call import PoolCall
    from cexec.python.calls.call_slot import CallSlot
    from cexec.python.calls.functions import SentFunction
    from cexec.python.calls.planned_slots import PlannedSlot


class SlotPool(Protocol):
    """Who has the slots; `courier` says which of them have which arrays."""

    courier: ArrayCourier

    def open_line(self, slot: OpenSlot) -> CallSlot:
        """Returns the line to a worker that is to be searched for."""

    def held_slot(self, planned: PlannedSlot) -> None:
        """The slot is ours."""

    def wanted_slot(self, planned: PlannedSlot) -> None:
        """Another client waits for the slot."""

    def says(self, slot: OpenSlot, messages: list[CallMessage]) -> None:
        """Messages have come."""

    def lost_slot(self, slot: OpenSlot, error: BaseException | None) -> None:
        """The slot is over; without an error because it was closed."""


class OpenSlot:
    """A planned slot with the line to its worker: it hears what happens there."""

    def __init__(self, pool: SlotPool, planned: PlannedSlot) -> None:
        self.planned = planned
        self.long: CallMessage | None = None  # an outcome that counts once DONE has come
        self._pool = pool
        self._closed = False
        self.line = pool.open_line(self)
        self.arrays = SlotArrays(pool.courier, planned.sent.values, self.line.send, self._send)
        self.task = asyncio.get_running_loop().create_task(self._serve())

    async def _serve(self) -> None:
        error: BaseException | None = None
        try:
            await self.line.serve()
        except BaseException as caught:
            error = None if self._closed else caught
        finally:
            self._pool.lost_slot(self, error)

    def close(self) -> None:
        self._closed = True
        if self.planned.used or self.line.worker:
            self.line.give_back()
        else:
            self.task.cancel()

    def send_call(self, call: PoolCall) -> None:
        self.arrays.give(call)

    def _send(self, call: PoolCall) -> None:
        function = call.function
        if function.id not in self.line.functions:
            self.line.functions.add(function.id)
            self.line.send(m.encode(m.FUNCTION, function.id, parts=function.parts))
        self.line.send(m.encode(call.kind, call.wire_id, function.id, call.parts))

    def forget(self, function: SentFunction) -> None:
        if function.id in self.line.functions:
            self.line.functions.discard(function.id)
            self.line.send(m.encode(m.FORGET, function.id))

    # as `SlotOwner`

    def slot_held(self) -> None:
        self._pool.held_slot(self.planned)

    def slot_wanted(self) -> None:
        self._pool.wanted_slot(self.planned)

    def slot_says(self, messages: list[CallMessage]) -> None:
        self._pool.says(self, messages)
