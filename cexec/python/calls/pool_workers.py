"""The workers of a pool, as its slots need them: a job on one of them, and who is there.

Contract: `start` begins a search that passes over workers of some names, and those that the user excludes.  `who` asks
for the instances that are there.  Both raise what the client raises.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cexec.python.async_client import AsyncClient
    from cexec.python.keywords import Names
    from cexec.python.started_job import Job


class PoolWorkers:
    """The workers that one executor may use."""

    def __init__(self, client: AsyncClient, exclude: Names | None) -> None:
        self._client = client
        self._excluded = [exclude] if isinstance(exclude, str) else list(exclude or ())

    async def start(self, passed_over: tuple[str, ...]) -> Job:
        """Returns a job of the pool's service, for which a worker is searched."""
        if not passed_over:
            return await self._client.start()
        return await self._client.start(exclude=[*self._excluded, *passed_over])

    async def who(self) -> set[bytes]:
        """Returns the instances of the workers that answer now."""
        return {worker.instance for worker in await self._client.workers()}
