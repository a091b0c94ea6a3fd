"""One executor of concurrent.futures under the load of a benchmark; a program for `python_executor`.

    python executor_calls.py PEER [KEY]

Contract: PEER is cexec, processes, dask or loky; each has two slots.  Prints JSON: seconds until the first result of a
fresh executor, no-op calls a second, the median of a lone call on a held slot in seconds, and the seconds of a call
that takes and returns 100 MB.  The function is a builtin, which all of them send by name.
"""

from __future__ import annotations

import importlib
import json
import os
import statistics
import sys
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

SLOTS = 2
CALLS = int(os.environ.get("BENCH_CALLS", 10_000))
IN_FLIGHT = 1000
LONE = 300
LARGE = 100_000_000  # bytes
NOTHING: Callable[[int], int] = abs


def identity(value: Any) -> Any:
    return value


Made = tuple[Any, Callable[[], object]]  # an executor, and what ends it


def cexec_executor() -> Made:
    from cexec import Executor

    executor = Executor(sys.argv[2])
    return executor, executor.shutdown


def process_executor() -> Made:
    executor = ProcessPoolExecutor(SLOTS)
    return executor, executor.shutdown


def dask_executor() -> Made:
    distributed: Any = importlib.import_module("distributed")
    cluster = distributed.LocalCluster(SLOTS, threads_per_worker=1, processes=True, dashboard_address=None)
    client = distributed.Client(cluster)
    return client.get_executor(pure=False), client.shutdown


def loky_executor() -> Made:
    executor = importlib.import_module("loky").get_reusable_executor(max_workers=SLOTS)
    return executor, executor.shutdown


PEERS: dict[str, Callable[[], Made]] = {
    "cexec": cexec_executor,
    "processes": process_executor,
    "dask": dask_executor,
    "loky": loky_executor,
}


def first_result(make: Callable[[], Made]) -> tuple[Made, float]:
    began = time.perf_counter()
    executor, end = make()
    assert executor.submit(NOTHING, -1).result() == 1
    return (executor, end), time.perf_counter() - began


def rate(executor: Any) -> float:
    """Returns calls a second by `submit`, so many of which are in flight, without chunks."""
    running: deque[Future[int]] = deque()
    began = time.perf_counter()
    for number in range(CALLS):
        running.append(executor.submit(NOTHING, number))
        if len(running) >= IN_FLIGHT:
            running.popleft().result()
    while running:
        running.popleft().result()
    return CALLS / (time.perf_counter() - began)


def lone_call(executor: Any) -> float:
    times = []
    for number in range(LONE):
        began = time.perf_counter()
        executor.submit(NOTHING, number).result()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def large_call(executor: Any) -> float:
    value = np.ones(LARGE, np.uint8)
    executor.submit(identity, value[:10]).result()
    began = time.perf_counter()
    assert executor.submit(identity, value).result().nbytes == LARGE
    return time.perf_counter() - began


def main() -> None:
    (executor, end), first = first_result(PEERS[sys.argv[1]])
    rate(executor)  # all slots are there then
    found = {"first": first, "rate": rate(executor), "lone": lone_call(executor), "large": large_call(executor)}
    print(json.dumps(found), flush=True)
    end()


if __name__ == "__main__":
    main()
