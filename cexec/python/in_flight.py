"""The jobs of one `map` that are on their way: as many as workers can use, and no more.

Contract: `submit` takes plans, or the error that an input has caused; `ready` gets the errands that can be handed out,
in the order of `submit` or as they end.  `room` says how many more may be submitted, with regard to those that wait to
be handed out, so that memory does not depend on the number of inputs.  `changed` is called when there are ready ones.
A timeout counts from the begin of the program.  All methods belong to one event loop; `ready` may be emptied by another
thread.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any

from cexec.errors import JobCancelledError
from cexec.python.whole_errand import WholeErrand

if TYPE_CHECKING:
    from collections.abc import Callable

    from cexec.python.completed import Completed
    from cexec.python.dispatcher import Dispatcher
    from cexec.python.errand import Errand
    from cexec.python.job_plan import JobPlan

LEAST_WINDOW = 64  # jobs (ours) of one map that are in hand at least
FOR_EACH_LEASE = 4  # (ours) one runs, one waits there, and two are left for whoever is free first


class Mistake:
    """Stands in the place of a job whose input is wrong."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def outcome(self) -> Completed[Any]:
        """Raises the error."""
        raise self._error


class InFlight:
    """The jobs of one map.  `leases` returns how many workers are held now."""

    def __init__(
        self,
        dispatcher: Callable[[JobPlan], Dispatcher],
        leases: Callable[[], int],
        changed: Callable[[], None],
        *,
        ordered: bool,
    ) -> None:
        self.ready: deque[WholeErrand | Mistake] = deque()
        self._dispatcher = dispatcher
        self._leases = leases
        self._changed = changed
        self._ordered = ordered
        self._loop = asyncio.get_running_loop()
        self._running: dict[Errand | Mistake, Dispatcher | None] = {}  # in the order of `submit`
        self._over: set[Errand | Mistake] = set()  # that wait for those before them
        self._timers: dict[Errand, asyncio.TimerHandle] = {}

    @property
    def window(self) -> int:
        """How many jobs may be in hand."""
        return max(LEAST_WINDOW, FOR_EACH_LEASE * self._leases())

    @property
    def held(self) -> int:
        """How many jobs are in hand."""
        return len(self._running) + len(self.ready)

    def submit(self, plan: JobPlan | BaseException) -> None:
        """Takes a job, or the error that stands in its place."""
        if isinstance(plan, BaseException):
            mistake = Mistake(plan)
            self._running[mistake] = None
            self._settle(mistake)
            return
        errand = WholeErrand(plan, self._ended, self._begins if plan.timeout is not None else None)
        found = self._running[errand] = self._dispatcher(plan)
        found.submit(errand)

    def cancel(self) -> None:
        """Ends all that is left."""
        for errand, dispatcher in list(self._running.items()):
            if dispatcher is not None and isinstance(errand, WholeErrand):
                dispatcher.cancel(errand, JobCancelledError("the map has been ended"))
        self._running.clear()
        self._over.clear()
        self.ready.clear()

    def _begins(self, errand: WholeErrand) -> None:
        self._drop_timer(errand)  # of a lost attempt
        if errand.plan.timeout is not None:
            self._timers[errand] = self._loop.call_later(errand.plan.timeout, self._expire, errand)

    def _expire(self, errand: WholeErrand) -> None:
        dispatcher = self._running.get(errand)
        if dispatcher is not None:
            dispatcher.cancel(errand, errand.expire())

    def _drop_timer(self, errand: Errand) -> None:
        timer = self._timers.pop(errand, None)
        if timer is not None:
            timer.cancel()

    def _ended(self, errand: Errand) -> None:
        self._drop_timer(errand)
        if errand not in self._running:
            return  # the map has been ended
        self._settle(errand)

    def _settle(self, one: Errand | Mistake) -> None:
        self._over.add(one)
        if not self._ordered:
            self._hand_out(one)
            return
        while self._running and (first := next(iter(self._running))) in self._over:
            self._hand_out(first)

    def _hand_out(self, one: Errand | Mistake) -> None:
        assert isinstance(one, WholeErrand | Mistake)
        del self._running[one]
        self._over.remove(one)
        self.ready.append(one)
        self._changed()
