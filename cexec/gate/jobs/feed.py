"""The changes of jobs' states, as they are committed.

Contract: `after(last)` returns the events behind one, from memory or from the state file; `wait` returns when there is
a newer one, or the feed has been closed.  A reader that is slow is given what it has missed later, so it costs no
memory here.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import TYPE_CHECKING

from cexec.gate.store.bell import Bell
from cexec.gate.store.job_rows import events_after, last_event

if TYPE_CHECKING:
    from cexec.gate.store.database import Database
    from cexec.gate.store.job_records import EventRecord

RECENT = 2000  # events (ours) in memory
AT_ONCE = 200  # events (ours) that a reader is given together


class Feed:
    """The events of one state file."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._recent: deque[EventRecord] = deque(maxlen=RECENT)
        self._bell = Bell()
        self.last = database.read_now(last_event)
        self.closed = False  # no event follows

    def publish(self, event: EventRecord) -> None:
        """Tells an event that is on the disk."""
        self._recent.append(event)
        self.last = max(self.last, event.id)
        self._bell.ring()

    def close(self) -> None:
        """Lets the readers end when they have been told all events."""
        self.closed = True
        self._bell.ring()

    async def after(self, last: int) -> list[EventRecord]:
        """Returns events behind this one, the oldest first; an empty list if there is none yet."""
        if last >= self.last:
            return []
        if self._recent and self._recent[0].id <= last + 1:
            return [one for one in self._recent if one.id > last][:AT_ONCE]
        return await self._database.read(partial(events_after, last=last, limit=AT_ONCE))

    async def wait(self, seconds: float) -> bool:
        """Returns True as soon as there is a new event, False after `seconds`."""
        return await self._bell.wait(seconds)
