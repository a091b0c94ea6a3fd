"""Jobs whose streams the caller has in hand, on a real service."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from cexec.errors import DisconnectedError, JobCancelledError, RefusedError, UsageError
from cexec.python.async_client import AsyncClient
from tests.python.clients import run
from tests.service import Application, Service
from tests.waiting import until


def test_a_conversation_with_a_program(key: Path) -> None:
    async def scene() -> None:
        script = "read a; echo you said $a; cat; echo bad >&2; exit 3"
        async with AsyncClient(key) as client, await client.start(args=[script]) as job:
            assert (job.worker, job.returncode, job.over) == ("", None, False)
            await job.stdin.write(b"hello\n")
            assert await job.stdout.read(100) == b"you said hello\n"
            assert job.worker.partition("@")[2] and len(job.instance) == 16
            await job.stdin.write([b"more ", b"of it"])
            assert await job.stdout.readexactly(10) == b"more of it"
            job.stdin.close()
            assert [chunk async for chunk in job.stdout] == []
            assert await job.stderr.read() == b"bad\n"
            result = await job.wait()
            assert (result.returncode, result.stdout, result.stderr, result.attempts) == (3, None, None, 1)
            assert (result.worker, job.returncode, job.over) == (job.worker, 3, True)
            assert result.duration > 0 and result.usage.memory > 0

    run(scene())


def test_all_bytes_pass_both_ways_through_small_buffers(key: Path) -> None:
    data = bytes(range(256)) * 40_000  # ten windows

    async def scene() -> None:
        async with AsyncClient(key) as client:
            job = await client.start(args=["cat"])
            result = await job.communicate(data)
            assert (result.stdout, result.stderr, result.returncode) == (data, b"", 0)

    run(scene())


def test_a_program_that_nobody_reads_waits_and_ends_when_it_is_read(key: Path) -> None:
    async def scene() -> None:
        async with AsyncClient(key) as client:
            job = await client.start(args=["head -c 9000000 /dev/zero; echo done >&2"])
            await job.begun()
            first = await anext(job.stdout)
            reading = asyncio.create_task(job.stderr.read())
            await asyncio.sleep(0.3)  # time in which it could end
            assert not job.over and not reading.done()
            assert len(first) + len(await job.stdout.read()) == 9_000_000
            assert await reading == b"done\n"
            assert (await job.wait()).returncode == 0

    run(scene())


def test_output_that_was_not_read_is_still_there_after_the_end(key: Path) -> None:
    async def scene() -> None:
        async with AsyncClient(key) as client:
            job = await client.start(args=["head -c 1500000 /dev/zero"], stdin=b"")
            assert (await job.wait()).returncode == 0
            assert len(await job.stdout.read()) == 1_500_000

    run(scene())


def test_a_writer_waits_while_the_program_does_not_read(key: Path) -> None:
    async def scene() -> None:
        async with AsyncClient(key) as client:
            job = await client.start(args=["read line; wc -c"])
            writing = asyncio.create_task(job.stdin.write(b"go on\n" + bytes(8_000_000)))
            await job.begun()
            await writing
            job.stdin.close()
            assert (await job.stdout.read()).strip() == b"8000000"

            sleeper = await client.start(args=["sleep 60"])
            writing = asyncio.create_task(sleeper.stdin.write(bytes(8_000_000)))
            await sleeper.begun()
            await until(lambda: sleeper.stdin.given > 1_000_000)
            await asyncio.sleep(0.2)  # time in which more could go
            assert not writing.done() and sleeper.stdin.given < 4_000_000
            await sleeper.cancel()
            with pytest.raises(BrokenPipeError):
                await writing

    run(scene())


def test_a_program_that_closes_its_input_is_told_to_the_writer(key: Path) -> None:
    async def scene() -> None:
        async with AsyncClient(key) as client:
            job = await client.start(args=["exec <&-; echo closed; sleep 60"])
            with pytest.raises(BrokenPipeError):
                while True:
                    await job.stdin.write(bytes(100_000))
            await job.cancel()

    run(scene())


def test_further_descriptors(key: Path, tmp_path: Path) -> None:
    (tmp_path / "five").write_bytes(b"from a file")

    async def scene() -> None:
        async with AsyncClient(key) as client:
            job = await client.start(
                args=["cat <&3 >&4; cat <&5; cat"],
                stdin=b"given",
                inputs={3: None, 5: tmp_path / "five"},
                outputs=(4,),
            )
            await job.write_to(3).write(b"abc")
            job.write_to(3).close()
            assert await job.read_from(4).read() == b"abc"
            assert await job.stdout.read() == b"from a filegiven"
            with pytest.raises(UsageError, match="descriptor 0"):
                _ = job.stdin
            with pytest.raises(UsageError, match="descriptor 6"):
                job.read_from(6)
            await job.wait()
            for wrong in ({"inputs": {2: b""}}, {"outputs": [256]}, {"outputs": [4, 4]}, {"inputs": {4: None}}):
                with pytest.raises(UsageError, match="each once"):
                    await client.start(args=["true"], **{"outputs": [4], **wrong})  # type: ignore[arg-type]

    run(scene())


def test_files_go_along_and_come_back(key: Path, tmp_path: Path) -> None:
    (tmp_path / "two").write_bytes(b"2")

    async def scene() -> None:
        async with AsyncClient(key) as client:
            job = await client.start(
                args=["cat one two > three"], files={"one": b"1", "two": tmp_path / "two"}, fetch=["three"], stdin=b""
            )
            assert (await job.wait()).files == {"three": b"12"}

    run(scene())


def test_signals_reach_the_program_also_those_that_were_sent_before_it_ran(key: Path) -> None:
    async def scene() -> None:
        async with AsyncClient(key) as client:
            job = await client.start(args=["trap 'echo caught; exit 4' USR1; echo ready; while :; do sleep 0.05; done"])
            assert await job.stdout.read(100) == b"ready\n"
            job.send_signal(signal.SIGUSR1)
            result = await job.communicate()
            assert (result.returncode, result.stdout) == (4, b"caught\n")
            job.send_signal(signal.SIGTERM)  # it has ended: nothing happens

            early = await client.start(args=["sleep 60"], stdin=b"")
            early.send_signal(signal.SIGTERM)
            assert (await early.wait()).returncode == -signal.SIGTERM
            with pytest.raises(UsageError, match="cannot be sent to a job"):
                early.send_signal(signal.SIGKILL)

    run(scene())


def test_leaving_the_block_ends_the_job_there(key: Path, worker: tuple[Application, Service]) -> None:
    async def scene() -> None:
        async with AsyncClient(key) as client:
            with pytest.raises(RuntimeError, match="mine"):
                async with await client.start(args=["sleep 1234 & sleep 1234"]) as job:
                    await job.begun()
                    raise RuntimeError("mine")
            assert job.over and job.returncode is None
            with pytest.raises(JobCancelledError):
                await job.wait()
            with pytest.raises(JobCancelledError):
                await job.stdout.read()
            await until(lambda: not worker[1].started())

    run(scene())


def test_closing_the_client_ends_all_jobs_and_it_cannot_be_used_again(
    key: Path, worker: tuple[Application, Service]
) -> None:
    async def scene() -> None:
        client = AsyncClient(key)
        jobs = [await client.start(args=["sleep 1234"]) for _ in range(6)]  # more than there are slots
        await jobs[0].begun()
        await client.close()
        await client.close()
        for job in jobs:
            with pytest.raises(JobCancelledError, match="client has been closed"):
                await job.wait()
        with pytest.raises(UsageError, match="has been closed"):
            await client.start()
        await until(lambda: not worker[1].started())

    run(scene())


def test_a_job_that_cannot_begin_says_so_to_all_who_wait(tmp_path: Path) -> None:
    application = Application(tmp_path)
    service = Service(application, ["cat"])

    async def scene() -> None:
        async with AsyncClient(application.public) as client:
            job = await client.start(args=["x"])
            for waiting in (job.begun(), job.wait(), job.stdout.read()):
                with pytest.raises(RefusedError, match=r"refuses the job: arguments are not allowed") as caught:
                    await waiting
                assert caught.value.permanent

    try:
        run(scene())
    finally:
        service.close()


LOST = "kill -9 $PPID"  # the job's process: its worker is lost to the client


def test_a_job_whose_worker_is_lost_is_repeated_only_if_nobody_can_notice(key: Path, tmp_path: Path) -> None:
    """Each program ends its worker's process the first time."""

    def script(name: str, before: str = ":", after: str = "echo done") -> str:
        return f"{before}; test -e {tmp_path}/{name} || {{ touch {tmp_path}/{name}; {LOST}; sleep 60; }}; {after}"

    async def scene() -> None:
        async with AsyncClient(key) as client:
            job = await client.start(args=[script("a", "echo first")], stdin=b"all of it", retries=2)
            assert ((await job.wait()).attempts, await job.stdout.read()) == (2, b"first\ndone\n")

            job = await client.start(args=[script("b")], stdin=b"")
            with pytest.raises(DisconnectedError, match=r"failed: .*; not repeated, because --retries is 0"):
                await job.wait()

            job = await client.start(args=[script("c", "read a")], retries=2)
            await job.stdin.write(b"given\n")
            with pytest.raises(DisconnectedError, match="it was given input that is not kept"):
                await job.wait()

            until_read = f"until test -e {tmp_path}/read; do sleep 0.05; done"
            job = await client.start(args=[script("d", f"echo first; {until_read}")], stdin=b"", retries=2)
            assert await job.stdout.read(6) == b"first\n"
            (tmp_path / "read").touch()
            with pytest.raises(DisconnectedError, match="its output has been read"):
                await job.stdout.read()

            trapped = f"trap : USR1; : > {tmp_path}/trapped; until test -e {tmp_path}/sent; do sleep 0.05; done"
            job = await client.start(args=[script("e", trapped)], stdin=b"", retries=2)
            await until((tmp_path / "trapped").exists)
            job.send_signal(signal.SIGUSR1)
            (tmp_path / "sent").touch()
            with pytest.raises(DisconnectedError, match="it was sent a signal"):
                await job.wait()

    run(scene())
