"""The last day of the cluster, for the page's plots and its list of workers that have gone.

Contract: `History` takes a sample of every application each COARSE seconds and keeps it in the state file.  While
somebody looks, it takes one each FINE seconds, too, which it keeps in memory for FINE_SPAN seconds.  `samples` returns
those of a span of time, `workers` the workers that are there and those that were seen in the last day.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any

from cexec.errors import CexecError
from cexec.gate.problem import Problem
from cexec.gate.store import page_rows
from cexec.gate.store.records import State, show_time

if TYPE_CHECKING:
    from cexec.gate.access.identity import Identity
    from cexec.gate.jobs.application import Application
    from cexec.gate.jobs.engine import Engine
    from cexec.gate.store.records import EventRecord

COARSE, FINE = 60.0, 5.0  # seconds (ours)
FINE_SPAN = 900.0  # seconds (ours)
LOOKED = 60.0  # seconds (ours) for which one look counts
NAMES = ("slots", "busy", "queued", "jobs", "succeeded", "other")  # that add up over applications; `load` is a mean


class History:
    """The history of one `cgate`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._fine: deque[tuple[float, dict[str, dict[str, float]]]] = deque(maxlen=int(FINE_SPAN / FINE))
        self._looked = 0.0
        self._noted = 0.0  # when a coarse sample was taken
        self._task: asyncio.Task[None] | None = None
        self._event = engine.feed.last
        self._ended: dict[str, list[tuple[float, bool]]] = {name: [] for name in engine.applications}

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def samples(self, identity: Identity, span: float) -> list[dict[str, float]]:
        """Returns the samples of the last `span` seconds, of all applications that the token may see together."""
        self._looked = time.monotonic()
        since = time.time() - span
        if span <= FINE_SPAN:
            found = [(at, apps) for at, apps in self._fine if at >= since]
        else:
            together: dict[float, dict[str, dict[str, float]]] = {}
            for at, app, content in await self._engine.database.read(partial(page_rows.samples_since, since=since)):
                together.setdefault(at, {})[app] = content
            found = sorted(together.items())
        return [_sum(at, {app: one for app, one in apps.items() if identity.may_see(app)}) for at, apps in found]

    async def workers(self, identity: Identity) -> list[dict[str, Any]]:
        """Returns the workers as /v1/workers does, with `gone` and, of those that have gone, `last_seen`."""
        self._looked = time.monotonic()
        applications = [one for one in self._engine.applications.values() if identity.may_see(one.name)]
        there = [document for one in applications for document in await one.documents()]
        names = {one["uuid"] for one in there}
        since = time.time() - page_rows.KEPT
        seen = await self._engine.database.read(partial(page_rows.workers_since, since=since))
        gone = [
            {**one, "gone": True, "last_seen": show_time(at)}
            for at, one in seen
            if one["uuid"] not in names and identity.may_see(one["app"])
        ]
        return [{**one, "gone": False, "last_seen": None} for one in there] + gone

    async def _run(self) -> None:
        while True:
            if time.monotonic() - self._looked < LOOKED or time.time() - self._noted >= COARSE:
                with contextlib.suppress(CexecError, Problem):  # the network or the disk is away for a moment
                    await self._sample()
            await asyncio.sleep(FINE)

    async def _sample(self) -> None:
        await self._count_ends()
        now = time.time()
        apps, workers = {}, []
        for one in self._engine.applications.values():
            documents = await one.documents()
            workers += documents
            apps[one.name] = self._measure(one, documents, now)
        self._fine.append((now, apps))
        if now - self._noted >= COARSE:
            self._noted = now

            def change(connection: Any) -> None:
                page_rows.insert_workers(connection, now, workers)
                page_rows.insert_samples(connection, now, apps)

            await self._engine.database.write(change)

    def _measure(self, one: Application, workers: list[dict[str, Any]], now: float) -> dict[str, float]:
        states = [live.record.state for live in self._engine.live.values() if live.record.app == one.name]
        ended = self._ended[one.name] = [(at, good) for at, good in self._ended[one.name] if at > now - 60]
        load = sum(worker["load"] for worker in workers) / len(workers) if workers else 0.0
        return {
            "slots": sum(worker["slots"] for worker in workers),
            "busy": sum(worker["running"] for worker in workers),
            "load": round(load, 3),
            "queued": states.count(State.QUEUED),
            "jobs": states.count(State.RUNNING),
            "succeeded": sum(good for _, good in ended),
            "other": sum(not good for _, good in ended),
        }

    async def _count_ends(self) -> None:
        """Reads the events since the last sample: jobs that have ended in the last minute make the rate."""
        while events := await self._engine.feed.after(self._event):
            self._event = events[-1].id
            for event in events:
                if _is_end(event) and event.app in self._ended:
                    self._ended[event.app].append((event.at, event.state == State.SUCCEEDED.value))


def _is_end(event: EventRecord) -> bool:
    return event.state not in (State.QUEUED.value, State.RUNNING.value)


def _sum(at: float, apps: dict[str, dict[str, float]]) -> dict[str, float]:
    total = {"at": at, **{name: sum(one[name] for one in apps.values()) for name in NAMES}}
    total["load"] = sum(one["load"] for one in apps.values()) / len(apps) if apps else 0.0
    return total
