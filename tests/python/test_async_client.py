"""What an `AsyncClient` has to do with event loops, tasks and processes."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cexec.errors import UsageError
from cexec.python.async_client import AsyncClient
from tests.environment import local_environment
from tests.python.clients import run
from tests.service import Application, Service
from tests.waiting import one_turn, until, wait_until


def test_cancelling_the_task_ends_the_job_there(key: Path, worker: tuple[Application, Service]) -> None:
    async def scene() -> None:
        async with AsyncClient(key) as client:
            tasks = [asyncio.create_task(client.run(args=["sleep 1234"])) for _ in range(6)]  # more than slots
            await until(lambda: len(worker[1].started()) >= 4)
            for task in tasks:
                task.cancel()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
            assert {type(end) for end in ends} == {asyncio.CancelledError}
            await until(lambda: not worker[1].started())
            assert (await client.run(args=["echo"])).returncode == 0

    run(scene())


def test_leaving_the_loop_of_a_map_ends_its_jobs(key: Path, worker: tuple[Application, Service]) -> None:
    async def scene() -> None:
        async with AsyncClient(key) as client:
            results = client.map([b"0", *[b"1234"] * 9], args=["read n; sleep $n"])
            async for one in results:
                assert one.returncode == 0
                break
            await results.aclose()  # type: ignore[attr-defined]
            await until(lambda: not worker[1].started())

    run(scene())


def test_jobs_with_different_targets_go_on_side_by_side(key: Path) -> None:
    async def scene() -> None:
        async with AsyncClient(key, weight=3) as client, await client.start(args=["cat"], weight=1) as job:
            await job.begun()
            results = await asyncio.gather(*(client.run(args=["echo"], need={"cpus": 1}) for _ in range(5)))
            assert [one.returncode for one in results] == [0] * 5
            assert (await client.run(args=["echo"], exclude="nobody")).returncode == 0

    run(scene())


def test_one_loop_after_the_other_may_use_it_but_not_two_at_once(key: Path) -> None:
    client = AsyncClient(key)

    async def use() -> int:
        return (await client.run(args=["echo"])).returncode

    assert (run(use()), run(use())) == (0, 0)

    async def scene() -> None:
        job = await client.start(args=["cat"])
        await job.begun()
        seen: list[BaseException] = []

        def other() -> None:
            try:
                asyncio.run(use())
            except UsageError as error:
                seen.append(error)

        thread = threading.Thread(target=other)
        thread.start()
        await asyncio.to_thread(thread.join)
        assert "used by another event loop" in str(seen[0])
        await job.cancel()
        await client.close()

    run(scene())


def test_the_census_fails_as_any_other_call_after_the_end(key: Path) -> None:
    async def scene() -> None:
        client = AsyncClient(key)
        await client.close()
        with pytest.raises(UsageError, match="has been closed"):
            await client.workers()
        with pytest.raises(UsageError, match="has been closed"):
            client.map([])
        with pytest.raises(UsageError, match="has been closed"):
            client.watch()

    run(scene())


@pytest.mark.parametrize("closed", [True, False])
def test_an_interrupt_ends_the_program_and_its_jobs(
    key: Path, worker: tuple[Application, Service], closed: bool
) -> None:
    """Also where nobody has closed the client."""
    body = f"""
import asyncio, cexec

async def main():
    client = cexec.AsyncClient({os.fspath(key)!r})
    job = await client.start(args=["sleep 1234"])
    try:
        await asyncio.gather(*(client.run(args=["sleep 1234"]) for _ in range(9)))
    finally:
        if {closed}:
            await client.close()

try:
    asyncio.run(main())
except KeyboardInterrupt:
    print("interrupted")
"""
    process = subprocess.Popen(
        [sys.executable, "-c", body],
        env=local_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: len(worker[1].started()) >= 4)
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60) == ("interrupted\n", "")
    wait_until(lambda: not worker[1].started())


def test_files_stay_open_no_longer_than_their_job(key: Path, tmp_path: Path) -> None:
    """The check of all tests would find what stays open."""
    (tmp_path / "input").write_bytes(b"data")

    async def scene() -> None:
        async with AsyncClient(key, accept_timeout=0.3) as client:
            with (tmp_path / "input").open("rb") as file:
                for _ in range(3):
                    result = await client.run(file, args=["cat > out"], fetch={"out": tmp_path / "out"})
                    assert result.returncode == 0
                waiting = asyncio.create_task(client.run(file, need="gpu", fetch={"out": tmp_path / "out"}))
                await one_turn()
                waiting.cancel()
            assert (tmp_path / "out").read_bytes() == b"data"

    run(scene())
