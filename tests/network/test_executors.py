"""Executors on real hosts: workers that are killed or join, and slots that several clients share."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from tests.conftest import MakeLab, StartService
from tests.environment import clean_environment, command
from tests.lab import Host
from tests.python.pools import PROGRAM
from tests.service import Application, Service
from tests.waiting import PATIENCE, wait_until

SLOTS = 2  # of each worker
KILL_EVERY = 1.0  # seconds
RUNTIME = 3  # the column of a joblog with the seconds of a task
LONG = 30.0  # seconds for which clients share a slot in a campaign
SHORT_CALL, LONG_CALL = 0.02, 0.2  # seconds

# Squares numbers on all workers; prints how many results were right, and on how many workers calls have run.
SQUARES = """
import os, socket, sys, time
from cexec import Executor
def square(n):
    time.sleep(float(sys.argv[3]))
    return n * n
calls, took = int(sys.argv[2]), float(sys.argv[3])
def square(n, took=took):
    time.sleep(took)
    return n * n, os.getppid()
with Executor(sys.argv[1], retries=20) as executor:
    print("begun", flush=True)
    results = list(executor.map(square, range(calls), buffersize=500))
    right = sum(found == n * n for n, (found, _) in enumerate(results))
    print(len(results), right, len({keeper for _, keeper in results}))
"""

# Calls a function that sleeps, until it is told to stop; prints the seconds that calls have taken at the worker.
SHARES = """
import json, sys, threading, time
from cexec import Executor
def nap(seconds):
    began = time.monotonic()
    time.sleep(seconds)
    return began, time.monotonic()
stop = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
times = []
with Executor(sys.argv[1], weight=int(sys.argv[3])) as executor:
    while not stop.is_set():
        for one in executor.map(nap, [float(sys.argv[2])] * 4):
            if not times:
                print("begun", flush=True)
            times.append(one)
