"""What a run is asked through the socket beside its journal, and what it says of itself; with the real coordinator."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cexec.client.aio.lease_job import LeaseJob
from cexec.cmap.control.asking import ask
from cexec.cmap.control.control_messages import ControlAction, ControlRefusal, ControlRequest, ControlStatus
from cexec.cmap.control.control_place import control_path
from cexec.cmap.run.coordinator import Coordinator
from cexec.cmap.steering import Steering, steered
from cexec.protocol.connection.frames import Exit, Go
from tests.cmap.fakes import FakeLease, Workers, exited
from tests.cmap.run.test_coordinator import Run

STATUS, PAUSE, CONTINUE = (
    ControlRequest(action) for action in (ControlAction.STATUS, ControlAction.PAUSE, ControlAction.CONTINUE)
)
LONG = 10.0  # seconds of a task


@pytest.fixture(autouse=True)
def _directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


async def long(lease: FakeLease, job: LeaseJob, go: Go) -> Exit:
    await asyncio.sleep(LONG)
    return exited()


def steered_run(play: Callable[[Steering, Coordinator], object]) -> list[str]:
    """Plays while tasks run on four slots; returns what the person at the terminal was told."""
    told: list[str] = []

    async def between(run: Run, coordinator: Coordinator) -> None:
        await asyncio.sleep(LONG / 2)
        coroutine = play(Steering("a journal", coordinator, told.append), coordinator)
        if asyncio.iscoroutine(coroutine):
            await coroutine

    run = Run(Workers(long), 9)
    assert run(between) == 0
    assert len(run.outcomes) == 9 or run.coordinator.progress.halted
    return told


def status_of(steering: Steering, request: ControlRequest = STATUS) -> ControlStatus:
    found = steering.answer(request)
    assert isinstance(found, ControlStatus)
    return found


def test_how_a_run_stands() -> None:
    def play(steering: Steering, coordinator: Coordinator) -> None:
        assert status_of(steering) == ControlStatus(
            pid=os.getpid(), paused=False, paused_seconds=0.0, ending=False, weight=1, running=4, given=0, waiting=5,
            leases=4, workers=2, tasks=(1, 2, 3, 4),
        )  # fmt: skip

    assert steered_run(play) == []


def test_each_change_is_followed_and_told_once() -> None:
    async def play(steering: Steering, coordinator: Coordinator) -> None:
        for _ in range(2):
            found = status_of(steering, PAUSE)
            assert found.paused and found.running == 4
        await asyncio.sleep(LONG)
        found = status_of(steering)
        assert (found.paused, found.running, found.leases, found.workers, found.waiting) == (True, 0, 0, 0, 5)
        assert found.paused_seconds == pytest.approx(LONG, abs=0.1)
        for _ in range(2):
            assert steering.answer(ControlRequest(ControlAction.WEIGHT, 7)) == status_of(steering)
            assert status_of(steering).weight == 7 and status_of(steering).paused
        for _ in range(2):
            found = status_of(steering, CONTINUE)
            assert not found.paused and found.paused_seconds == 0.0

    told = steered_run(play)
    assert told == ["paused; cmap continue 'a journal' lets it go on", "has the weight 7 now", "goes on"]


@pytest.mark.parametrize("request_", [PAUSE, CONTINUE, ControlRequest(ControlAction.WEIGHT, 2)])
def test_a_run_that_is_about_to_end_is_not_steered(request_: ControlRequest) -> None:
    def play(steering: Steering, coordinator: Coordinator) -> None:
        coordinator.stop(end_running=False)
        assert status_of(steering).ending
        reply = steering.answer(request_)
        assert isinstance(reply, ControlRefusal) and "about to end" in reply.reason and not reply.denied

    assert steered_run(play) == []


def test_a_run_listens_beside_its_journal_or_goes_on_without(tmp_path: Path) -> None:
    journal = os.fspath(tmp_path / "journal")
    Path(journal).touch()
    told: list[str] = []

    async def between(run: Run, coordinator: Coordinator) -> None:
        async with steered(journal, coordinator, told.append):
            asked = asyncio.get_running_loop().run_in_executor(None, ask, journal, STATUS)
            while not asked.done():
                await asyncio.sleep(0)
            assert (await asked).pid == os.getpid()
        assert not os.path.exists(control_path(journal))
        Path(control_path(journal)).touch()
        async with steered(journal, coordinator, told.append):
            pass

    assert Run(Workers(long), 4)(between) == 0
    (line,) = told
    assert line.endswith("is no socket of this user; cmap pause, continue and weight cannot be used with this run")
