"""Decides which call goes to which slot, and what the end of a slot or of a process means.

Contract: a machine without I/O; `now` is monotonic seconds.  In: `submit` and `drop` follow the user, and the methods
of "what slots tell" follow the slots.  `follow(now)` then decides; it is due at `next_timeout()`, too.  Out:
`next_event()` returns one of the event classes below, oldest first.

    slot        entered when                                  may be followed by
    OPENING     `Open` was told                               READY, GONE
    READY       it can take calls                             LEAVING, GONE
    LEAVING     others want it: it finishes what has begun    GONE
    GONE        it was closed or lost                         -

Rules.  A slot is sent as many calls ahead as take it about `AHEAD` seconds; when others have nothing to do, and it has
made no progress for `STUCK`, those that have not begun are taken back.  Long calls, and calls under which a process has
ended before (suspects), have a slot to themselves.  Without retries no call is sent ahead, so that at the loss of a
slot it is never open which call may have begun.

A call is charged with the end of a process only if it ran there.  If a slot is lost without a word, that is the oldest
call that was sent to it.  A call that was charged more than `retries` times fails.

A slot that another client wants is given back after the call in hand, once slots were held as long as they were waited
for, times `weight`, or after `LONGEST_TURN`; so clients with long turns and clients with short ones get equal shares of
the time.  The turns are drawn by weight.  Between pools of different weights they soon are as long as they may be, and
then the shares follow the draws.  Time that was waited for and not held yet is kept for later turns, up to `weight`
squared of the longest: a pool may have some more than `weight` turns in a row.  For a while after such a word slots
without calls are kept for a moment only: others may want those, too, and are not told again, because their share is a
fair one.
"""

from __future__ import annotations

from collections import deque
from math import inf
from typing import TYPE_CHECKING

from cexec.client.aio.pacing import CONTENDED_FOR
from cexec.pool.call_messages import SMALL
from cexec.python.calls.call_queue import CallQueue
from cexec.python.calls.planned_slots import (
    GONE,
    LEAVING,
    OPENING,
    READY,
    STUCK,
    Close,
    Doomed,
    End,
    Open,
    PlannedSlot,
    Send,
    TakeBack,
)

if TYPE_CHECKING:
    from cexec.python.calls.call import PoolCall
    from cexec.python.calls.planned_slots import PlanEvent

AHEAD = 0.02  # seconds (ours) of work that a slot has waiting
MOST_AHEAD = 128  # calls (ours)
MOST_OPENING = 8  # slots (ours) that are being opened at a time
LONGEST_TURN = 2.0  # seconds, as the issue of this API asks for
IDLE_WHILE_CONTENDED = 0.2  # seconds (ours) that a slot without calls is kept then
UNWANTED = 1.0  # seconds (ours) without work after which no more slots are searched for
LEARNING = 0.2  # the weight (ours) of the latest call in the mean duration


