"""Who is in the cluster, by both clients, with real workers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cexec.errors import DisconnectedError, JobCancelledError
from cexec.python.async_client import AsyncClient
from cexec.python.membership import ClusterChange, ClusterWorker
from cexec.python.sync_client import Client
from tests.conftest import StartService
from tests.python.clients import ALLOW, SHELL, run
from tests.service import Application, Service
from tests.waiting import wait_until


def census(client: Client, count: int) -> list[ClusterWorker]:
    """So many workers answer; one that has no time for a second is not in a census."""
    found: list[ClusterWorker] = []

    def asked() -> bool:
        found[:] = client.workers()
        return len(found) >= count

    wait_until(asked)
    return found


def test_the_census(application: Application, service: StartService) -> None:
    service("cat", options=["--name", "b", "-j", "3", "--label", "colour=red"])
    service("cat", options=["--name", "a", "-j", "1"])
    with Client(application.public) as client:
        first, second = census(client, 2)
    assert isinstance(first, ClusterWorker)
    assert (first.name, first.slots, second.name) == ("a", 1, "b")
    assert (second.slots, second.running, second.labels) == (3, 0, {"colour": "red"})
    assert second.attributes["colour"] == "red" and float(second.attributes["cpus"]) > 0
    assert len(second.instance) == 16 and second.instance != first.instance
    assert (second.health, abs(second.skew) < 60, second.version != "") == ("ok", True, True)


def test_no_workers(application: Application) -> None:
    async def scene() -> list[ClusterWorker]:
        async with AsyncClient(application.public) as client:
            return await client.workers()

    assert run(scene()) == []


async def expect(changes: AsyncIterator[ClusterChange], kind: str) -> ClusterChange:
    """Returns the next change, which is of this kind; other complaints are passed over."""
    while True:
        change = await asyncio.wait_for(anext(changes), 60)
        if change.kind == kind:
            return change
        assert change.kind == "complaint", change


def test_who_joins_leaves_and_is_complained_about(application: Application, service: StartService) -> None:
    service("sh", "-c", options=["--name", "first", *ALLOW])

    async def scene() -> None:
        async with AsyncClient(application.public) as client:
            changes = client.watch()
            there = await expect(changes, "joined")
            assert (there.worker, there.text) == ("first", "")
            assert there.info is not None and there.info.slots == 4
            second = await asyncio.to_thread(lambda: service("cat", options=["--name", "second"]))
            assert (await expect(changes, "joined")).worker == "second"
            second.signal(15)
            gone = await expect(changes, "left")
            assert gone.worker == "second" and gone.info is not None
            lost = asyncio.create_task(client.run(args=["kill -9 $PPID; sleep 60"], retries=0))
            complaint = await expect(changes, "complaint")
            assert (complaint.worker, complaint.info is not None) == ("first", True)
            assert "disconnected, says " in complaint.text
            with pytest.raises(DisconnectedError, match="retries is 0"):
                await lost
            await changes.aclose()  # type: ignore[attr-defined]

    run(scene())


def test_a_blocking_client_follows_until_it_is_closed(application: Application, service: StartService) -> None:
    service("cat", options=["--name", "only"])
    client = Client(application.public)
    changes = client.watch()
    assert next(changes).worker == "only"
    threading.Timer(2.0, client.close).start()  # while the next one is waited for
    with pytest.raises(JobCancelledError, match="client has been closed"):
        next(changes)


def test_a_worker_that_is_revoked_says_so(tmp_path: Path, application: Application) -> None:
    service = Service(application, SHELL, ALLOW)
    try:
        Path(f"{application.secret}.revoked").write_text("damaged\n")
        with Client(application.public) as client:
            (worker,) = census(client, 1)
            assert worker.health.startswith("no certificate is accepted")
    finally:
        service.close()
