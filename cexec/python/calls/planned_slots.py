"""A slot as `CallPlan` sees it, with its states, and the events by which the plan says what is to be done.

Contract: only the plan changes a `PlannedSlot`.  The table of states is in `call_plan`.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from cexec.python.calls.call import PoolCall

STUCK = 0.05  # seconds (ours) after which a call takes long
OPENING, READY, LEAVING, GONE = "opening", "ready", "leaving", "gone"


class PlannedSlot:
    """A slot as the plan sees it; `worker` is known once it is ready."""

    def __init__(self, now: float) -> None:
        self.state = OPENING
        self.worker = ""
        self.sent: dict[int, PoolCall] = {}  # by number, oldest first
        self.searched_at = self.held_at = now  # when it was looked for, and since when it is ours
        self.wanted_at = inf  # since when others want it
        self.progress_at = now  # when the oldest call was sent or became the oldest
        self.idle_at = now  # when the last call had ended
        self.leave_at = inf  # when it is given back, because others want it
        self.asked = False  # True while calls are being taken back
        self.alone = False  # True while it has a call beside which there must be no other
        self.used = False  # True once it has got a call

    def is_stuck(self, now: float) -> bool:
        """Returns True if the oldest call takes long."""
        return bool(self.sent) and now >= self.progress_at + STUCK


class Open(NamedTuple):
    """Another slot is wanted."""

    slot: PlannedSlot


class Send(NamedTuple):
    """The slot gets this call, under its `wire_id`."""

    slot: PlannedSlot
    call: PoolCall


class End(NamedTuple):
    """The call is to end, whatever it does."""

    slot: PlannedSlot
    wire_id: int


class TakeBack(NamedTuple):
    """The call is to be returned if it has not begun."""

    slot: PlannedSlot
    wire_id: int


class Close(NamedTuple):
    """The slot is not needed any more, or its search is not."""

    slot: PlannedSlot


class Doomed(NamedTuple):
    """The call fails: processes have ended under it, as its `crashes` tell."""

    call: PoolCall


if TYPE_CHECKING:
    PlanEvent = Open | Send | End | TakeBack | Close | Doomed
