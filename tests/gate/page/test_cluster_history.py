"""The last day of a cluster: on a fake engine and a fake clock, with a real state file."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cexec.gate.access.caller import Caller, TokenRole
from cexec.gate.page.cluster_history import COARSE, FINE, LOOKED, RATE, ClusterHistory
from cexec.gate.problem import Problem
from cexec.gate.store import page_rows
from cexec.gate.store.database import Database
from cexec.gate.store.job_records import EventRecord, JobState

START = 1_000_000.0
ALL = Caller("admin", TokenRole.ADMIN, None, 1, 100)


class FakeApplication:
    def __init__(self, name: str) -> None:
        self.name = name
        self.workers: list[dict[str, Any]] = []

    async def documents(self) -> list[dict[str, Any]]:
        return list(self.workers)


class FakeFeed:
    def __init__(self) -> None:
        self.events: list[EventRecord] = []

    @property
    def last(self) -> int:
        return len(self.events)

    async def after(self, last: int) -> list[EventRecord]:
        return self.events[last : last + 2]  # a few at a time

    def end(self, at: float, state: JobState, app: str = "app") -> None:
        self.events.append(EventRecord(self.last + 1, at, "job", None, app, state.value, 0, None, None))


class Cluster:
    """One application, `app`, and one, `other`; `now` is the time of both clocks."""

    def __init__(self, database: Database) -> None:
        self.now = START
        self.app, self.other = FakeApplication("app"), FakeApplication("other")
        self.feed = FakeFeed()
        self.engine: Any = SimpleNamespace(
            database=database, feed=self.feed, live={}, applications={"app": self.app, "other": self.other}
        )
        self.history = self.new_history()

    def new_history(self) -> ClusterHistory:
        """As after a restart."""
        return ClusterHistory(self.engine, lambda: self.now, lambda: self.now - START)

    async def pass_time(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            await self.history.tick()
            self.now += FINE

    def run_jobs(self, *states: JobState) -> None:
        jobs = {i: SimpleNamespace(record=SimpleNamespace(state=one, app="app")) for i, one in enumerate(states)}
        self.engine.live = jobs


def worker(uuid: str, app: str = "app", **members: Any) -> dict[str, Any]:
    return {"uuid": uuid, "app": app, "slots": 4, "running": 1, "load": 0.5, **members}


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    database = Database(str(tmp_path / "state"), sole=True)
    yield Cluster(database)
    database.close()


def run(what: Coroutine[Any, Any, None]) -> None:
    asyncio.run(what)


def times(samples: list[dict[str, float]]) -> list[float]:
    return [one["at"] - START for one in samples]


def test_a_sample_a_minute_is_kept_and_those_between_while_somebody_looks(cluster: Cluster) -> None:
    async def use() -> None:
        await cluster.pass_time(2 * COARSE + FINE)
        assert times(await cluster.history.samples(ALL, 900)) == [0, COARSE, 2 * COARSE]
        await cluster.pass_time(LOOKED + COARSE)  # somebody has looked: more of them, for a minute
        between = times(await cluster.history.samples(ALL, 900))
        fine = [2 * COARSE + FINE * i for i in range(1, int(LOOKED / FINE) + 1)]
        assert between == [0, COARSE, 2 * COARSE, *fine, 4 * COARSE]
        assert times(await cluster.history.samples(ALL, 86400)) == [0, COARSE, 2 * COARSE, 3 * COARSE, 4 * COARSE]

    run(use())


def test_after_a_restart_there_is_what_was_kept(cluster: Cluster) -> None:
    async def use() -> None:
        await cluster.pass_time(COARSE + FINE)
        cluster.now += 2 * COARSE
        cluster.history = cluster.new_history()
        await cluster.pass_time(FINE)
        assert times(await cluster.history.samples(ALL, 900)) == [0, COARSE, 3 * COARSE + FINE]
        assert times(await cluster.history.samples(ALL, 90)) == [3 * COARSE + FINE]

    run(use())


def test_what_a_sample_says(cluster: Cluster) -> None:
    async def use() -> None:
        cluster.app.workers = [worker("a"), worker("b", running=0, load=0.0)]
        cluster.other.workers = [worker("c", "other", slots=2, running=2, load=1.0)]
        cluster.run_jobs(JobState.QUEUED, JobState.QUEUED, JobState.RUNNING)
        for state in (JobState.RUNNING, JobState.SUCCEEDED, JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED):
            cluster.feed.end(cluster.now, state)
        await cluster.history.tick()
        wanted = {"at": START, "slots": 10, "busy": 3, "load": 0.5, "queued": 2, "jobs": 1, "workers": 3}
        assert await cluster.history.samples(ALL, 900) == [{**wanted, "succeeded": 2, "other": 2}]
        cluster.now += RATE
        await cluster.history.tick()
        (_, later) = await cluster.history.samples(ALL, 900)
        assert later["succeeded"] == later["other"] == 0  # they count for a minute

    run(use())


def test_nobody_sees_an_application_that_is_not_his(cluster: Cluster) -> None:
    async def use() -> None:
        cluster.app.workers, cluster.other.workers = [worker("a")], [worker("c", "other")]
        await cluster.history.tick()
        cluster.app.workers, cluster.other.workers = [], []
        mine = Caller("me", TokenRole.VIEWER, frozenset({"other"}), 2, 100)
        assert [one["uuid"] for one in await cluster.history.workers(mine)] == ["c"]
        assert [one["workers"] for one in await cluster.history.samples(mine, 900)] == [1]
        none = Caller("him", TokenRole.VIEWER, frozenset(), 3, 100)
        assert await cluster.history.workers(none) == []
        assert (await cluster.history.samples(none, 900))[0]["load"] == 0

    run(use())


def test_a_worker_that_has_gone_is_known_for_a_day(cluster: Cluster) -> None:
    async def use() -> None:
        cluster.app.workers = [worker("a"), worker("b")]
        assert [one["gone"] for one in await cluster.history.workers(ALL)] == [False, False]
        cluster.app.workers = [worker("a")]
        (there, gone) = await cluster.history.workers(ALL)
        assert (there["uuid"], there["gone"], there["last_seen"]) == ("a", False, None)
        assert (gone["uuid"], gone["gone"], gone["last_seen"]) == ("b", True, "1970-01-12T13:46:40.000Z")
        await cluster.history.tick()  # on the disk now
        cluster.history = cluster.new_history()
        assert [one["gone"] for one in await cluster.history.workers(ALL)] == [False, True]
        cluster.now += page_rows.KEPT + 1
        assert [one["uuid"] for one in await cluster.history.workers(ALL)] == ["a"]

    run(use())


def test_a_worker_seen_while_the_disk_was_full_is_kept_later(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    async def full(change: Callable[[Any], Any]) -> None:
        raise Problem(507, "no room")

    async def use() -> None:
        cluster.app.workers = [worker("a")]
        with monkeypatch.context() as patch, pytest.raises(Problem):
            patch.setattr(cluster.engine.database, "write", full)
            await cluster.history.tick()
        cluster.app.workers = []
        cluster.now += COARSE
        await cluster.history.tick()
        cluster.history = cluster.new_history()
        assert [one["uuid"] for one in await cluster.history.workers(ALL)] == ["a"]

    run(use())
