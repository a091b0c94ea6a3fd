"""Measures what it costs that done means on disk: the rate of short tasks with --state, without it, and with --no-sync.

    make bench BENCH=benchmarks/bench_sync.py

Each task copies a line: to standard output, or into a result file of its own.  The cases take turns.  The goal: with
--state, 90 % of the rate without it, where this disk's fdatasync takes at most 2 ms; that time is measured first, with
files that are new, as results are.
Environment: BENCH_ROUNDS (5), BENCH_TASKS (4,000), BENCH_DIRECTORY (where results and journal are; the temporary
directory).
"""

from __future__ import annotations

import os
import shutil
import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks.common import Workplace, goal, interleaved, rounds, table, timed

TASKS = int(os.environ.get("BENCH_TASKS", 4_000))
SLOTS = 8
SAMPLES = 50  # files that are brought to disk to measure it
FAST_DISK = 2.0  # ms of an fdatasync up to which the goal holds
LEAST_SHARE = 0.9
SHAPES = {"to standard output": False, "with a result file each": True}
PLAIN, STATE = "without --state", "with --state"
OPTIONS = {
    PLAIN: (False, True),
    STATE: (True, True),
    "with --state --no-sync": (True, False),
    "--no-sync": (False, False),
}


def sync_time(directory: Path) -> float:
    """Returns the median of an fdatasync of a new small file, in ms."""
    times = []
    for number in range(SAMPLES):
        fd = os.open(directory / f"sample{number}", os.O_WRONLY | os.O_CREAT, 0o600)
        os.write(fd, b"a line\n")
        began = time.perf_counter()
        os.fdatasync(fd)
        times.append(1000 * (time.perf_counter() - began))
        os.close(fd)
    return statistics.median(times)


def rate(place: Workplace, directory: Path, files: bool, state: bool, sync: bool) -> float:
    """Returns the tasks a second of one run, whose start-up counts."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    words = ["--stdout", f"{directory}/{{#}}"] if files else []
    words += ["--state", f"{directory}/state"] if state else []
    words += [] if sync else ["--no-sync"]
    argv = place.command("cmap", *words, "--array", f"1-{TASKS}", place.public)
    return TASKS / timed(argv, place.environment).seconds


def main() -> None:
    parent = os.environ.get("BENCH_DIRECTORY")
    with Workplace() as place, tempfile.TemporaryDirectory(prefix="cexec-bench-", dir=parent) as path:
        place.service("cat", options=["-j", str(SLOTS)])
        disk = sync_time(Path(path))
        print(f"fdatasync of a new file on this disk: {disk:.2f} ms")
        found = interleaved(
            {
                f"{name}, {shape}": partial(rate, place, Path(path) / "run", files, *options)
                for shape, files in SHAPES.items()
                for name, options in OPTIONS.items()
            },
            rounds(5),
        )
    for shape in SHAPES:
        best = found[f"{PLAIN}, {shape}"]
        rates = {name: found[f"{name}, {shape}"] for name in OPTIONS}
        told = {name: f"{value:7.0f} a second {value / best:7.1%}" for name, value in rates.items()}
        table(f"{TASKS} short tasks, {shape}, {SLOTS} slots", told)
        if disk <= FAST_DISK:
            goal("results on disk", f"{shape}, share of the rate", rates[STATE] / best, LEAST_SHARE, at_least=True)
        else:
            print(f"no goal: an fdatasync takes {disk:.2f} ms here, more than {FAST_DISK:g} ms")


if __name__ == "__main__":
    main()
