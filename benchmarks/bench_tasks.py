"""Measures the time of `cmap` with a million rows until the first task runs, and the memory of a waiting task.

    make bench BENCH=benchmarks/bench_tasks.py

The time is that of the whole command with a real worker, from its start until the program of the first task has been
started.  The memory is read then: the most that the command ever had, and the difference to the same command with ten
rows.  The goals are 5 seconds, 500 MB in all, and 400 bytes a task.  Rows are about 30 bytes long.
Environment: BENCH_ROUNDS (1), BENCH_ROWS (1,000,000, a square number).
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks.common import Unfit, Workplace, goal, rounds, smaps, table

ROWS = int(os.environ.get("BENCH_ROWS", 1_000_000))
FEW = 9  # rows, for comparison; a square number too
MOST_SECONDS = 5.0
MOST_MEMORY = 500.0  # MB of the whole process
MOST_BYTES = 400.0  # of memory for each waiting task
PATIENCE = 60.0  # seconds
PROGRAM = 'cat >/dev/null; : > "$0"; exec sleep 1000'  # reports its start, and keeps running


class Start:
    """The figures of one call until its first task ran: seconds, most bytes, and its own bytes at that moment."""

    def __init__(self, seconds: float, peak: int, private: int) -> None:
        self.seconds = seconds
        self.peak = peak
        self.private = private


def lines(rows: int) -> bytes:
    return b"".join(b"an input of thirty bytes %05d\n" % (number % 100_000) for number in range(rows))


def csv(rows: int) -> bytes:
    return b"id,name,value\n" + b"".join(b"%07d,abcdefgh,12345678901\n" % number for number in range(rows))


def json_lines(rows: int) -> bytes:
    return b"".join(b'{"id": %7d, "name": "abc"}\n' % number for number in range(rows))


def nothing(rows: int) -> bytes:
    return b""


def product(rows: int) -> list[str]:
    words = [str(number) for number in range(math.isqrt(rows))]
    return ["--", "{1}", "{2}", ":::", *words, ":::", *words]


# Standard input, and the rest of the command line, both by the number of rows.
CASES: dict[str, tuple[Callable[[int], bytes], Callable[[int], Sequence[str]]]] = {
    "lines, each a job's standard input": (lines, lambda rows: []),
    "lines as arguments, random order": (lines, lambda rows: ["--order", "random", "--", "{}"]),
    "CSV, a result file for each row": (csv, lambda rows: ["--params", "-", "--stdout", "{#}.out", "--", "{id}"]),
    "JSON lines": (json_lines, lambda rows: ["--params", "-", "--", "{id}"]),
    "--array": (nothing, lambda rows: ["--array", f"1-{rows}", "--", "{}"]),
    "::: times :::": (nothing, product),
}


def start(place: Workplace, name: str, rows: int) -> Start:
    make, rest = CASES[name]
    marker, inputs = place.directory / "started", place.directory / "inputs"
    marker.unlink(missing_ok=True)
    inputs.write_bytes(make(rows))
    argv = place.command("cmap", place.public, *rest(rows))
    with open(inputs, "rb") as stdin, open(place.directory / "told", "w+") as told:
        began = time.perf_counter()
        process = subprocess.Popen(
            argv, env=place.environment, cwd=place.directory, stdin=stdin, stdout=subprocess.DEVNULL, stderr=told
        )
        try:
            while not marker.exists():
                if process.poll() is not None or time.perf_counter() - began > PATIENCE:
                    told.seek(0)
                    raise Unfit(f"{name}: cmap did not start a task: {told.read().strip()[-300:]}")
                time.sleep(0.005)
            seconds = time.perf_counter() - began
            return Start(seconds, highest(process.pid), smaps(process.pid)[1])
        finally:
            process.kill()
            process.wait()


def highest(pid: int) -> int:
    """Returns the most resident bytes that a process ever had."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def main() -> None:
    seconds: dict[str, float] = {}
    memory: dict[str, float] = {}
    size: dict[str, float] = {}
    with Workplace() as place:
        script = ["sh", "-c", PROGRAM, str(place.directory / "started")]
        place.service(*script, options=["--allow-args", "-j", "1"])
        for _ in range(rounds(1)):
            for name in CASES:
                few, many = start(place, name, FEW), start(place, name, ROWS)
                seconds[name] = max(seconds.get(name, 0.0), many.seconds)
                memory[name] = max(memory.get(name, 0.0), many.peak / 1e6)
                size[name] = max(size.get(name, 0.0), (many.private - few.private) / ROWS)
    rows = {name: f"{seconds[name]:6.2f} s {size[name]:6.0f} bytes a task {memory[name]:6.0f} MB" for name in CASES}
    table(f"{ROWS} rows until the first task runs (the worst of {rounds(1)})", rows)
    goal("tasks", "seconds until the first task runs", max(seconds.values()), MOST_SECONDS)
    goal("tasks", "MB of memory at most", max(memory.values()), MOST_MEMORY)
    goal("tasks", "bytes a waiting task", max(size.values()), MOST_BYTES)


if __name__ == "__main__":
    main()
