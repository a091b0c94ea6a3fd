"""A run: all hosts at once, each until it is as asked, has failed for good, or patience is over.

Contract: `Run.go()` returns when that is so for every host; the results are in `journeys`.  A run that is ephemeral
ends in two steps: `settled()` returns when every host serves or was given up for now, and `go` ends only when `release`
was called: then the workers that this run has started are removed.  `watch` is called with each journey that changed.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Any, Self

from cexec.boot import states
from cexec.boot.boot_settings import Action, BootSettings
from cexec.boot.failures import CONNECTION, INTERRUPTED, HostError, HostFailure
from cexec.boot.holding import LOST, Holding
from cexec.boot.hosts import Host
from cexec.boot.serve import Application, Service
from cexec.boot.serving_census import ServingCensus
from cexec.boot.ssh import Connection
from cexec.boot.states import HostState, Journey
from cexec.boot.visit import Tools, Visit, answered
from cexec.boot.wheels import Wheels
from cexec.errors import CexecError

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 10.0  # seconds (ours) before a host is tried again, doubled each time
STATUS_PATIENCE = 3.0  # seconds (ours) for a census, which takes one if somebody does not answer


class Run:
    """An asynchronous context manager: Answers and connections end with it."""

    def __init__(
        self,
        hosts: Sequence[Host],
        settings: BootSettings,
        application: Application | None,
        wheels: Wheels | None,
        answers: ServingCensus | None,
        scratch: Path,
        sockets: str,
        watch: Callable[[Journey], None],
    ) -> None:
        """`scratch`: a directory that is removed afterwards; `sockets`: one for the sockets of ssh's masters."""
        self.journeys = [Journey(host) for host in hosts]
        self._settings = settings
        self._answers = answers
        self._sockets = sockets
        self._watch = watch
        self._slots = asyncio.Semaphore(settings.jobs)
        self._settled = {journey.host.name: asyncio.Event() for journey in self.journeys}
        self._released = asyncio.Event()
        service = None
        if application is not None and settings.action in (Action.SERVE, Action.PLAN):
            service = Service(
                application,
                settings.options,
                settings.program,
                settings.days,
                settings.grace,
                settings.ephemeral,
                settings.packages,
            )
        self._tools = Tools(
            hosts,
            application,
            service,
            wheels,
            scratch,
            run_id=secrets.token_hex(8),
            gathering=asyncio.Lock(),
            detached=settings.detached,
            upgrade=settings.upgrade,
            keep_programs=settings.keep_programs,
            grace=settings.grace,
        )

    async def __aenter__(self) -> Self:
        if self._answers is not None:
            await self._answers.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._answers is not None:
            await self._answers.__aexit__(kind, error, trace)

    async def go(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for journey in self.journeys:
                    group.create_task(self._travel(journey))
        except BaseExceptionGroup as errors:
            ours, _ = errors.split(CexecError)  # for example: the record of keys cannot be written
            while ours is not None:
                error = ours.exceptions[0]
                if not isinstance(error, BaseExceptionGroup):
                    raise error from None
                ours = error
            raise

    async def settled(self) -> None:
        """Returns when every host serves, or was given up for now."""
        for event in self._settled.values():
            await event.wait()

    def release(self) -> None:
        """Lets an ephemeral run end: nothing is tried again, and what it has started is removed."""
        self._released.set()

    async def _travel(self, journey: Journey) -> None:
        """Tries again as long as that may help."""
        pause, deadline = FIRST_PAUSE, monotonic() + self._settings.patience
        while not self._released.is_set():
            try:
                await self._attempt(journey, deadline)
                if journey.state is not HostState.FAILED:
                    break
            except HostError as error:
                self._tell(journey, states.StepFailed(error.failure))
                late = monotonic() + pause > deadline
                if late or not error.failure.temporary:
                    self._settled[journey.host.name].set()
                if not error.failure.temporary or (late and not self._settings.keep_trying):
                    break
            else:
                pause, deadline = FIRST_PAUSE, monotonic() + self._settings.patience  # a connection that was good
            if not await self._released_within(pause):
                pause = min(2 * pause, LONGEST_PAUSE)
                self._tell(journey, states.Again())
        self._settled[journey.host.name].set()

    async def _attempt(self, journey: Journey, deadline: float) -> None:
        """Visits the host once; an ephemeral worker is held until the run is released or the connection is lost."""
        connection = Connection(journey.host, self._settings.ssh, self._sockets)
        visit = Visit(journey.host, connection, self._tools, lambda event: self._tell(journey, event))
        holdings: list[Holding] = []
        try:
            if not await self._unless_released(self._bring_up(journey, visit, holdings, deadline)):
                if not holdings:
                    self._tell(journey, states.StepFailed(HostFailure(INTERRUPTED, "interrupted")))
                return
            self._settled[journey.host.name].set()
            if holdings and await holdings[0].until(self._released):
                self._tell(journey, states.StepFailed(HostFailure(CONNECTION, LOST, temporary=True)))
        finally:
            for holding in holdings:
                await holding.end(lambda event: self._tell(journey, event), remove=self._released.is_set())
            await connection.close()

    async def _bring_up(self, journey: Journey, visit: Visit, holdings: list[Holding], deadline: float) -> None:
        """Does what the run is for; `holdings` gets what is to be held."""
        async with self._slots:
            await visit.look()
            if self._settings.ephemeral:
                holdings.append(await Holding.begin(visit))
            record = await self._act(visit)
            if not holdings:
                await visit.connection.close()
        if record is not None and self._answers is not None:
            status = self._settings.action is Action.STATUS
            until = monotonic() + STATUS_PATIENCE if status else max(deadline, monotonic() + STATUS_PATIENCE)
            self._tell(journey, await answered(self._answers, record, until))

    async def _unless_released(self, work: Coroutine[Any, Any, None]) -> bool:
        """Returns False if the run was released before the work was done, which is cancelled then."""
        task = asyncio.create_task(work)
        end = asyncio.create_task(self._released.wait())
        try:
            await asyncio.wait({task, end}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                await task
                return True
            return False
        finally:
            end.cancel()
            task.cancel()
            await asyncio.wait([task])

    async def _act(self, visit: Visit) -> dict[str, Any] | None:
        """Returns the record of a worker that has to answer."""
        match self._settings.action:
            case Action.SERVE:
                return await visit.serve()
            case Action.STATUS:
                return await visit.show()
            case Action.STOP:
                await visit.stop()
            case Action.REMOVE:
                await visit.remove()
            case Action.PLAN:
                await visit.plan()
        return None

    async def _released_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._released.wait()
        except TimeoutError:
            return False
        return True

    def _tell(self, journey: Journey, event: states.Event) -> None:
        journey.apply(event)
        self._watch(journey)
