"""The part of `bench_python.py` about the clients: their rate beside `cmap`, and the memory of many jobs in flight.

Contract: `measure()` prints its tables and goals.  All cases are whole commands, from their start to their end, with
the same worker and the same number of slots.  Environment: BENCH_ROUNDS (3), BENCH_JOBS (5,000 runs of true a round),
BENCH_SLOTS (2), BENCH_IN_FLIGHT (1,000 jobs at once, on 64 slots).
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from benchmarks.common import Unfit, Workplace, goal, interleaved, rounds, table, timed

JOBS = int(os.environ.get("BENCH_JOBS", 5000))
SLOTS = int(os.environ.get("BENCH_SLOTS", 2))
IN_FLIGHT = int(os.environ.get("BENCH_IN_FLIGHT", 1000))
MANY_SLOTS = 64
ASYNC_SHARE, BLOCKING_SHARE = 1.1, 1.2  # of the time of cmap that a map of the same jobs may take
MOST_MEMORY = 150.0  # MB of the client with all jobs in flight
PATIENCE = 120.0  # seconds

ASYNC = """
import asyncio, sys, cexec

async def main():
    async with cexec.AsyncClient(sys.argv[1]) as client:
        async for result in client.map(b"" for _ in range(int(sys.argv[2]))):
            assert result.returncode == 0

asyncio.run(main())
"""
BLOCKING = """
import sys, cexec

with cexec.Client(sys.argv[1]) as client:
    for result in client.map(b"" for _ in range(int(sys.argv[2]))):
        assert result.returncode == 0
"""
GATHER = """
import asyncio, resource, sys, cexec

async def main():
    async with cexec.AsyncClient(sys.argv[1]) as client:
        results = await asyncio.gather(*(client.run(bytes(1000)) for _ in range(int(sys.argv[2]))))
        assert all(len(result.stdout) == 1000 for result in results)

asyncio.run(main())
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def measure() -> None:
    """Measures the rates, and then the memory."""
    with Workplace() as place:
        place.service("/bin/true", options=["-j", str(SLOTS)])
        lines = place.directory / "lines"
        lines.write_text("".join(f"{number}\n" for number in range(JOBS)))

        def command(argv: list[str], stdin: Path | None = None) -> float:
            return timed(argv, place.environment, stdin=os.fspath(stdin) if stdin else os.devnull).seconds

        def program(code: str) -> float:
            return command([sys.executable, "-c", code, os.fspath(place.public), str(JOBS)])

        found = interleaved(
            {
                "cmap": lambda: command(place.command("cmap", "-n0", "--no-bar", place.public), lines),
                "AsyncClient.map": lambda: program(ASYNC),
                "Client.map": lambda: program(BLOCKING),
            },
            rounds(3),
        )
    rows = {name: f"{seconds:6.2f} s, {JOBS / seconds:5.0f} jobs a second" for name, seconds in found.items()}
    table(f"{JOBS} runs of true on {SLOTS} slots, whole commands", rows)
    for name, share in (("AsyncClient.map", ASYNC_SHARE), ("Client.map", BLOCKING_SHARE)):
        if "cmap" in found and name in found:
            goal("python", f"time of {name}, cmap's is 1", found[name] / found["cmap"], share)
    _measure_memory()


def _measure_memory() -> None:
    with Workplace() as place:
        place.service("sh", "-c", "sleep 0.2; exec cat", options=["-j", str(MANY_SLOTS)])
        argv = [sys.executable, "-c", GATHER, os.fspath(place.public), str(IN_FLIGHT)]
        result = subprocess.run(argv, env=place.environment, capture_output=True, text=True, timeout=PATIENCE)
    if result.returncode:
        raise Unfit(f"the client ended with status {result.returncode}: {result.stderr[-300:]}")
    memory = int(result.stdout) / 1024
    table(f"{IN_FLIGHT} jobs in flight on {MANY_SLOTS} slots", {"most memory of the client": f"{memory:.0f} MB"})
    goal("python", "memory of the client", memory, MOST_MEMORY, unit=" MB")
