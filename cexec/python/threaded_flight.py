"""The jobs of one map of a blocking client, between its thread and the loop.

Contract: all methods belong to the thread of the caller.  Jobs go to the loop and results come back in batches, since
each change of threads costs as much time as a short job.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from typing import TYPE_CHECKING

from cexec.errors import UsageError
from cexec.python.in_flight import LEAST_WINDOW

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cexec.python.async_client import AsyncClient
    from cexec.python.in_flight import InFlight, Mistake
    from cexec.python.job_plan import JobPlan
    from cexec.python.loop_thread import LoopThread
    from cexec.python.whole_errand import WholeErrand

BATCH = 16  # results (ours) for which the thread is woken at once
GATHER = 0.002  # seconds (ours) after which it is woken for fewer


class ThreadedFlight:
    """An `InFlight` of the loop, as another thread uses it: in batches, since each change of threads costs time."""

    def __init__(self, client: AsyncClient, thread: LoopThread, *, ordered: bool) -> None:
        self.held = 0
        self._window = LEAST_WINDOW  # the flight's, as the loop has read it last: what it counts changes there
        self._thread = thread
        self._woken = threading.Event()
        self._waking = False
        self._filling = True
        self._plans: deque[JobPlan | Exception] = deque()
        self._submitting = False

        async def begin() -> InFlight:
            return client.in_flight(self._changed, ordered=ordered)

        self._flight = thread.call(begin)

    @property
    def has_room(self) -> bool:
        """True if another job may be submitted; once there is no room, as soon as there is room for a batch."""
        room = 2 * self._window - self.held
        self._filling = room >= (1 if self._filling else BATCH)
        return self._filling

    @property
    def has_results(self) -> bool:
        """True if a result can be had at once."""
        return bool(self._flight.ready)

    def submit(self, plan: JobPlan | Exception) -> None:
        """Gives a job to the loop, which takes all that have come when it has its turn."""
        self.held += 1
        self._plans.append(plan)
        if not self._submitting:
            self._submitting = True
            self._thread.call_soon(self._submit)

    def results(self) -> Iterator[WholeErrand | Mistake]:
        """Waits for results, and yields those that are there."""
        while not self._flight.ready:
            self._woken.wait()
            self._woken.clear()
        while self._flight.ready:
            self.held -= 1
            yield self._flight.ready.popleft()

    def close(self) -> None:
        """Ends all that is left."""
        try:
            self._thread.call_soon(self._cancel)
        except UsageError:
            pass  # the client has been closed, and all its jobs with it

    # in the loop

    def _submit(self) -> None:
        self._submitting = False
        while self._plans:
            self._flight.submit(self._plans.popleft())
        self._window = self._flight.window

    def _cancel(self) -> None:
        while self._plans:
            plan = self._plans.popleft()
            if not isinstance(plan, Exception):
                plan.close()
        self._flight.cancel()

    def _changed(self) -> None:
        ready = len(self._flight.ready)
        self._window = self._flight.window
        if ready >= BATCH or ready == self._flight.held:
            self._woken.set()
        elif not self._waking:
            self._waking = True
            asyncio.get_running_loop().call_later(GATHER, self._wake)

    def _wake(self) -> None:
        self._waking = False
        self._woken.set()
