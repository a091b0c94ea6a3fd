"""How long a million rows take before the first task could start, and what a waiting task costs in memory.

Prints a table and exits with 1 if one of the goals is missed: 5 seconds, 500 MB in all, 400 bytes a task.  Each case
runs in a process of its own, so that none profits from what another has loaded.  Rows are about 30 bytes long.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from cexec.cmap.checks import check_rows
from cexec.cmap.plan import Plan, Work
from cexec.cmap.sources import Selection, table_from

if TYPE_CHECKING:
    from collections.abc import Callable

    from cexec.cmap.tables import Table

    Source = Callable[[], Table]

ROWS = 1_000_000
MOST_SECONDS = 5.0
MOST_MEMORY = 500_000_000  # bytes of the whole process
MOST_BYTES = 400  # of memory for each waiting task


def lines() -> Source:
    data = io.BytesIO(b"".join(b"an input of thirty bytes %05d\n" % (number % 100_000) for number in range(ROWS)))
    return lambda: table_from(stdin=data)


def csv() -> Source:
    return table(b"id,name,value\n", b"%07d,abcdefgh,12345678901\n")


def json_lines() -> Source:
    return table(b"", b'{"id": %7d, "name": "abc"}\n')


def table(head: bytes, row: bytes) -> Source:
    data = io.BytesIO(head + b"".join(row % number for number in range(ROWS)))
    return lambda: table_from(params="-", stdin=data)


def numbers() -> Source:
    return lambda: table_from(array_members=f"1-{ROWS}")


def product() -> Source:
    words = [str(number) for number in range(1000)]
    return lambda: table_from(inputs=[(":::", words), (":::", words)])


CASES: dict[str, tuple[Callable[[], Source], Work, str]] = {
    "lines, each a job's standard input": (lines, Work(), "linear"),
    "lines as arguments, random order": (lines, Work(arguments=["{}"]), "random"),
    "CSV, a result file for each row": (csv, Work(arguments=["--name", "{1}"], stdout="{#}.out"), "linear"),
    "JSON lines": (json_lines, Work(arguments=["{id}"]), "linear"),
    "--array": (numbers, Work(arguments=["{}"]), "linear"),
    "1,000 ::: times 1,000 :::": (product, Work(arguments=["{1}", "{2}"]), "linear"),
}


def measure(name: str) -> tuple[float, int, int]:
    """Seconds, bytes for each waiting task, bytes of the process; the data that is read is not counted."""
    make, work, order = CASES[name]
    read = make()
    before = resident()
    started = perf_counter()
    source = read()
    plan = Plan(work, source)
    selection = Selection(len(source), order=order)
    check_rows(plan, selection.ascending())
    first = plan.task(next(iter(selection)))
    seconds = perf_counter() - started
    assert len(selection) == ROWS and first.number
    after = resident()
    return seconds, max(0, after - before) // ROWS, after


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> int:
    missed = []
    print(f"{ROWS} rows                          seconds  bytes a task  megabytes")
    for name in CASES:
        output = subprocess.run([sys.executable, __file__, name], check=True, capture_output=True, text=True).stdout
        seconds, size, peak = (float(word) for word in output.split())
        print(f"{name:36} {seconds:8.2f} {size:13.0f} {peak / 1e6:11.0f}", flush=True)
        if seconds > MOST_SECONDS or size > MOST_BYTES or peak > MOST_MEMORY:
            missed.append(name)
    print(f"missed: {', '.join(missed)}" if missed else "all within 5 s, 400 bytes a task and 500 MB")
    return 1 if missed else 0


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(*measure(sys.argv[1]))
        sys.exit(0)
    sys.exit(main())
