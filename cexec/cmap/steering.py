"""Follows what is asked of a run through the socket beside its journal: how it stands, pause, go on, another weight.

Contract: `steered(journal, coordinator, tell)` is a context in which the run can be asked; where it is not possible to
listen, `tell` gets the reason and the run goes on without.  `Steering.answer` follows one request and says how the run
stands then.  `tell` gets a line for the person at cmap's terminal about each change.  Nothing of this is kept: a run
that goes on with `--resume` is not paused and has the weight of its command line.
"""

from __future__ import annotations

import os
import shlex
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from cexec.cmap.control.answering import listening
from cexec.cmap.control.control_messages import MOST_TASKS, ControlAction, ControlRefusal, ControlStatus
from cexec.cmap.control.control_place import AVAILABLE
from cexec.errors import LocalError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from cexec.cmap.control.control_messages import ControlRequest
    from cexec.cmap.run.coordinator import Coordinator


@asynccontextmanager
async def steered(journal: str, coordinator: Coordinator, tell: Callable[[str], None]) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        if AVAILABLE:
            try:
                await stack.enter_async_context(listening(journal, Steering(journal, coordinator, tell).answer))
            except LocalError as error:
                tell(f"{error}; cmap pause, continue and weight cannot be used with this run")
        yield


class Steering:
    """One run's."""

    def __init__(self, journal: str, coordinator: Coordinator, tell: Callable[[str], None]) -> None:
        self._journal = journal
        self._coordinator = coordinator
        self._tell = tell

    def answer(self, request: ControlRequest) -> ControlStatus | ControlRefusal:
        if request.action is not ControlAction.STATUS and self._coordinator.progress.halted:
            return ControlRefusal("the run is about to end, so no further task begins anyway")
        if request.action is ControlAction.PAUSE:
            self._pause()
        elif request.action is ControlAction.CONTINUE:
            self._go_on()
        elif request.weight is not None:
            self._set_weight(request.weight)
        return self._status()

    def _pause(self) -> None:
        if not self._coordinator.progress.paused:
            self._coordinator.pause()
            self._tell(f"paused; cmap continue {shlex.quote(self._journal)} lets it go on")

    def _go_on(self) -> None:
        if self._coordinator.progress.paused:
            self._coordinator.go_on()
            self._tell("goes on")

    def _set_weight(self, weight: int) -> None:
        if weight != self._coordinator.weight:
            self._coordinator.set_weight(weight)
            self._tell(f"has the weight {weight} now")

    def _status(self) -> ControlStatus:
        coordinator = self._coordinator
        attempts, progress, leases = coordinator.attempts, coordinator.progress, coordinator.leases
        running = attempts.begun_tasks
        return ControlStatus(
            pid=os.getpid(),
            paused=progress.paused,
            paused_seconds=round(coordinator.paused_for, 3),
            ending=progress.halted,
            weight=coordinator.weight,
            running=len(running),
            given=len(attempts.running) - len(running),
            waiting=attempts.waiting,
            leases=sum(leases.values()),
            workers=sum(count > 0 for count in leases.values()),
            tasks=tuple(running[:MOST_TASKS]),
        )
