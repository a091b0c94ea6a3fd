"""The slots and calls of one executor, in asyncio's loop: does what the plan says, and tells it what happens.

Contract: `run` is a coroutine that ends once `finish` was called and all calls are over, or after `abort`; then no slot
is held.  `submit`, `drop`, `finish` and `abort` may be called from any thread; a call is settled in the loop's.  If
no worker can be found, the calls that wait fail, and later ones are tried anew.
"""

from __future__ import annotations

import asyncio
import reprlib
from collections import deque
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any

from cexec.errors import CexecError, NoWorkerError
from cexec.pool import call_messages as m
from cexec.pool.exceptions import unpack
from cexec.pool.pickles import load
from cexec.python.calls import planned_slots as plans
from cexec.python.calls.call_slot import CallSlot
from cexec.python.calls.open_slot import OpenSlot
from cexec.python.calls.passed_over import WorkersPassedOver
from cexec.python.calls.pool_errors import (
    InitializerError,
    NotThisWorkerError,
    describe_status,
    lacking_array,
    lost_call,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from cexec.pool.call_messages import CallMessage
    from cexec.python.calls.array_courier import ArrayCourier
    from cexec.python.calls.call import PoolCall
    from cexec.python.calls.call_plan import CallPlan
    from cexec.python.calls.call_slot import SlotSetup
    from cexec.python.calls.functions import FunctionTable, SentFunction
    from cexec.python.calls.planned_slots import PlannedSlot
    from cexec.python.calls.pool_workers import PoolWorkers

CANCEL_PATIENCE = 0.5  # seconds (ours) that the end of a call may wait behind what is sent before it
MOST_LACKED = 3  # times (ours) that a call is sent again because its arrays were not there
MOST_UNREADY = 3  # processes (ours) in a row that end before they are ready


class CallPool:
    """One executor's.  Made in the loop's thread."""

    def __init__(
        self,
        workers: PoolWorkers,
        setup: SlotSetup,
        plan: CallPlan,
        functions: FunctionTable,
        courier: ArrayCourier,
        write: Callable[[str], None],
    ) -> None:
        """`write` takes what workers write, for the user."""
        self._workers = workers
        self._functions = functions
        self._setup = setup
        self._plan = plan
        self.courier = courier
        self._write = write
        self.loop = asyncio.get_running_loop()
        self._woken = asyncio.Event()
        self._new: deque[PoolCall] = deque()
        self._dropped: deque[PoolCall] = deque()
        self._released: deque[SentFunction] = deque()
        self._is_called = False  # if the loop will look at those
        self._slots: dict[PlannedSlot, OpenSlot] = {}
        self._passed_over = WorkersPassedOver(workers.who, self._opening, self._fail_waiting)
        self._unready = 0
        self._broken: InitializerError | None = None
        self._finishing = self._aborted = self._cancelling = False

    # from any thread

    def submit(self, call: PoolCall) -> None:
        self._new.append(call)
        self._call()

    def drop(self, call: PoolCall) -> None:
        """Nobody wants the call any more."""
        self._dropped.append(call)
        self._call()

    def release(self, function: SentFunction) -> None:
        """Somebody who may have made more calls of this function does not."""
        self._released.append(function)
        self._call()

    def cancel_pending(self) -> None:
        """Cancels the calls that have not begun."""
        self._cancelling = True
        self._call()

    def finish(self) -> None:
        """Lets `run` end once all calls are over."""
        self._finishing = True
        self._wake()

    def abort(self) -> None:
        """Lets `run` end now; calls that are not over are cancelled, and those that run are ended."""
        self._aborted = True
        self._wake()

    @property
    def broken(self) -> InitializerError | None:
        """Why no call can run any more."""
        return self._broken

    @property
    def held(self) -> int:
        """The number of slots that we have."""
        return len(self._plan.held)

    def _call(self) -> None:
        if not self._is_called:
            try:
                self._is_called = True
                self._wake()
            except BaseException:  # a Ctrl-C, before the loop was woken: the next call has to do it
                self._is_called = False
                raise

    def _wake(self) -> None:
        try:
            self.loop.call_soon_threadsafe(self._woken.set)
        except RuntimeError:
            pass  # the loop has ended, and everything with it

    # the loop

    async def run(self) -> None:
        try:
            while not self._aborted and not (self._finishing and not self._plan.unfinished and not self._new):
                self._woken.clear()
                self._is_called = False
                self._take_new()
                self._plan.follow(monotonic())
                self._do_events()
                await self._wait()
        finally:
            await self._close()

    def _take_new(self) -> None:
        while self._new:
            call = self._new.popleft()
            if self._broken is not None:
                self._end(call, False, self._broken)
            else:
                self._plan.submit(call)
        if self._cancelling:
            self._cancelling = False
            for call in self._plan.pending:
                call.future.cancel()
        while self._dropped:
            call = self._dropped.popleft()
            self._plan.drop(call)
            self._retire(call.function)
        while self._released:
            self._retire(self._released.popleft())

    def _end(self, call: PoolCall, good: bool, value: Any) -> None:
        """A call has its outcome."""
        call.future.settle(good, value)
        if not call.dropped:
            self._retire(call.function)

    def _retire(self, function: SentFunction) -> None:
        """A user of this function is gone."""
        for forgotten in self._functions.release(function):
            for slot in self._slots.values():
                slot.forget(forgotten)

    async def _wait(self) -> None:
        due = self._plan.next_timeout()
        if self._is_called:
            return
        if due == inf:
            await self._woken.wait()
            return
        timer = self.loop.call_later(max(0.0, due - monotonic()), self._woken.set)
        try:
            await self._woken.wait()
        finally:
            timer.cancel()

    def _do_events(self) -> None:
        while (event := self._plan.next_event()) is not None:
            if isinstance(event, plans.Send):
                self._slots[event.slot].send_call(event.call)
            elif isinstance(event, plans.Open):
                self._slots[event.slot] = OpenSlot(self, event.slot)
            elif isinstance(event, plans.Doomed):
                call = event.call
                self._end(call, False, lost_call(call.function.name, _arguments_of(call), call.crashes))
            elif event.slot in self._slots:
                self._do_with_slot(event)

    def _do_with_slot(self, event: plans.End | plans.TakeBack | plans.Close) -> None:
        slot = self._slots[event.slot]
        if isinstance(event, plans.Close):
            slot.close()
        elif slot.arrays.take_out(event.wire_id):
            told = self._plan.ended if isinstance(event, plans.End) else self._plan.returned
            told(event.slot, event.wire_id, monotonic())
            self._woken.set()
        elif isinstance(event, plans.TakeBack):
            slot.line.send(m.encode(m.TAKE_BACK, event.wire_id))
        else:
            mark = slot.line.send(m.encode(m.CANCEL, event.wire_id))
            self.loop.call_later(CANCEL_PATIENCE, self._hang_up, slot, event.wire_id, mark)

    def _hang_up(self, slot: OpenSlot, wire_id: int, mark: int) -> None:
        """Loses a slot whose call is not wanted any more, if that has not been said for all the bytes before it."""
        if next(iter(slot.planned.sent), None) == wire_id and not slot.line.has_sent(mark):
            slot.task.cancel()

    async def _close(self) -> None:
        """Gives all slots back; those with calls are hung up on."""
        slots = list(self._slots.values())
        others = self._passed_over.tasks
        for task in others:
            task.cancel()
        for slot in slots:
            if self._aborted or slot.planned.sent:
                slot.task.cancel()
            else:
                slot.close()
        await asyncio.gather(*(slot.task for slot in slots), *others, return_exceptions=True)
        for call in (*self._plan.take_waiting(), *self._plan.take_sent(), *self._new):
            call.future.cancel()

    # for the slots

    def open_line(self, slot: OpenSlot) -> CallSlot:
        """Returns the line to a worker that is to be searched for."""
        others = self._passed_over.names
        return CallSlot(lambda: self._workers.start(others), self._setup, slot, self._write)

    def held_slot(self, planned: PlannedSlot) -> None:
        self._plan.holds(planned, monotonic())
        if not self._plan.held:
            self._passed_over.ask_who_is_there()  # in case the worker turns out to be of no use

    def wanted_slot(self, planned: PlannedSlot) -> None:
        self._plan.wanted(planned, monotonic())
        self._woken.set()

    def lost_slot(self, slot: OpenSlot, error: BaseException | None) -> None:
        """A slot is over; without an error because we gave it back."""
        planned = slot.planned
        unready = planned.state == plans.OPENING
        del self._slots[planned]
        self._setup.modules.leave(slot.line)
        for call in reversed(slot.arrays.close()):
            self._plan.returned(planned, call.wire_id, monotonic())  # it has never gone there
        self._woken.set()
        reason = "the slot was given back" if error is None else str(error)
        self._plan.lost(planned, reason, monotonic())
        if isinstance(error, NotThisWorkerError):
            self._passed_over.add(slot.line.instance, error)
        elif isinstance(error, NoWorkerError):
            if not self._plan.held:
                self._fail_waiting(self._passed_over.nobody() or error)
        elif isinstance(error, CexecError):
            if unready:
                self._passed_over.failed(slot.line.worker, slot.line.instance, error)
        elif error is not None and not isinstance(error, (TimeoutError, asyncio.CancelledError)):
            self._fail_waiting(error)  # an error of this program, which nobody else would see

    def says(self, slot: OpenSlot, messages: list[CallMessage]) -> None:
        now = monotonic()
        for message in messages:
            self._follow(slot, message, now)
        self._woken.set()

    # messages

    def _follow(self, slot: OpenSlot, message: CallMessage, now: float) -> None:
        kind, planned = message.kind, slot.planned
        if kind in (m.RESULT, m.RAISED):
            if m.is_short(message):
                self._settle(slot, message, now)
            else:
                slot.long = message
        elif kind == m.DONE and slot.long is not None:
            long, slot.long = slot.long, None
            self._settle(slot, long, now)
        elif kind == m.CANCELLED:
            self._plan.ended(planned, message.id, now)
        elif kind == m.RETURNED:
            self._plan.returned(planned, message.id, now)
        elif kind == m.READY:
            self._unready = 0
            self._passed_over.ready(slot.line.worker)
            if planned.state == plans.OPENING:
                self._plan.opened(planned, slot.line.worker, now)
        elif kind == m.UNREADY:
            error = unpack(message.parts, slot.line.worker)
            self._break(InitializerError(f"the initializer has raised at {slot.line.worker}: {error!r}"), error)
        elif kind == m.DIED:
            self._follow_death(slot, message, now)
        elif kind in (m.STORE, m.KEPT):
            slot.arrays.hears(message)
        elif kind in (m.MISSING_MODULES, m.KEPT_MODULES):
            self._setup.modules.hears(slot.line, kind)
        elif kind == m.LACKING:
            self._send_again(slot, message, now)

    def _send_again(self, slot: OpenSlot, message: CallMessage, now: float) -> None:
        """A call has come to its worker without its arrays; it is sent again, with them."""
        slot.arrays.lacks(message.about)
        call = slot.planned.sent.get(message.id)
        if call is None:
            return
        call.lacked += 1
        if call.lacked <= MOST_LACKED:
            self._plan.returned(slot.planned, message.id, now)
            return
        self._plan.ended(slot.planned, message.id, now)
        error = lacking_array(call.function.name, slot.line.worker, slot.arrays.problem)
        if not call.dropped:
            self._end(call, False, error)

    def _follow_death(self, slot: OpenSlot, message: CallMessage, now: float) -> None:
        slot.long = None
        reason = describe_status(m.decode_status(message.about))
        if message.id != m.NOBODY:
            self._plan.died(slot.planned, message.id, reason, now)
        elif slot.planned.state == plans.OPENING:
            self._unready += 1
            if self._unready >= MOST_UNREADY:
                self._break(InitializerError(f"no process gets ready: at {slot.line.worker} {reason}"), None)
            else:
                slot.task.cancel()

    def _settle(self, slot: OpenSlot, message: CallMessage, now: float) -> None:
        call = self._plan.finished(slot.planned, message.id, message.about * 1e-9, now)
        if call is None:
            return
        if message.kind == m.RAISED:
            self._end(call, False, unpack(message.parts, slot.line.worker))
            return
        try:
            result = load(message.parts)
        except BaseException as error:
            error.add_note(f"while the result of {call.function.name}, from worker {slot.line.worker}, was unpickled")
            self._end(call, False, error)
        else:
            self._end(call, True, result)

    # failures

    def _opening(self) -> list[asyncio.Task[None]] | None:
        """Returns the slots that may get ready; None if there is one already."""
        return None if self._plan.held else [slot.task for slot in self._slots.values() if slot.line.worker]

    def _fail_waiting(self, error: BaseException) -> None:
        for call in self._plan.take_waiting():
            self._end(call, False, error)

    def _break(self, error: InitializerError, cause: BaseException | None) -> None:
        """No call can run any more."""
        error.__cause__ = cause
        self._broken = self._broken or error
        for call in (*self._plan.take_waiting(), *self._plan.take_sent()):
            self._end(call, False, self._broken)
        for slot in self._slots.values():
            slot.task.cancel()


def _arguments_of(call: PoolCall) -> str:
    """Returns the arguments of a call that has failed as a short text."""
    try:
        parts = [b"".join(part) if isinstance(part, list) else bytes(part) for part in call.parts]
        loaded = load(parts)
        if call.kind == m.CHUNK:
            return reprlib.repr(loaded)
        arguments, keywords = loaded
        return ", ".join([*map(reprlib.repr, arguments), *(f"{k}={reprlib.repr(v)}" for k, v in keywords.items())])
    except Exception:
        return "..."
