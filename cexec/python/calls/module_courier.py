"""Decides through which slot the modules of an executor go to a worker, so that they come to each worker once.

Contract: a machine without I/O, for one executor's loop.  `hears` takes MISSING_MODULES and KEPT_MODULES of a slot, and
`leave` is told of each slot that is over.  While the modules come through one slot, the others of that worker wait;
then they are set up again.  If that slot is lost, or the worker cannot keep the modules, the next one gets them.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Protocol

from cexec.pool import call_messages as m

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cexec.pool.call_messages import Buffer


class ModuleSlot(Protocol):
    """A slot as the courier sees it."""

    @property
    def instance(self) -> bytes:
        """Which worker it is."""

    def send(self, buffers: Sequence[Buffer]) -> object:
        """Queues a message."""

    def set_up(self) -> None:
        """Sends SETUP, which names the modules."""


class ModuleCourier:
    """`data`: the zip file, or nothing.  `digest` is what SETUP says."""

    def __init__(self, data: bytes) -> None:
        self.digest = sha256(data).digest() if data else b""
        self._data = data
        self._senders: dict[bytes, ModuleSlot] = {}  # by instance
        self._waiting: dict[bytes, list[ModuleSlot]] = {}

    def hears(self, slot: ModuleSlot, kind: int) -> None:
        if kind == m.KEPT_MODULES:
            self._is_done(slot)
        elif slot.instance in self._senders:
            self._waiting.setdefault(slot.instance, []).append(slot)
        else:
            self._senders[slot.instance] = slot
            slot.send(m.encode(m.MODULES, parts=[self._data]))

    def leave(self, slot: ModuleSlot) -> None:
        waiting = self._waiting.get(slot.instance, [])
        if slot in waiting:
            waiting.remove(slot)
        self._is_done(slot)

    def _is_done(self, slot: ModuleSlot) -> None:
        if self._senders.get(slot.instance) is slot:
            del self._senders[slot.instance]
            for other in self._waiting.pop(slot.instance, []):
                other.set_up()
