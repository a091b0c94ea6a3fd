"""Many real workers on one machine: all are found, and a client is not overrun.

The exact numbers of goal P6 are those of benchmarks/simulate_race.py: here all share a few CPUs, so times say little.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from statistics import median
from typing import Any

import psutil
import pytest

from tests.environment import command, local_environment
from tests.needs import require_isolation
from tests.service import Application
from tests.waiting import comes_true

MOST = 200  # workers
MEMORY = 40 * 1024 * 1024  # bytes for each
PACE = 8  # workers that are started in a second: each hears the HELLO of all others


@pytest.fixture
def workers(application: Application) -> Iterator[int]:
    """How many run."""
    require_isolation()
    count = min(MOST, psutil.virtual_memory().available // MEMORY)
    processes = []
    try:
        for number in range(count):
            argv = command("cservice", "-j", "1", "--speed", "1", "--name", f"n{number}", application.secret, "true")
            quiet: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            processes.append(subprocess.Popen(argv, env=local_environment(), **quiet))
            time.sleep(1 / PACE)  # PACE says why
        yield count
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(60)


def census(application: Application) -> tuple[int, float]:
    """How many answered, and how long it took."""
    start = time.monotonic()
    argv = command("cps", "--json", application.public)
    result = subprocess.run(argv, env=local_environment(), capture_output=True, text=True, timeout=60)
    return len({json.loads(line)["instance"] for line in result.stdout.splitlines()}), time.monotonic() - start


@pytest.mark.campaign
@pytest.mark.timeout(400)
def test_many_workers_are_all_found_and_few_connect(workers: int, application: Application) -> None:
    comes_true(lambda: census(application)[0] == workers, 90, pause=2)  # the last ones are still starting
    found = census(application)
    times = [found[1], *(census(application)[1] for _ in range(4))]
    connections = []
    for _ in range(20):
        result = application.run("-n", "--explain", timeout=60)
        assert result.returncode == 0, result.stderr.decode()
        connections.append(result.stderr.decode().count("connection from"))
    print(
        f"{workers} workers; cps took {median(times):.2f} s; connections of 20 jobs, one after another: {connections}"
    )
    assert found[0] == workers
    assert median(connections[5:]) <= 5
