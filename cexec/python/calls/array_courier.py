"""Decides which arrays go to which slots, so that each comes to a machine once, and when the calls can follow.

Contract: a machine without I/O, for one executor's loop.  Each slot has a `SlotArrays`.  `give` takes the calls of the
slot in their order and passes them to `go`, once the arrays that they name are in the slot's store or ahead of them in
the same slot; messages go to `send`.  `hears` takes STORE and KEPT.  Slots whose stores have the same identity share
one: while an array comes through one slot, calls of the others wait for it.  If that slot is lost, the next one sends.

A store keeps arrays that no call names up to a number of bytes; beyond that it drops those that were used longest ago.
A call that arrives without its arrays, because of a loss or because somebody has removed the file, comes back LACKING.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from cexec.pool import call_messages as m

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from cexec.pool.call_messages import Buffer, CallMessage
    from cexec.python.calls.array_sharing import SentArray, SharedArray
    from cexec.python.calls.call import PoolCall

KEPT_BYTES = 1 << 30  # (ours) of arrays that no call names, in each store


class _Store:
    """What one machine has.  `copies`: the arrays, the one that was used last at the end; and who is sending it."""

    def __init__(self) -> None:
        self.copies: dict[SharedArray, SlotArrays | None] = {}
        self.slots: list[SlotArrays] = []

    def named(self) -> set[SharedArray]:
        """The arrays of all calls that are not over."""
        return {sent.array for slot in self.slots for call in slot.calls() for sent in call.arrays}


class ArrayCourier:
    """All stores of one executor."""

    def __init__(self, name: str, kept_bytes: int = KEPT_BYTES) -> None:
        self.name = name
        self.kept_bytes = kept_bytes
        self._stores: dict[bytes, _Store] = {}

    def join(self, identity: bytes, slot: SlotArrays) -> _Store:
        """An empty identity is that of a slot without a store."""
        store = self._stores.setdefault(identity, _Store()) if identity else _Store()
        store.slots.append(slot)
        return store

    def leave(self, slot: SlotArrays) -> None:
        for identity, store in list(self._stores.items()):
            if slot in store.slots:
                store.slots.remove(slot)
                store.copies = {array: sender for array, sender in store.copies.items() if sender is not slot}
                if not store.slots:
                    del self._stores[identity]  # the machine has removed it
                for other in store.slots:
                    other.go_on()


class SlotArrays:
    """One slot's.  `calls` returns the calls that it was given and that are not over."""

    def __init__(
        self,
        courier: ArrayCourier,
        calls: Callable[[], Iterable[PoolCall]],
        send: Callable[[Sequence[Buffer]], object],
        go: Callable[[PoolCall], None],
    ) -> None:
        self.calls = calls
        self.problem = ""  # why the last array was not kept
        self._courier = courier
        self._send = send
        self._go = go
        self._asked = False
        self._store: _Store | None = None
        self._has_store = False
        self._held: deque[PoolCall] = deque()

    def give(self, call: PoolCall) -> None:
        self._held.append(call)
        self.go_on()

    def take_out(self, wire_id: int) -> bool:
        """The call is not to go any more; False if it has gone."""
        for call in self._held:
            if call.wire_id == wire_id:
                self._held.remove(call)
                self.go_on()
                return True
        return False

    def close(self) -> list[PoolCall]:
        """The slot is over; returns the calls that have not gone."""
        held = list(self._held)
        self._held.clear()
        self._courier.leave(self)
        return held

    def hears(self, message: CallMessage) -> None:
        if message.kind == m.STORE:
            identity, problem = map(bytes, message.parts[:2])
            self._has_store = bool(identity)
            self.problem = problem.decode(errors="replace")
            self._store = self._courier.join(identity, self)
            self.go_on()
        elif self._store is not None:
            self._arrived(self._store, message.id, bytes(message.parts[0]).decode(errors="replace"))

    def lacks(self, number: int) -> None:
        """The store does not have this array, whatever we believed."""
        if self._store is not None:
            for array, sender in list(self._store.copies.items()):
                if array.number == number and sender is None:
                    del self._store.copies[array]

    def go_on(self) -> None:
        """Lets calls go that can."""
        while self._held and self._is_ready(self._held[0]):
            self._go(self._held.popleft())

    def _arrived(self, store: _Store, number: int, problem: str) -> None:
        for array, sender in list(store.copies.items()):
            if array.number == number and sender is self:
                if problem:
                    self.problem = problem
                    del store.copies[array]
                else:
                    store.copies[array] = None
        for slot in store.slots:
            slot.go_on()

    def _is_ready(self, call: PoolCall) -> bool:
        if not call.arrays:
            return True
        store = self._store
        if store is None:
            if not self._asked:
                self._asked = True
                self._send(m.encode(m.OPEN_STORE, parts=[self._courier.name.encode()]))
            return False
        if not self._has_store:
            return True  # it comes back LACKING, and ends with the problem
        ready = True
        for sent in call.arrays:
            if sent.array not in store.copies:
                self._send_array(store, sent)
            sender = store.copies[sent.array] = store.copies.pop(sent.array)
            ready = ready and sender in (None, self)
        return ready

    def _send_array(self, store: _Store, sent: SentArray) -> None:
        self._make_room(store, sent.array)
        store.copies[sent.array] = self
        self._send(m.encode(m.ARRAY, sent.array.number, parts=[sent.data(), sent.array.digest]))

    def _make_room(self, store: _Store, coming: SharedArray) -> None:
        named = store.named() | {coming}
        unused = [array for array, sender in store.copies.items() if sender is None and array not in named]
        total = sum(array.size for array in unused)
        for array in unused:
            if total <= self._courier.kept_bytes:
                return
            total -= array.size
            del store.copies[array]
            self._send(m.encode(m.DROP_ARRAY, array.number))
