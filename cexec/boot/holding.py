"""Holds an ephemeral worker: heartbeats over the connection, without which its watchdog removes it.

Contract: `Holding.begin` starts the watchdog on the host and the heartbeats; they go on until `end`.  `until(released)`
returns True if the connection was lost before, and False when the run lets the worker go.  `end` removes the worker;
if that fails, or the connection was lost, the watchdog does it (`remote/watchdog.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from cexec.boot import states
from cexec.boot.failures import HostError, HostFailure
from cexec.boot.ssh import SshSession
from cexec.boot.visit import Visit

INTERVAL = 5.0  # seconds (ours) between two heartbeats, a sixth of the watchdog's patience
LOST = "the connection was lost; its watchdog removes the worker unless the host is reached again within 30 s"


class Holding:
    """One host of an ephemeral run.  Without a session nothing is held: a worker that stays does the work."""

    def __init__(self, visit: Visit, session: SshSession | None) -> None:
        self._visit = visit
        self._session = session
        self._heart = None if session is None else asyncio.create_task(_beat(session))

    @classmethod
    async def begin(cls, visit: Visit) -> Holding:
        return cls(visit, await visit.hold())

    async def until(self, released: asyncio.Event) -> bool:
        end = asyncio.create_task(released.wait())
        waited = {end, *([] if self._heart is None else [self._heart])}
        try:
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        finally:
            end.cancel()
        return not released.is_set()

    async def end(self, tell: Callable[[states.Event], None], *, remove: bool) -> None:
        if self._heart is None or self._session is None:
            return
        try:
            if remove:
                await self._visit.remove([self._visit.ephemeral_name])
        except HostError as error:
            text = f"not removed, {error.failure.text}; its watchdog removes it within 30 s"
            tell(states.StepFailed(HostFailure(error.failure.kind, text)))
        finally:
            self._heart.cancel()
            await asyncio.wait([self._heart])
            await self._session.close()


async def _beat(session: SshSession) -> None:
    """Returns when the session has ended: the connection is lost."""
    while True:
        await session.send(b".")
        try:
            if await session.answer(INTERVAL) is None:
                return
        except TimeoutError:
            pass  # nothing is expected; the next heartbeat is due
