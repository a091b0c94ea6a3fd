"""Tasks of cmap that take their workers with them, on workers that are started again each time."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

import pytest

from tests.campaigns import cmap
from tests.environment import local_environment
from tests.service import Application, Service
from tests.waiting import PATIENCE

PROGRAM = """
case $1 in
poison*) sleep 0.2; read -r _ _ _ worker _ < /proc/$PPID/stat; kill -9 $worker; sleep 60 ;;
crash*) sleep 0.2; kill -9 $PPID; sleep 60 ;;
*) sleep 1.5; echo $1 ;;
esac
"""
LATE = 10.0  # seconds that a poison task may go on after all others


class Reborn:
    """A worker that is started again as soon as it dies; a context manager.  `lives` counts its starts."""

    def __init__(self, application: Application, name: str, slots: int = 4) -> None:
        options = ["--allow-args", "--speed", "1", "--name", name, "-j", str(slots)]
        self._start: Callable[[], Service] = lambda: Service(application, ["sh", "-c", PROGRAM, "sh"], options)
        self._service = self._start()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.lives = 1

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._service.kill()
        self._thread.join(PATIENCE)

    def _run(self) -> None:
        while not self._done.is_set():
            self._service.process.wait()
            self._service.kill()  # what it has left
            if not self._done.is_set():
                self._service = self._start()
                self.lives += 1
        self._service.kill()


def run(application: Application, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        cmap(application, *words), env=local_environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=2 * PATIENCE,
    )  # fmt: skip


@pytest.mark.parametrize("poison", ["poison", "crash"])
def test_one_worker_with_four_slots_loses_the_poison_task_only(application: Application, poison: str) -> None:
    """Regression: all four tasks had failed, because "5 workers were lost while it ran"."""
    with Reborn(application, "a") as worker:
        done = run(application, "--", "{}", ":::", poison, "in1", "in2", "in3")
    assert (done.returncode, sorted(done.stdout.split())) == (1, ["in1", "in2", "in3"]), done.stderr
    assert f"task 1 ({poison}) failed" in done.stderr and "5 workers were lost while it ran alone" in done.stderr
    assert done.stderr.count("failed") == 1
    # It ran twice beside the others, then alone five times; an eighth life may have begun since.
    assert worker.lives in ((1,) if poison == "crash" else (7, 8))


@pytest.mark.campaign  # it measures seconds; tests/cmap/run/test_coordinator.py does so with a clock of its own
@pytest.mark.parametrize("poison", ["poison", "crash"])
def test_two_workers_end_the_last_poison_task_soon(application: Application, poison: str, tmp_path: Path) -> None:
    """Regression: each loss made the worker rest for the sake of the other one, 44 s in all."""
    tasks = [f"in{number}" for number in range(16)]
    with Reborn(application, "a"), Reborn(application, "b"):
        done = run(application, "--joblog", str(tmp_path / "log"), "--", "{}", ":::", *tasks, poison)
        ended = time.time()
    assert (done.returncode, sorted(done.stdout.split())) == (1, sorted(tasks)), done.stderr
    rows = [line.split("\t") for line in (tmp_path / "log").read_text().splitlines()[1:]]
    others = max(float(start) + float(runtime) for number, _, start, runtime, *_ in rows if number != "17")
    assert ended - others < LATE