print(json.dumps(times))
"""


class Caller:
    """A program that uses an executor, on a host."""

    def __init__(self, host: Host, code: str, *arguments: object) -> None:
        argv = [sys.executable, "-c", code, *map(str, arguments)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = host.popen(argv, env=clean_environment(), **pipes)

    def wait_for_line(self) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "begun\n"

    def stop(self, timeout: float = PATIENCE) -> str:
        out, _ = self.process.communicate(timeout=timeout)
        assert self.process.returncode == 0
        return str(out)

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def callers() -> Iterator[ExitStack]:
    """Ends programs whose test has failed."""
    with ExitStack() as stack:
        yield stack


def call(callers: ExitStack, host: Host, code: str, *arguments: object) -> Caller:
    caller = Caller(host, code, *arguments)
    callers.callback(caller.kill)
    return caller


def runs_calls(process: psutil.Process) -> bool:
    """Whether it is a keeper or a runner."""
    try:
        return process.cmdline() == list(PROGRAM)
    except psutil.NoSuchProcess:
        return False


class Killer:
    """Kills a keeper or a runner of one worker after the other."""

    def __init__(self, services: list[Service]) -> None:
        self.killed = 0
        self._services = services
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._over.wait(KILL_EVERY):
            service = self._services[self.killed % len(self._services)]
            for process in service.started():
                try:
                    if process.cmdline() == list(PROGRAM):
                        process.kill()
                        self.killed += 1
                        break
                except psutil.NoSuchProcess:
                    continue

    def stop(self) -> None:
        self._over.set()
        self._thread.join()


@pytest.mark.parametrize(
    ("calls", "took"), [(1000, 0.02), pytest.param(10_000, 0.01, marks=pytest.mark.campaign)], ids=str
)
def test_each_call_has_one_result_while_processes_are_killed(
    application: Application, lab: MakeLab, service: StartService, callers: ExitStack, calls: int, took: float
) -> None:
    made = lab(5)
    services = [service(*PROGRAM, options=["-j", str(SLOTS)], host=made.host(n)) for n in range(1, 5)]
    caller = call(callers, made.host(5), SQUARES, application.public, calls, took)
    caller.wait_for_line()
    killer = Killer(services)
    try:
        results, right, _ = map(int, caller.stop(200).split())
    finally:
        killer.stop()
    assert killer.killed
    assert (results, right) == (calls, calls)


def test_calls_survive_a_worker_that_is_gone_and_use_one_that_comes(
    application: Application, lab: MakeLab, service: StartService, callers: ExitStack
) -> None:
    made = lab(3)
    first = Service(application, PROGRAM, ("-j", "1"), made.host(1))
    caller = call(callers, made.host(3), SQUARES, application.public, 500, 0.01)
    caller.wait_for_line()
    wait_until(lambda: any(map(runs_calls, first.started())))
    service(*PROGRAM, options=["-j", "2"], host=made.host(2))
    first.kill()
    results, right, _ = map(int, caller.stop().split())
    assert (results, right) == (500, 500)


def share(times: list[list[float]], begin: float, end: float) -> float:
    """Returns the seconds of calls between two moments."""
    return sum(max(0.0, min(b, end) - max(a, begin)) for a, b in times)


@pytest.mark.campaign
@pytest.mark.parametrize(("weight", "seconds"), [(1, LONG), (3, 3 * LONG)])
def test_two_executors_share_a_slot_by_weight(
    application: Application, lab: MakeLab, service: StartService, callers: ExitStack, weight: int, seconds: float
) -> None:
    made = lab(3)
    service(*PROGRAM, options=["-j", "1"], host=made.host(1))
    weights = {2: weight, 3: 1}
    both = [call(callers, made.host(n), SHARES, application.public, SHORT_CALL, weights[n]) for n in weights]
    for caller in both:
        caller.wait_for_line()
    began = time.monotonic()
    time.sleep(seconds)
    ended = time.monotonic()
    first, second = (share(json.loads(caller.stop()), began, ended) for caller in both)
    fair = weight / (weight + 1)
    # Weights let chance have its way: of some 40 turns each is drawn.  Equal weights even out what was drawn.
    tolerance = 0.05 if weight == 1 else 0.2
    assert abs(first / (first + second) - fair) < tolerance, (first, second)
    assert first + second > 0.5 * seconds


def test_an_executor_lets_another_one_have_its_turn(
    application: Application, lab: MakeLab, service: StartService, callers: ExitStack
) -> None:
    made = lab(3)
    service(*PROGRAM, options=["-j", "1"], host=made.host(1))
    first = call(callers, made.host(2), SHARES, application.public, SHORT_CALL, 1)
    first.wait_for_line()
    second = call(callers, made.host(3), SHARES, application.public, SHORT_CALL, 1)
    second.wait_for_line()
    assert json.loads(second.stop())
    assert json.loads(first.stop())


# Runs a call, or what `cmap` asks for: so both share one service.
EITHER = 'if [ $# -gt 0 ]; then sleep "$1"; else exec "$0" -m cexec.pool; fi'


@pytest.mark.campaign
def test_an_executor_and_cmap_share_a_slot_equally(
    application: Application, lab: MakeLab, service: StartService, callers: ExitStack, tmp_path: Path
) -> None:
    made = lab(3)
    service("sh", "-c", EITHER, sys.executable, options=["-j", "1", "--allow-args"], host=made.host(1))
    executor = call(callers, made.host(2), SHARES, application.public, LONG_CALL, 1)
    executor.wait_for_line()
    inputs = [str(LONG_CALL)] * 5000
    argv = command("cmap", application.public, "--joblog", tmp_path / "log", "--", "{}", ":::", *inputs)
    with made.host(3).popen(argv, env=clean_environment(), stderr=subprocess.DEVNULL) as cmap:
        callers.callback(cmap.kill)
        wait_until(lambda: (tmp_path / "log").exists() and len(tasks(tmp_path / "log")) >= 1)
        before, began = len(tasks(tmp_path / "log")), time.monotonic()
        time.sleep(5 * LONG)  # both hold it for turns of up to two seconds, and chance draws them
        ran, ended = tasks(tmp_path / "log")[before:], time.monotonic()
        cmap.kill()
    ours = share(json.loads(executor.stop()), began, ended)
    theirs = sum(float(task.split("\t")[RUNTIME]) for task in ran)
    assert 0.45 < ours / (ours + theirs) < 0.55, (ours, theirs)


def tasks(log: Path) -> list[str]:
    """Returns the lines of a joblog, one for each task that has ended."""
    return log.read_text().splitlines()[1:]
