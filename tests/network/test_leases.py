"""Leases of a real cservice: many jobs on few connections, beside other clients, and what is left of them."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from cexec.client.aio.data_sources import DataSource
from cexec.client.aio.lease import Lease
from cexec.client.aio.lease_job import LeaseJob
from cexec.client.aio.worker_search import Terms, find_worker
from cexec.client.request import NetworkSettings, Target, Times
from cexec.net.groups import groups_from_environment, udp_port_from_environment
from cexec.protocol.base.keys import ClientKey
from cexec.protocol.base.limits import DEFAULT_IDLE_TIMEOUT
from cexec.protocol.connection.frames import Stream
from cexec.protocol.connection.options import READS, WRITES
from cexec.system.storage.keyfile import read_key
from tests.conftest import StartService
from tests.environment import local_environment
from tests.leases import Kept
from tests.loggers import Crat
from tests.service import Application, Service
from tests.waiting import PATIENCE, until, wait_until

DEADLINE = PATIENCE  # seconds for everything that a test waits for
STREAMS = [Stream(0, READS), Stream(1, WRITES), Stream(2, WRITES)]


class Run:
    """One job and what comes of it."""

    def __init__(self, script: str, stdin: bytes = b"") -> None:
        self.output, self.errors = Kept(), Kept()
        self.status = -1
        self.began = asyncio.Event()
        self.job = LeaseJob(
            streams=STREAMS,
            sources={0: DataSource(stdin)},
            sinks={1: self.output, 2: self.errors},
            environment={"RUN": script.encode()},
        )

    async def on(self, lease: Lease) -> None:
        self.status = (await lease.run(self.job, lambda once: self.began.set())).exit_status


class Client:
    """A client with a lease; it looks for a worker whenever it has none."""

    def __init__(self, application: Application, weight: int = 1) -> None:
        self.searches = 0
        self.lease: Lease | None = None
        self._terms = Terms(
            read_key(os.fspath(application.public), (ClientKey,)),
            network=NetworkSettings(
                groups=groups_from_environment(os.environ), udp_port=udp_port_from_environment(os.environ)
            ),
            times=Times(accept=DEADLINE, idle=DEFAULT_IDLE_TIMEOUT),
            target=Target(weight=weight),
        )

    async def give(self, run: Run) -> Lease:
        """Gives a worker the job."""
        if self.lease is not None and await self.lease.offered(DEADLINE):
            self.lease.give(run.job.go())
            return self.lease
        if self.lease is not None:
            self.lease.close()
        self.searches += 1
        self.lease = await find_worker(self._terms, lambda hello, address: run.job.go())
        return self.lease

    async def run(self, script: str, stdin: bytes = b"") -> Run:
        run = Run(script, stdin)
        await run.on(await self.give(run))
        return run

    def release(self) -> None:
        if self.lease is not None:
            self.lease.release()


def play(what: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(what, DEADLINE))


@pytest.fixture
def serve(service: StartService) -> Callable[..., Service]:
    """A worker that runs what its clients say."""
    return lambda slots, *options: service("sh", "-c", 'eval "$PEER_RUN"', options=["-j", str(slots), *options])


def test_two_hundred_jobs_on_two_slots(application: Application, serve: Callable[..., Service]) -> None:
    worker = serve(2)
    clients = [Client(application) for _ in range(2)]

    async def one(client: Client, numbers: list[int]) -> None:
        for number in numbers:
            data = b"%d " % number * (number * 37)
            status = 0 if number % 3 else number % 120  # a worker whose jobs all fail at once is slowed
            run = await client.run(f"cat; echo {number} $CEXEC_ATTEMPT >&2; exit {status}", data)
            assert bytes(run.output.data) == data
            assert bytes(run.errors.data) == b"%d 1\n" % number
            assert run.status == status
        client.release()

    async def both() -> None:
        await asyncio.gather(*(one(client, list(range(n, 200, 2))) for n, client in enumerate(clients)))

    play(both())
    assert [client.searches for client in clients] == [1, 1]
    for what in ("accepted", "started", "finished"):
        jobs = [re.findall(r"job=(\w+)", line)[0] for line in worker.lines_with(f" {what} ", 200)]
        assert (len(jobs), len(set(jobs))) == (200, 200)


def test_a_lost_connection_costs_one_job(application: Application, serve: Callable[..., Service]) -> None:
    worker = serve(1)
    client = Client(application)

    async def go() -> None:
        await client.run("true")
        lost = Run("sleep 60")
        lease = await client.give(lost)
        running = asyncio.create_task(lost.on(lease))
        await lost.began.wait()
        lease.close()
        running.cancel()
        assert (await client.run("echo again")).output.data == b"again\n"
        client.release()

    play(go())
    assert client.searches == 2
    assert len(worker.lines_with(" finished ", 2)) == 2
    assert len(worker.lines_with(" broken ", 1)) == 1


KILLED = """
import asyncio, sys
from tests.network.test_leases import Client
from tests.service import Application
from pathlib import Path

