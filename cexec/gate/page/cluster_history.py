"""The last day of the cluster, for the page's plots and its list of workers that have gone.

Contract: `ClusterHistory` takes a sample of every application each COARSE seconds and keeps it in the state file.
While somebody looks, it takes one each FINE seconds, too, which it keeps in memory for FINE_SPAN seconds.  `samples`
returns those of a span of time, `workers` the workers that are there and those that were seen in the last day.  `tick`
takes the sample that is due, if one is.
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
from cexec.gate.store.job_records import JobState, show_time

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable

    from cexec.gate.access.caller import Caller
    from cexec.gate.jobs.application import GateApplication
    from cexec.gate.jobs.engine import Engine
    from cexec.gate.store.job_records import EventRecord

COARSE, FINE = 60.0, 5.0  # seconds (ours)
FINE_SPAN = 900.0  # seconds (ours)
LOOKED = 60.0  # seconds (ours) for which one look counts
NAMES = ("workers", "slots", "busy", "queued", "jobs", "succeeded", "other")  # that add up over applications
RATE = 60.0  # seconds (ours) for which jobs that have ended are counted


class ClusterHistory:
    """The history of one `cgate`.  `wall` and `monotonic` are for tests."""

    def __init__(
        self,
        engine: Engine,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._wall = wall
        self._monotonic = monotonic
        self._fine: deque[tuple[float, dict[str, dict[str, float]]]] = deque(maxlen=int(FINE_SPAN / FINE))
        self._looked = -LOOKED  # when somebody has looked
        self._noted = -COARSE  # when a coarse sample was taken
        self._seen: dict[str, tuple[float, dict[str, Any]]] = {}  # workers, by UUID, since the last coarse sample
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

    async def samples(self, identity: Caller, span: float) -> list[dict[str, float]]:
        """Returns the samples of the last `span` seconds, of all applications that the token may see together."""
        self._looked = self._monotonic()
        since = self._wall() - span
        fine = [one for one in self._fine if one[0] >= since] if span <= FINE_SPAN else []
        coarse: dict[float, dict[str, dict[str, float]]] = {}
        for at, app, content in await self._engine.database.read(partial(page_rows.samples_since, since=since)):
            if not fine or at < fine[0][0]:
                coarse.setdefault(at, {})[app] = content
        found = [*coarse.items(), *fine]
        return [_sum(at, {app: one for app, one in apps.items() if identity.may_see(app)}) for at, apps in found]

    async def workers(self, identity: Caller) -> list[dict[str, Any]]:
        """Returns the workers as /v1/workers does, with `gone` and, of those that have gone, `last_seen`."""
        self._looked = self._monotonic()
        now = self._wall()
        applications = [one for one in self._engine.applications.values() if identity.may_see(one.name)]
        there = [document for one in applications for document in await one.documents()]
        self._note(now, there)
        names = {one["uuid"] for one in there}
        rows = await self._engine.database.read(partial(page_rows.workers_since, since=now - page_rows.KEPT))
        seen = {one["uuid"]: (at, one) for at, one in rows} | self._seen
        gone = [
            {**one, "gone": True, "last_seen": show_time(at)}
            for at, one in seen.values()
            if one["uuid"] not in names and identity.may_see(one["app"])
        ]
        return [{**one, "gone": False, "last_seen": None} for one in there] + gone

    async def tick(self) -> None:
        """Takes a sample, if somebody looks or the last one that was kept is COARSE seconds old."""
        due = self._monotonic() - self._noted >= COARSE
        if due or self._monotonic() - self._looked < LOOKED:
            await self._sample(kept=due)

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(CexecError, Problem):  # the network or the disk is away for a moment
                await self.tick()
            await asyncio.sleep(FINE)

    async def _sample(self, *, kept: bool) -> None:
        await self._count_ends()
        now = self._wall()
        apps = {}
        for one in self._engine.applications.values():
            documents = await one.documents()
            self._note(now, documents)
            apps[one.name] = self._measure(one, documents, now)
        self._fine.append((now, apps))
        if not kept:
            return
        self._noted = self._monotonic()
        seen = dict(self._seen)

        def change(connection: sqlite3.Connection) -> None:
            page_rows.insert_workers(connection, list(seen.values()))
            page_rows.insert_samples(connection, now, apps)

        await self._engine.database.write(change)
        self._seen = {uuid: one for uuid, one in self._seen.items() if one is not seen.get(uuid)}

    def _note(self, now: float, workers: list[dict[str, Any]]) -> None:
        for one in workers:
            self._seen[one["uuid"]] = (now, one)

    def _measure(self, one: GateApplication, workers: list[dict[str, Any]], now: float) -> dict[str, float]:
        states = [live.record.state for live in self._engine.live.values() if live.record.app == one.name]
        ended = self._ended[one.name] = [(at, good) for at, good in self._ended[one.name] if at > now - RATE]
        return {
            "workers": len(workers),
            "slots": sum(worker["slots"] for worker in workers),
            "busy": sum(worker["running"] for worker in workers),
            "load": round(sum(worker["load"] for worker in workers), 3),
            "queued": states.count(JobState.QUEUED),
            "jobs": states.count(JobState.RUNNING),
            "succeeded": sum(good for _, good in ended),
            "other": sum(not good for _, good in ended),
        }

    async def _count_ends(self) -> None:
        """Reads the events since the last sample: jobs that have ended in the last minute make the rate."""
        while events := await self._engine.feed.after(self._event):
            self._event = events[-1].id
            for event in events:
                if _is_end(event) and event.app in self._ended:
                    self._ended[event.app].append((event.at, event.state == JobState.SUCCEEDED.value))


def _is_end(event: EventRecord) -> bool:
    return event.state not in (JobState.QUEUED.value, JobState.RUNNING.value)


def _sum(at: float, apps: dict[str, dict[str, float]]) -> dict[str, float]:
    total = {"at": at, **{name: sum(one[name] for one in apps.values()) for name in NAMES}}
    total["load"] = sum(one["load"] for one in apps.values()) / max(1, total["workers"])
    return total
