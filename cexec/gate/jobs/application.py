"""One application of a `cgate`: its client, and its workers as they are known now.

Contract: `workers` asks the first time, which takes about a second, and then knows them as long as somebody asks at
least every LINGER seconds; otherwise nothing is sent.  `changed` rings when one of them comes, goes or is busier.
`resolve` finds workers by name, name@address, address or UUID, and raises `Problem` 404 for one that is not there.
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import TYPE_CHECKING

from cexec.gate.problem import Problem
from cexec.gate.store.bell import Bell
from cexec.gate.store.job_records import show_time
from cexec.protocol.datagrams.requirements import instance_text
from cexec.python.async_client import AsyncClient

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cexec.python.membership import ClusterWorker, LiveWorkers

LINGER = 60.0  # seconds (ours)
PATIENCE = 10.0  # seconds (ours) for the first answers


class GateApplication:
    """`name`: that of the key without .pub, by which clients call it."""

    def __init__(self, key: str) -> None:
        self.client = AsyncClient(key)
        self.path = self.client.path
        self.name = os.path.basename(self.path).removesuffix(".pub")
        self.live: LiveWorkers | None = None
        self.changed = Bell()
        self._following: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def close(self) -> None:
        """Ends all that goes on."""
        self._forget()
        await self.client.close()

    async def workers(self) -> dict[bytes, ClusterWorker]:
        """Returns the workers that are there, by instance."""
        return (await self._known()).workers

    async def documents(self) -> list[dict[str, object]]:
        """Returns the workers as clients are told them, by name."""
        live = await self._known()
        names = live.names()
        found = [self._document(one, names[instance]) for instance, one in live.workers.items()]
        return sorted(found, key=lambda one: (str(one["name"]), str(one["uuid"])))

    async def resolve(self, wanted: Iterable[str]) -> dict[bytes, str]:
        """Returns instance and name of each worker that is called so; `Problem` 404 names those that are not there."""
        live = await self._known()
        workers, names = live.workers, live.names()
        found: dict[bytes, str] = {}
        absent = []
        for text in dict.fromkeys(wanted):
            fits = [instance for instance, one in workers.items() if _is_called(one, names[instance], text)]
            if len(fits) > 1:
                called = ", ".join(sorted(names[instance] for instance in fits))
                raise Problem(409, f"{len(fits)} workers are called {text}: {called}; give the UUID of one")
            if fits:
                found[fits[0]] = names[fits[0]]
            else:
                absent.append(text)
        if absent:
            raise Problem(
                404, f"no worker of {self.name} is called {', '.join(absent)}; nothing was started", absent=absent
            )
        return found

    async def _known(self) -> LiveWorkers:
        """Returns the workers as they are known, after a first census."""
        loop = asyncio.get_running_loop()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.live is None or self._following is None or self._following.done():
            self.live = self.client.live_workers(self.changed.ring)
            self._following = loop.create_task(self.live.run())
        live, following = self.live, self._following
        settled = loop.create_task(live.settled.wait())
        try:
            await asyncio.wait((settled, following), timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED)
        finally:
            settled.cancel()
            if self._timer is None and self.live is live:
                self._timer = loop.call_later(LINGER, self._forget)
        if following.done() and not following.cancelled() and (error := following.exception()) is not None:
            raise error
        return live

    def names(self) -> dict[bytes, str]:
        """Returns the name by which each known worker is told."""
        return {} if self.live is None else self.live.names()

    def label(self, instance: bytes) -> str | None:
        """Returns name@address of a worker that is there; None for any."""
        worker = None if self.live is None else self.live.workers.get(instance)
        return None if worker is None else f"{worker.name}@{worker.address}"

    def harmless(self, text: str) -> str:
        """Returns the text without the path of the key."""
        return text.replace(self.path, os.path.basename(self.path))

    def _document(self, worker: ClusterWorker, name: str) -> dict[str, object]:
        return {
            "app": self.name,
            "name": name,
            "uuid": instance_text(worker.instance),
            "address": worker.address,
            "host": worker.host,
            "slots": worker.slots,
            "running": worker.running,
            "waiting": worker.waiting,
            "load": round(worker.load, 3),
            "speed": round(worker.speed, 3),
            "labels": worker.labels,
            "version": worker.version,
            "health": worker.health,
            "since": show_time(round(time.time() - worker.uptime)),
        }

    def _forget(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._following is not None:
            self._following.cancel()
        self.live = self._following = None


def _is_called(worker: ClusterWorker, name: str, text: str) -> bool:
    return text in (
        name,
        worker.name,
        f"{worker.name}@{worker.address}",
        worker.address,
        instance_text(worker.instance),
    )