class CallPlan:
    """All calls and slots of one pool."""

    def __init__(self, *, most_slots: int | None, retries: int, idle_timeout: float, weight: int = 1) -> None:
        self.slots: list[PlannedSlot] = []
        self._most_slots = inf if most_slots is None else most_slots
        self._retries = retries
        self._idle_timeout = idle_timeout
        self._weight = weight
        self._contended_until = -inf  # others want slots until then, as far as we know
        self._waiting = CallQueue()
        self._suspects = CallQueue()
        self._sent = 0
        self._numbers = 0
        self._took: float | None = None  # the mean of what calls take, in seconds
        self._worked_at = -inf  # when there was work last
        self._given_back_at = -inf  # when a slot was given back last
        self._balance = 0.0  # seconds of waiting, times weight, less those that slots were held while others waited
        self._events: deque[PlanEvent] = deque()

    def next_event(self) -> PlanEvent | None:
        return self._events.popleft() if self._events else None

    @property
    def unfinished(self) -> int:
        """The number of calls that are not over."""
        return len(self._waiting) + len(self._suspects) + self._sent

    @property
    def held(self) -> list[PlannedSlot]:
        """The slots that we have now."""
        return [slot for slot in self.slots if slot.state in (READY, LEAVING)]

    # the user

    def submit(self, call: PoolCall) -> None:
        """A new call; `follow` makes something of all that are new."""
        self._waiting.append(call)

    def drop(self, call: PoolCall) -> None:
        """Nobody wants the outcome; the call is ended if it runs."""
        slot = call.slot
        if isinstance(slot, PlannedSlot):
            if not call.dropped:
                self._events.append(End(slot, call.wire_id))
        else:
            self._suspects.discard(call)
            self._waiting.discard(call)
        call.dropped = True

    @property
    def waiting(self) -> list[PoolCall]:
        """The calls that wait for a slot."""
        return [*self._suspects, *self._waiting]

    @property
    def pending(self) -> list[PoolCall]:
        """The calls that have not begun: they wait for a slot, or in one behind another call."""
        return [*self.waiting, *(call for slot in self.slots for call in list(slot.sent.values())[1:])]

    def take_waiting(self) -> list[PoolCall]:
        """Forgets all calls that wait for a slot, and returns them."""
        calls = self.waiting
        self._suspects.clear()
        self._waiting.clear()
        return calls

    def take_sent(self) -> list[PoolCall]:
        """Forgets all calls that slots have, and returns them."""
        calls = [call for slot in self.slots for call in slot.sent.values()]
        for slot in self.slots:
            slot.sent.clear()
        self._sent = 0
        return calls

    # what slots tell

    def opened(self, slot: PlannedSlot, worker: str, now: float) -> None:
        """It is ours, and ready."""
        slot.worker = worker
        slot.state = READY
        slot.progress_at = slot.idle_at = now

    def finished(self, slot: PlannedSlot, wire_id: int, took: float, now: float) -> PoolCall | None:
        """A call has its outcome; returns it, or None if nobody wants it."""
        call = self._leave(slot, wire_id, now)
        if call is None:
            return None
        self._took = took if self._took is None else self._took + LEARNING * (took - self._took)
        return None if call.dropped else call

    def ended(self, slot: PlannedSlot, wire_id: int, now: float) -> None:
        """A call was ended because we wanted that."""
        self._leave(slot, wire_id, now)

    def returned(self, slot: PlannedSlot, wire_id: int, now: float) -> None:
        """A call has not begun, and does not any more."""
        call = self._leave(slot, wire_id, now)
        if call is not None:
            self._again(call)

    def died(self, slot: PlannedSlot, wire_id: int, reason: str, now: float) -> None:
        """A process of the slot has ended during this call; the slot goes on."""
        call = self._leave(slot, wire_id, now)
        if call is not None:
            self._charge(call, slot.worker, reason)

    def lost(self, slot: PlannedSlot, reason: str, now: float) -> None:
        """The slot is gone, with whatever it had."""
        calls = list(slot.sent)
        slot.state = GONE
        self._forget(slot)
        for wire_id in reversed(calls):
            call = self._leave(slot, wire_id, now)
            if call is None:
                continue
            if wire_id == calls[0]:
                self._charge(call, slot.worker, reason)
            else:
                self._again(call)

    def wanted(self, slot: PlannedSlot, now: float) -> None:
        """Another client waits for the slot."""
        self._contended_until = now + CONTENDED_FOR
        if slot.state in (OPENING, READY) and slot.leave_at == inf:
            half_a_call = (self._took or 0.0) / 2  # the call in hand ends as often before this moment as behind it
            slot.leave_at = now + min(LONGEST_TURN, max(0.0, self._balance - half_a_call))
            slot.wanted_at = now

    def holds(self, slot: PlannedSlot, now: float) -> None:
        """The slot is ours from now on; it is not ready yet."""
        slot.held_at = now
        waited = now - max(slot.searched_at, self._given_back_at)
        self._balance = min(self._balance + waited * self._weight, LONGEST_TURN * self._weight**2)

    # time

    def next_timeout(self) -> float:
        """When to call `follow` although nothing has happened; infinity for never."""
        due = inf
        idle = any(slot.state == READY and not slot.sent for slot in self.slots)
        for slot in self.slots:
            if slot.state == READY:
                if slot.used:
                    due = min(due, slot.leave_at)
                if not slot.sent:
                    due = min(due, self._idle_until(slot))
                elif idle and len(slot.sent) > 1 and not slot.asked:
                    due = min(due, slot.progress_at + STUCK)
            elif slot.state == OPENING and not self.unfinished:
                due = min(due, self._worked_at + UNWANTED)
        return due

    def follow(self, now: float) -> None:
        """Makes decisions; to be called after all that is told at one time."""
        if self.unfinished:
            self._worked_at = now
        self._leave_slots(now)
        self._send_suspects(now)
        self._send_ahead(now)
        self._take_back(now)
        self._open(now)

    # decisions

    def _leave_slots(self, now: float) -> None:
        for slot in list(self.slots):
            if slot.state == READY and now >= slot.leave_at and (slot.used or not self.unfinished):
                slot.state = LEAVING
                self._ask_for_waiting(slot)
            if not slot.sent and self._is_useless(slot, now):
                self._close(slot, now)

    def _is_useless(self, slot: PlannedSlot, now: float) -> bool:
        if slot.state == READY:
            return now >= self._idle_until(slot)
        return slot.state == LEAVING or (not self.unfinished and now >= self._worked_at + UNWANTED)

    def _idle_until(self, slot: PlannedSlot) -> float:
        """Returns when a slot that has no call is given back."""
        until = slot.idle_at + self._idle_timeout
        soon = slot.idle_at + IDLE_WHILE_CONTENDED
        return min(until, soon) if soon < self._contended_until else until

    def _send_suspects(self, now: float) -> None:
        """Each suspect gets a slot to itself, of a worker under which it was not lost, if there is another one."""
        if not self._suspects:
            return
        free = [slot for slot in self.slots if slot.state == READY and not slot.sent]
        for _ in range(len(self._suspects)):
            if not free:
                break
            call = self._suspects.popleft()
            lost_at = {worker for worker, _ in call.crashes}
            strangers = [slot for slot in free if slot.worker not in lost_at]
            if not strangers and any(slot.worker not in lost_at for slot in self.held):
                self._suspects.append(call)  # a slot elsewhere is busy now: that is waited for
                continue
            slot = (strangers or free)[0]
            free.remove(slot)
            self._send(slot, call, now)

    def _send_ahead(self, now: float) -> None:
        if not self._waiting:
            return
        ready = [slot for slot in self.slots if slot.state == READY and not slot.alone and not slot.is_stuck(now)]
        if not ready:
            return
        depth = self._depth(len(ready))
        ready.sort(key=lambda slot: len(slot.sent))
        for level in range(depth):
            for slot in ready:
                if len(slot.sent) > level or not self._waiting:
                    continue
                if self._waiting.first.size > SMALL and slot.sent:
                    return  # it waits for a slot that has nothing else
                if not slot.alone:
                    self._send(slot, self._waiting.popleft(), now)

    def _depth(self, ready: int) -> int:
        if not self._retries or self._took is None:
            return 1
        ahead = 1 + min(MOST_AHEAD, int(AHEAD / max(self._took, 1e-6)))
        share = -(-(len(self._waiting) + self._sent) // ready)
        return min(ahead, share)

    def _take_back(self, now: float) -> None:
        """Lets calls that are stuck behind a long one run elsewhere."""
        if self._waiting or not any(slot.state == READY and not slot.sent for slot in self.slots):
            return
        for slot in self.slots:
            if slot.state == READY and len(slot.sent) > 1 and not slot.asked and slot.is_stuck(now):
                self._ask_for_waiting(slot)

    def _ask_for_waiting(self, slot: PlannedSlot) -> None:
        slot.asked = True
        self._events += [TakeBack(slot, wire_id) for wire_id in list(slot.sent)[1:]]

    def _open(self, now: float) -> None:
        held = len(self.held)
        opening = len(self.slots) - held
        wanted = min(self._most_slots, self.unfinished) - held - opening
        while wanted > 0 and opening < MOST_OPENING:
            slot = PlannedSlot(now)
            self.slots.append(slot)
            self._events.append(Open(slot))
            wanted -= 1
            opening += 1

    # changes

    def _send(self, slot: PlannedSlot, call: PoolCall, now: float) -> None:
        self._numbers += 1
        call.wire_id = self._numbers
        call.slot = slot
        if not slot.sent:
            slot.progress_at = now
        slot.sent[call.wire_id] = call
        slot.used = True
        slot.alone = bool(call.crashes) or call.size > SMALL
        self._sent += 1
        self._events.append(Send(slot, call))

    def _leave(self, slot: PlannedSlot, wire_id: int, now: float) -> PoolCall | None:
        """The slot does not have this call any more."""
        oldest = next(iter(slot.sent), None) == wire_id
        call = slot.sent.pop(wire_id, None)
        if call is None:
            return None
        call.slot = None
        self._sent -= 1
        if oldest:
            slot.progress_at = now
        if not slot.sent:
            slot.idle_at = now
            slot.asked = slot.alone = False
        return call

    def _again(self, call: PoolCall) -> None:
        """The call waits again, before those that came later."""
        if not call.dropped:
            (self._suspects if call.crashes else self._waiting).appendleft(call)

    def _charge(self, call: PoolCall, worker: str, reason: str) -> None:
        call.crashes.append((worker, reason))
        if call.dropped:
            return
        if len(call.crashes) > self._retries:
            self._events.append(Doomed(call))
        else:
            self._again(call)

    def _close(self, slot: PlannedSlot, now: float) -> None:
        if slot.state != OPENING:
            self._given_back_at = now
            self._balance = max(self._balance - max(0.0, now - slot.wanted_at), -LONGEST_TURN)
        slot.state = GONE
        self._forget(slot)
        self._events.append(Close(slot))

    def _forget(self, slot: PlannedSlot) -> None:
        if slot in self.slots:
            self.slots.remove(slot)