async def go():
    application = Application.__new__(Application)
    application.public = Path(sys.argv[1])
    client = Client(application)
    await client.run("true")
    print("between", flush=True)
    if sys.argv[2] == "during":
        await client.run("echo; setsid sleep 60 & sleep 60")
    await asyncio.sleep(60)

asyncio.run(go())
"""


@pytest.mark.parametrize("when", ["between", "during"])
def test_a_client_that_is_killed_leaves_nothing(
    application: Application, serve: Callable[..., Service], when: str
) -> None:
    worker = serve(1)
    argv = [sys.executable, "-c", KILLED, os.fspath(application.public), when]
    root = Path(__file__).resolve().parents[2]
    with subprocess.Popen(
        argv, env=local_environment({"PYTHONPATH": os.fspath(root)}), stdout=subprocess.PIPE
    ) as client:
        assert client.stdout is not None
        client.stdout.readline()
        if when == "during":
            worker.lines_with(" started ", 2)
        client.kill()
    wait_until(lambda: not worker.started())
    assert application.run("RUN=echo free").stdout == b"free\n"


def test_sigterm_ends_leases_after_the_running_job(application: Application, serve: Callable[..., Service]) -> None:
    worker = serve(2)
    busy, idle = Client(application), Client(application)

    async def taken_back(lease: Lease) -> None:
        """What was offered before the signal is."""
        await until(lambda: lease.over)

    async def go() -> None:
        run = Run("sleep 0.5; echo done; exit 4")
        running = asyncio.create_task(run.on(await busy.give(run)))
        await run.began.wait()
        await idle.run("true")
        worker.signal(signal.SIGTERM)
        await running
        assert (bytes(run.output.data), run.status) == (b"done\n", 4)
        for client in (busy, idle):
            assert client.lease is not None
            await taken_back(client.lease)
            client.lease.close()

    play(go())
    assert worker.wait() == 0


def test_weights_share_a_slot_over_leases(application: Application, serve: Callable[..., Service]) -> None:
    serve(1)
    done: list[int] = []

    async def one(weight: int) -> None:
        client = Client(application, weight)
        while len(done) < 140:
            await client.run("true")
            done.append(weight)
        client.release()

    async def both() -> None:
        await asyncio.gather(one(1), one(3))

    play(both())
    counted = done[20:140]  # when both have a lease
    assert counted.count(3) / counted.count(1) == pytest.approx(3.0, rel=0.15)


def test_a_plain_client_gets_its_turn_beside_leases(application: Application, serve: Callable[..., Service]) -> None:
    serve(1)
    ended = threading.Event()
    jobs = 0

    async def lease() -> None:
        nonlocal jobs
        client = Client(application)
        while not ended.is_set():
            await client.run("sleep 0.05")  # so that 100 are more than a busy machine needs for one cexec
            jobs += 1
        client.release()

    async def plain() -> list[int]:
        loop = asyncio.get_running_loop()
        turns = []
        for _ in range(3):
            before = jobs
            result = await loop.run_in_executor(None, lambda: application.run("RUN=echo mine"))
            assert (result.returncode, result.stdout, result.stderr) == (0, b"mine\n", b"")
            turns.append(jobs - before)
        ended.set()
        return turns

    async def both() -> list[int]:
        return (await asyncio.gather(plain(), lease()))[0]

    assert max(play(both())) < 100  # while one cexec comes and goes
    assert jobs > 3


def test_loggers_hear_of_each_job_of_a_lease_once(
    application: Application, serve: Callable[..., Service], tmp_path: Path
) -> None:
    worker = serve(1)
    crat = Crat(tmp_path, application.public)
    client = Client(application)

    async def go() -> list[int]:
        statuses = [(await client.run(f"exit {number % 3}")).status for number in range(12)]
        client.release()
        return statuses

    statuses = play(go())
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0  # and has told of all of them before
    lines = crat.wait_for("completed by", 12)
    assert sorted(int(line.split(" time=")[0].rsplit(" ", 1)[1]) for line in lines) == sorted(statuses)
    assert len(crat.lines()) == 12
    crat.close()


def test_once_services_can_be_leased(application: Application, serve: Callable[..., Service]) -> None:
    serve(1, "--once")
    client = Client(application)
    once: list[bool] = []

    async def go() -> None:
        for number in range(3):
            run = Run(f"exit {number}")
            result = await (await client.give(run)).run(run.job, once.append)
            assert result.exit_status == number
        client.release()

    play(go())
    assert (once, client.searches) == ([True] * 3, 1)
