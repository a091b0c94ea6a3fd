"""The engine on a real worker, without HTTP: losses, limits, inputs that nobody writes, and the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from cexec.errors import UsageError
from cexec.gate.access.caller import Caller, TokenRole
from cexec.gate.jobs import live_job
from cexec.gate.jobs.application import GateApplication
from cexec.gate.jobs.desk import Desk
from cexec.gate.jobs.engine import Engine, EngineSettings
from cexec.gate.jobs.job_request import JobRequest
from cexec.gate.jobs.pipe import OutputReader, start_pipe
from cexec.gate.problem import Problem
from cexec.gate.store.database import Database
from cexec.gate.store.job_records import JobState
from cexec.gate.store.output_files import OutputFiles
from tests.python.clients import run
from tests.service import Application, Service
from tests.waiting import until

ADMIN = Caller("me", TokenRole.ADMIN, None, 1, 1000)


@asynccontextmanager
async def serving(key: Application, state: Path, settings: EngineSettings | None = None) -> AsyncIterator[Engine]:
    database = Database(str(state), sole=True)
    try:
        files = OutputFiles(f"{state}-outputs")
        engine = Engine(database, files, [GateApplication(str(key.public))], settings or EngineSettings())
        engine.start()
        try:
            yield engine
        finally:
            await engine.close()
    finally:
        database.close()


def scene(key: Application, state: Path) -> Callable[[Callable[[Engine], Coroutine[Any, Any, None]]], None]:
    """Runs what is written below it with an engine."""

    def play(what: Callable[[Engine], Coroutine[Any, Any, None]]) -> None:
        async def whole() -> None:
            async with serving(key, state) as engine:
                await what(engine)

        run(whole())

    return play


def job(script: str, **members: Any) -> JobRequest:
    return JobRequest("app", args=(script,), **members)


def test_a_lost_worker_is_replaced_unless_somebody_could_notice(key: Application, worker: Service, state: Path) -> None:
    @scene(key, state)
    async def _(engine: Engine) -> None:
        desk = Desk(engine)
        for seen in (False, True):
            hangs_once = f"mkdir {state}-{seen} 2>/dev/null && sleep 1000"  # until its process is killed
            (record,) = (await engine.submit(ADMIN, job(f"echo begun; {hangs_once}; echo done"))).jobs
            live = engine.live[record.id]
            await until(lambda live=live: live.errand.logs[1].end > 0)  # type: ignore[misc]
            if seen:
                assert (await desk.output(ADMIN, record.id, 1)).read(0, 10) == b"begun\n"
            (process,) = [psutil.Process(worker.busy_process().pid)]
            process.kill()
            ended = await desk.wait(ADMIN, record.id, 60)
            output = (await desk.output(ADMIN, record.id, 1)).read(0, 100)
            if seen:
                assert ended.state is JobState.FAILED and "its output has been read" in str(ended.reason)
            else:
                assert (ended.state, ended.attempts, output) == (JobState.SUCCEEDED, 2, b"begun\ndone\n")


def test_an_input_that_nobody_sends_ends_its_job(
    key: Application, worker: Service, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grace = partial(monkeypatch.setattr, live_job, "INPUT_GRACE")  # until the next writer must have come

    @scene(key, state)
    async def _(engine: Engine) -> None:
        grace(1.0)
        live = await start_pipe(engine, ADMIN, job("cat", stdin=None))
        with live.take_input(0) as writer:
            await asyncio.sleep(1.2)  # more than the grace: he is there
            await until(lambda: live.record.state is JobState.RUNNING)
            await writer.write(b"some")
            grace(60.0)
        with pytest.raises(Problem, match="go on with offset=4"):
            live.take_input(0)
        await asyncio.sleep(0.1)
        assert live.record.state is JobState.RUNNING
        grace(0.3)
        with live.take_input(4):
            pass
        await live.wait()
        assert (live.record.state, live.record.reason) == (JobState.CANCELLED, "nobody has sent the rest of its input")
        other = await start_pipe(engine, ADMIN, job("cat", stdin=None))
        await other.wait()  # it never had a writer
        assert other.record.state is JobState.CANCELLED


def test_a_token_has_so_many_jobs_at_once(key: Application, worker: Service, state: Path) -> None:
    @scene(key, state)
    async def _(engine: Engine) -> None:
        two = Caller("two", TokenRole.SUBMITTER, None, 2, 2)
        jobs = [(await engine.submit(two, job("sleep 1000"))).jobs[0] for _ in range(2)]
        with pytest.raises(Problem) as refused:
            await engine.submit(two, job("true"))
        assert refused.value.status == 429 and refused.value.headers == {"Retry-After": "1"}
        assert (await engine.submit(ADMIN, job("true"))).fresh
        await Desk(engine).cancel(two, jobs[0].id)
        assert (await engine.submit(two, job("true"))).fresh
        one = Caller("one", TokenRole.SUBMITTER, None, 3, 1)
        for bad in (JobRequest("none"), job("true", needs=("=",)), job("true", files={"../x": b""})):
            with pytest.raises((Problem, UsageError), match=r"no application|=|relative"):
                await engine.submit(one, bad)
        assert (await engine.submit(one, job("true"))).fresh  # what was refused does not count
        await Desk(engine).cancel(two, jobs[1].id)


def test_the_reader_of_a_pipe_is_waited_for_until_he_goes(key: Application, worker: Service, state: Path) -> None:
    @scene(key, state)
    async def _(engine: Engine) -> None:
        live = await start_pipe(engine, ADMIN, job("head -c 20000000 /dev/zero", stdin=b""))
        log = live.errand.logs[1]
        with OutputReader(live, 1) as reader:
            first = await reader.next()
            await asyncio.sleep(0.3)  # time in which all could come
            assert len(first) <= log.end <= 2_000_000
            assert len(await reader.next(100)) == 100
        assert await live.wait(60)
        assert (live.record.state, live.outputs[1].end) == (JobState.SUCCEEDED, 20_000_000)
        assert reader.offset == len(first) + 100


def test_the_end_of_everything_is_told(key: Application, worker: Service, state: Path) -> None:
    ids = []

    @scene(key, state)
    async def _(engine: Engine) -> None:
        ids.extend([(await engine.submit(ADMIN, job("sleep 1000"))).jobs[0].id for _ in range(8)])
        waiting = asyncio.create_task(Desk(engine).wait(ADMIN, ids[0], 60))
        await asyncio.sleep(0)
        await engine.close()
        assert (await waiting).state is JobState.INTERRUPTED
        with pytest.raises(Problem, match="is being stopped"):
            await engine.submit(ADMIN, job("true"))

    @scene(key, state)
    async def _(engine: Engine) -> None:
        assert engine.interrupted == 0
        for id in ids:
            assert (await engine.job(ADMIN, id)).reason == "cgate was stopped"


def test_workers_are_asked_for_only_as_long_as_somebody_wants_to_know(
    key: Application, worker: Service, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cexec.gate.jobs.application.LINGER", 0.2)

    @scene(key, state)
    async def _(engine: Engine) -> None:
        application = engine.applications["app"]
        assert application.live is None
        (one,) = await application.documents()
        assert await application.resolve([str(one["uuid"])]) and application.live is not None
        await until(lambda: application.live is None)
        assert len(await application.documents()) == 1
