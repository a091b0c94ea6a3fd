"""Searches for workers in one asyncio program, with real workers."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine
from typing import Any

import pytest

from cexec.client.aio.data_sources import DataSource
from cexec.client.aio.lease_job import LeaseJob
from cexec.client.aio.worker_search import Terms, find_worker
from cexec.client.request import NetworkSettings, Target, Times
from cexec.errors import CexecError, NoWorkerError
from cexec.net.groups import groups_from_environment, udp_port_from_environment
from cexec.protocol.base.keys import ClientKey
from cexec.protocol.base.limits import DEFAULT_IDLE_TIMEOUT, FAMILY_SIZE, IDENTITY_SIZE
from cexec.protocol.connection.frames import Go, Stream
from cexec.protocol.connection.options import READS, WRITES
from cexec.system.storage.keyfile import read_key
from tests.conftest import StartService
from tests.fake_worker import Connection, FakeWorker, serve
from tests.leases import Kept
from tests.service import Application
from tests.waiting import PATIENCE

DEADLINE = PATIENCE  # seconds for whatever a test waits for
STANDARD = [Stream(0, READS), Stream(1, WRITES), Stream(2, WRITES)]


def run(what: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(what, DEADLINE))


def terms(application: Application, accept_timeout: float = DEADLINE) -> Terms:
    return Terms(
        read_key(os.fspath(application.public), (ClientKey,)),
        network=NetworkSettings(
            groups=groups_from_environment(os.environ), udp_port=udp_port_from_environment(os.environ)
        ),
        times=Times(accept=accept_timeout, idle=DEFAULT_IDLE_TIMEOUT),
        target=Target(),
    )


def test_jobs_of_a_real_worker_side_by_side(application: Application, service: StartService) -> None:
    service("sh", "-c", 'echo "$1"; cat', "sh", options=["-j", "4", "--allow-args"])
    wanted = terms(application)

    async def one(number: int) -> tuple[int, bytes]:
        output = Kept()
        job = LeaseJob(
            streams=STANDARD,
            sources={0: DataSource(b"stdin")},
            sinks={1: output, 2: Kept()},
            arguments=[b"argument %d" % number],
        )
        lease = await find_worker(wanted, lambda hello, address: job.go())
        assert lease.worker.endswith("@127.0.0.1")
        result = await lease.run(job, lambda once: None)
        lease.release()
        return result.exit_status, bytes(output.data)

    async def play() -> list[tuple[int, bytes]]:
        return await asyncio.gather(*map(one, range(8)))

    assert run(play()) == [(0, b"argument %d\nstdin" % number) for number in range(8)]


@pytest.mark.parametrize("family", [b"", b"a family"])
def test_all_that_a_program_announces_is_of_its_family(application: Application, family: bytes) -> None:
    wanted = terms(application)
    wanted.family = family
    heard: list[bytes] = []

    def play(connection: Connection) -> None:
        heard.append(connection.job_id)
        serve(connection)

    async def one() -> None:
        job = LeaseJob(streams=STANDARD, sources={0: DataSource(b"input")}, sinks={1: Kept(), 2: Kept()})
        lease = await find_worker(wanted, lambda hello, address: job.go())
        await lease.run(job, lambda once: None)
        lease.release()

    with FakeWorker(application, play):
        for _ in range(2):
            run(one())
    assert all(len(job_id) == IDENTITY_SIZE and job_id.startswith(family) for job_id in heard)
    assert len({job_id[FAMILY_SIZE:] for job_id in heard}) == len(heard) == 2
    assert len({job_id[:FAMILY_SIZE] for job_id in heard}) == (1 if family else 2)


def test_a_worker_that_is_not_wanted_does_not_get_the_job(application: Application, service: StartService) -> None:
    service("cat")
    asked: list[str] = []

    def choose(hello: Any, address: str) -> Go:
        asked.append(hello.name)
        raise CexecError("not this one")

    async def play() -> None:
        await find_worker(terms(application, accept_timeout=4.0), choose)

    with pytest.raises(NoWorkerError):
        run(play())
    assert asked


def test_nobody_is_there(application: Application) -> None:
    before = len(os.listdir("/proc/self/fd"))

    job = Go(job_id=bytes(16), attempt=1, streams=[])

    async def play() -> None:
        await find_worker(terms(application, accept_timeout=0.3), lambda hello, address: job)

    with pytest.raises(NoWorkerError, match=r"answered in 0\.3 s"):
        run(play())
    assert len(os.listdir("/proc/self/fd")) <= before
