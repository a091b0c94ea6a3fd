"""Orders for running `cmap`s: what is asked of them, and how their refusals are told.

A `cmap` is its journal here, with the socket on which one listens.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from cexec.cmap.control.answering import listening
from cexec.cmap.control.control_messages import ControlAction, ControlRefusal, ControlRequest, ControlStatus
from cexec.cmap.results.journal import Journal
from cexec.errors import CexecError, LocalError, NotAllowedError, SilentPeerError
from cexec.gate.access.caller import Caller, TokenRole
from cexec.gate.problem import Problem
from cexec.gate.runs import run_desk
from cexec.gate.runs.run_desk import MOST_ASKED, RunDesk
from tests.cmap.watch.journals import BEGUN, begin_task
from tests.python.clients import run

ADMIN = Caller("admin", TokenRole.ADMIN, None, 1, 100)
PAUSE = ControlRequest(ControlAction.PAUSE)


class Cmap:
    """Says of itself what it was told; with `refusal` it does nothing."""

    def __init__(self) -> None:
        self.paused, self.weight = False, 1
        self.tasks: tuple[int, ...] = ()
        self.refusal: ControlRefusal | None = None

    def answer(self, request: ControlRequest) -> ControlStatus | ControlRefusal:
        if self.refusal is not None:
            return self.refusal
        self.paused = {ControlAction.PAUSE: True, ControlAction.CONTINUE: False}.get(request.action, self.paused)
        self.weight = request.weight or self.weight
        return ControlStatus(1, self.paused, 0.0, False, self.weight, 0, 0, None, 0, 0, self.tasks)


@asynccontextmanager
async def desk_of(directory: Path, cmap: Cmap) -> AsyncIterator[tuple[RunDesk, str]]:
    """A desk, and the id of the run of this cmap, which has given three tasks to a worker."""
    desk = RunDesk([str(directory)])
    journal = Journal(str(directory / "run"), "new", now=BEGUN)
    for number in (1, 2, 3):
        begin_task(journal, number, at=BEGUN)
    journal.flush()
    try:
        async with listening(str(directory / "run"), cmap.answer):
            (found,) = (await desk.list_runs(ADMIN, 10, None))["runs"]
            yield desk, found["id"]
    finally:
        journal.close()
        desk.close()


def test_a_running_cmap_is_steered(tmp_path: Path) -> None:
    async def steer() -> None:
        async with desk_of(tmp_path, cmap := Cmap()) as (desk, id):
            told = await desk.control(ADMIN, id, PAUSE)
            assert (told["state"], told["weight"], told["eta"], cmap.paused) == ("paused", 1, None, True)
            told = await desk.control(ADMIN, id, ControlRequest(ControlAction.WEIGHT, 9))
            assert (told["state"], told["weight"], cmap.weight) == ("paused", 9, 9)
            told = await desk.control(ADMIN, id, ControlRequest(ControlAction.CONTINUE))
            assert (told["state"], cmap.paused) == ("running", False)

    run(steer())


def test_a_cmap_says_which_of_its_tasks_run(tmp_path: Path) -> None:
    """The others wait at workers, which were given them in advance."""

    async def look() -> None:
        async with desk_of(tmp_path, cmap := Cmap()) as (desk, id):
            cmap.tasks = (2,)
            (tmp_path / "run").touch()  # there is something new
            while (told := await desk.map(ADMIN, id, 1, None, None))["states"] != "wrw":
                assert told["states"] in ("3w", "wrw")
                await asyncio.sleep(0.05)

    run(look())


async def refusal(desk: RunDesk, id: str, caller: Caller = ADMIN) -> tuple[int, str]:
    with pytest.raises(Problem) as caught:
        await desk.control(caller, id, PAUSE)
    return caught.value.status, caught.value.detail


def test_what_a_cmap_refuses_is_told(tmp_path: Path) -> None:
    async def ask() -> None:
        async with desk_of(tmp_path, cmap := Cmap()) as (desk, id):
            cmap.refusal = ControlRefusal("the run is about to end")
            assert await refusal(desk, id) == (409, "cmap does not do that now: the run is about to end")
            cmap.refusal = ControlRefusal("it is not yours", denied=True)
            assert (await refusal(desk, id))[0] == 403
            for caller in (Caller("eyes", TokenRole.SUBMITTER, None, 2, 100),
                           Caller("narrow", TokenRole.ADMIN, frozenset({"app"}), 3, 100)):  # fmt: skip
                assert (await refusal(desk, id, caller))[0] == 403
            assert not cmap.paused

    run(ask())


@pytest.mark.parametrize(
    ("error", "status"), [(SilentPeerError, 503), (LocalError, 503), (CexecError, 503), (NotAllowedError, 403)]
)
def test_an_error_tells_no_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[CexecError], status: int
) -> None:
    def fail(path: str, request: ControlRequest, timeout: float) -> Any:
        raise error(f"cannot ask {path}")

    monkeypatch.setattr(run_desk, "ask", fail)

    async def ask() -> None:
        async with desk_of(tmp_path, Cmap()) as (desk, id):
            found, detail = await refusal(desk, id)
            assert found == status and str(tmp_path) not in detail

    run(ask())


def test_not_everybody_can_wait_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs whose `cmap` is stopped keep threads and questions; the next one is told so at once."""

    async def ask() -> None:
        hanging = asyncio.Event()
        loop = asyncio.get_running_loop()

        def hang(path: str, request: ControlRequest, timeout: float) -> Any:
            asyncio.run_coroutine_threadsafe(hanging.wait(), loop).result()
            raise SilentPeerError

        monkeypatch.setattr(run_desk, "ask", hang)
        async with desk_of(tmp_path, Cmap()) as (desk, id):
            asked = [asyncio.create_task(refusal(desk, id)) for _ in range(MOST_ASKED + 5)]
            ended = asyncio.as_completed(asked)
            for _ in range(5):
                assert "too many" in (await next(ended))[1]
            hanging.set()
            assert [detail for _, detail in await asyncio.gather(*asked) if "too many" not in detail] == [
                "cmap has not answered within 5 seconds; is it stopped?"
            ] * MOST_ASKED

    run(ask())
