"""One attempt as it is carried out: when it ends, and when it is cancelled."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import pytest

from cexec.cmap.run.ending import AttemptEnding, How
from cexec.cmap.run.task_attempt import AttemptState
from cexec.cmap.run.task_run import TaskRun

TERM, KILL = 15, 9
SEQUENCE = [(TERM, 0.01), (TERM, 0.01), (KILL, 0.01)]


class Lease:
    """Notes the signals that it is to pass on."""

    def __init__(self) -> None:
        self.signals: list[int] = []

        self.concludes = False

    def signal(self, number: int, job: object) -> None:
        self.signals.append(number)

    def conclude(self, job: object) -> bool:
        return self.concludes


def carried_out(lease: Lease) -> Any:
    nothing: Any = None
    files: Any = SimpleNamespace(outputs={})
    attempt: Any = SimpleNamespace(waits=False, state=AttemptState.RUNNING)
    run = TaskRun(attempt, nothing, files, nothing)
    run.job = SimpleNamespace()  # type: ignore[assignment]
    run.lease = lease  # type: ignore[assignment]
    return run


def test_a_clock_that_is_set_back_changes_no_duration(monkeypatch: pytest.MonkeyPatch) -> None:
    """Regression: JobRuntime was -3596.9 after the clock had been set back by an hour."""
    begun = time.time()
    run = carried_out(Lease())
    run.task, run.running = SimpleNamespace(number=1), SimpleNamespace(worker=SimpleNamespace(name="w"))
    monkeypatch.setattr(time, "time", lambda: begun - 3600.0)
    outcome = run.outcome(AttemptEnding(How.SUCCEEDED), "", lambda: "")
    assert 0.0 <= outcome.runtime < 60.0
    assert outcome.started >= begun


def test_a_cancel_that_comes_after_the_end_does_not_reach_the_next_task_of_the_lease() -> None:
    """Regression: both attempts of a task ended in one moment; the cancel of the slower one hit what ran after it."""
    lease = Lease()

    async def play() -> bool:
        run = carried_out(lease)
        run.owner = asyncio.create_task(asyncio.sleep(0.1))  # which carries the next task by now
        cancelling = asyncio.create_task(run.cancel(SEQUENCE))
        run.end()  # before the cancel has begun
        await cancelling
        await run.owner
        return bool(run.owner.cancelled())

    assert asyncio.run(play()) is False
    assert lease.signals == []


def test_a_program_whose_end_has_come_meanwhile_is_not_hung_up_on() -> None:
    lease = Lease()
    lease.concludes = True

    async def play() -> None:
        run = carried_out(lease)
        run.owner = asyncio.create_task(asyncio.sleep(0.1))
        await run.cancel(SEQUENCE)
        await run.owner
        assert not run.cancelled

    asyncio.run(play())
    assert lease.signals == [TERM, TERM, KILL]


def test_a_program_that_does_not_listen_loses_its_connection() -> None:
    lease = Lease()

    async def play() -> bool:
        run = carried_out(lease)
        run.owner = asyncio.create_task(asyncio.sleep(60))
        await run.cancel(SEQUENCE)
        await asyncio.wait([run.owner])
        return bool(run.owner.cancelled() and run.cancelled)

    assert asyncio.run(play()) is True
    assert lease.signals == [TERM, TERM, KILL]
