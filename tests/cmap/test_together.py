"""All of cmap but the network: a table of tasks over workers that fail and vanish, killed again and again and resumed.

The run is that of `cmap --params p.csv --stdout 'out/{id}.txt' --state state --joblog log --results r.csv` and so on:
the real coordinator and the real set-up, in a process of its own, which SIGKILL ends where a test wants it.
"""

from __future__ import annotations

import csv
import io
import os
import random
import signal
import sys
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from cexec.client.aio.lease_job import LeaseJob
from cexec.cmap.inputs.file_names import PREFIX
from cexec.cmap.inputs.sources import RANDOM
from cexec.cmap.run.coordinator import Coordinator
from cexec.cmap.run.observer import Observer
from cexec.cmap.run_options import Options
from cexec.cmap.setup import Setup
from cexec.errors import DisconnectedError
from cexec.protocol.connection.frames import Exit, Go
from tests.cmap.fakes import FakeLease, Workers, clock, exited, in_virtual_time, read_input, terms

ROWS = 100
FAILS = 13  # the row whose program always fails
KILLED = -signal.SIGKILL
KILLS = 3  # at least


class Killer(Observer):
    """Kills the process: so many tasks are saved, then so many more events of any kind come."""

    def __init__(self, saved: int, events: int) -> None:
        self._saved = saved
        self._events = events

    def began(self, *_: object) -> None:
        self._count()

    def ended(self, *_: object) -> None:
        self._count()

    def settled(self, *_: object) -> None:
        self._saved -= 1
        self._count()

    def _count(self) -> None:
        if self._saved <= 0:
            self._events -= 1
            if self._events < 0:
                os.kill(os.getpid(), signal.SIGKILL)


def run(mode: str, seed: int, killer: Killer | None = None) -> int:
    """One call of cmap in a child; its exit status, KILLED if it was killed."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        os._exit(_call(mode, seed, killer))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(99)


def _call(mode: str, seed: int, killer: Killer | None) -> int:
    os.dup2(os.open("collected", os.O_WRONLY | os.O_APPEND | os.O_CREAT), 1)
    modes: dict[str, Any] = {mode: True} if mode else {}
    options = Options(
        params="p.csv", stdin_text="{text}", stdout="out/{id}.txt", order=RANDOM, validate="grep -q right stdout",
        retries=3, crash_limit=0, state="state", joblog="log", results="r.csv", collect="blocks", **modes,
    )  # fmt: skip
    randomness = random.Random(seed)

    async def program(lease: FakeLease, job: LeaseJob, go: Go) -> Exit:
        """The first attempt of some rows is wrong; one row always fails; any worker may vanish."""
        number = int(job.arguments[0][1:])
        text = read_input(job)
        if randomness.random() < 0.2:
            raise DisconnectedError("disconnected unexpectedly")
        job.sinks[1].write(memoryview((b"wrong" if number % 10 == 2 and go.attempt == 1 else b"right ") + text))
        return exited(4 if number == FAILS else 0)

    setup = Setup(
        options, application="app.pub", key="app.pub", fingerprint="f",
        arguments=["{id}"], inputs=[], stdin=io.BytesIO()
    )  # fmt: skip
    setup.open()

    async def coordinate() -> int:
        parts = setup.parts(terms(), [] if killer is None else [killer], lambda text: None)
        parts.find_worker, parts.clock = Workers(program, "abcd").find_worker, clock
        return await Coordinator(parts).run()

    status = in_virtual_time(coordinate())
    setup.close()
    return status


@pytest.fixture(autouse=True)
def _table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("p.csv").write_text("id,text\n" + "".join(f'x{number},"text, {number}"\n' for number in range(1, ROWS + 1)))
    Path("out").mkdir()


def check_everything(failures: int) -> None:
    """Every row's result is there once, in every form."""
    others = [number for number in range(1, ROWS + 1) if number != FAILS]
    files = {path.name: path.read_text() for path in Path("out").iterdir()}
    assert files == {f"x{number}.txt": f"right text, {number}" for number in others}
    lines = [line.split("\t") for line in Path("log").read_text().splitlines()[1:]]
    assert Counter(line[0] for line in lines if line[6] == "0") == Counter(map(str, others))
    assert [line[0] for line in lines if line[6] != "0"] == [str(FAILS)] * failures
    rows = list(csv.DictReader(io.StringIO(Path("r.csv").read_text())))
    assert sorted(row["Stdout"] for row in rows if row["Exitval"] == "0") == sorted(files.values())
    blocks = Path("collected").read_text()
    heads = "".join(f"# row {n}: id=x{n} text='text, {n}'\nright text, {n}" for n in others)
    assert blocks == heads
    assert not [path for path in Path("out").iterdir() if path.name.startswith(PREFIX)]


def test_a_run_without_interruption() -> None:
    assert run("", seed=1) == 1
    check_everything(failures=1)


@pytest.mark.parametrize("seed", range(4))
def test_a_run_that_is_killed_again_and_again(seed: int) -> None:
    randomness = random.Random(seed)
    mode, kills = "", 0
    # Tasks are saved in groups: the first kills come before much is saved, the others whenever something has been.
    killers = [Killer(0, randomness.randint(15, 50)) for _ in range(KILLS)]
    while True:
        killer = killers.pop() if killers else Killer(randomness.randint(1, 5), randomness.randint(0, 9))
        if (status := run(mode, seed + 100 * kills, killer)) >= 0:
            break
        assert status == KILLED
        mode, kills = "resume", kills + 1
    assert status in (0, 1)  # 0 if the row that fails did so before the last kill
    assert kills >= KILLS
    check_everything(failures=1)


def test_failed_tasks_are_tried_again_when_that_is_wanted() -> None:
    run("", seed=2)
    assert run("resume", seed=3) == 0
    check_everything(failures=1)
    assert run("resume_failed", seed=3) == 1
    check_everything(failures=2)
