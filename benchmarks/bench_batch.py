"""Measures a batch of 5,000 runs of /bin/true on two slots, by `cmap` and by comparable programs: goal P4.

    make bench BENCH=benchmarks/bench_batch.py

For `cmap` the time of the whole command counts, with real workers (`cservice -j 2`) and leases.  For HyperQueue and
Dask the time from the submission of the tasks until all have ended counts, without the start of their servers.  GNU
parallel gets fewer tasks, because it runs fewer a second.  A second measurement compares `cmap` with a program that
writes 4 KB of output a task and with the same program that writes nothing.  Each rate is printed as it comes, and the
medians at the end.

`make bench` installs HyperQueue and Dask (the extra `bench`); Debian's packages parallel and openssh-server are needed
as well.  A program that is missing is reported and left out.  Environment: BENCH_ROUNDS (3), BENCH_TASKS (5,000),
BENCH_OUTPUT_TASKS (2,000), BENCH_PARALLEL_TASKS (1,000), BENCH_SSH_TASKS (40).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks.common import Case, Unfit, Workplace, goal, interleaved, rounds, skipped, table, timed
from benchmarks.peers import Ssh
from benchmarks.queues import SLOTS, TRUE, Dask, HyperQueue, Parallel

TASKS = int(os.environ.get("BENCH_TASKS", 5000))
OUTPUT_TASKS = int(os.environ.get("BENCH_OUTPUT_TASKS", 2000))
PARALLEL_TASKS = int(os.environ.get("BENCH_PARALLEL_TASKS", 1000))
SSH_TASKS = int(os.environ.get("BENCH_SSH_TASKS", 40))
OUTPUT = 4096  # bytes of a task
CMAP, HYPERQUEUE, DASK = "cmap", "HyperQueue", "Dask"
LOCAL, REMOTE = "GNU parallel, local", "GNU parallel -S over ssh"
SILENT, WRITING = "cmap, no output", "cmap, 4 KB of output a task"


def main() -> None:
    with Workplace() as place:
        head = "/usr/bin/head"
        cases: dict[str, Case] = {}
        _add(cases, CMAP, TASKS, lambda: _cmap(place, 3010, TRUE))
        _add(cases, HYPERQUEUE, TASKS, lambda: HyperQueue(place).seconds)
        _add(cases, DASK, TASKS, lambda: Dask().seconds)
        _add(cases, LOCAL, PARALLEL_TASKS, lambda: Parallel(place).seconds)
        _add(cases, REMOTE, SSH_TASKS, lambda: Parallel(place, Ssh(place)).seconds)
        _add(cases, SILENT, OUTPUT_TASKS, lambda: _cmap(place, 3011, head, "-c", "0", "/dev/zero"))
        writing = (head, "-c", str(OUTPUT), "/dev/zero")
        _add(cases, WRITING, OUTPUT_TASKS, lambda: _cmap(place, 3012, *writing, output=OUTPUT))
        print(f"{rounds(3)} rounds; {TASKS} tasks, {SLOTS} slots, {os.cpu_count()} CPUs", flush=True)
        found = interleaved(cases, rounds(3))
    table("tasks a second, medians", {name: f"{rate:7.1f}" for name, rate in found.items()})
    for peer, least in ((HYPERQUEUE, 1.9), (REMOTE, 50.0)):
        if {CMAP, peer} <= found.keys():
            goal("P4", f"cmap, times {peer}", found[CMAP] / found[peer], least, at_least=True)
    if CMAP in found:
        goal("P4", "cmap, tasks a second", found[CMAP], 1000, at_least=True)
    if {SILENT, WRITING} <= found.keys():
        goal("P4", "share of the rate with 4 KB of output a task", found[WRITING] / found[SILENT], 0.95, at_least=True)


def _cmap(place: Workplace, port: int, *program: str, output: int = 0) -> Callable[[int], float]:
    """Returns the seconds of the whole command for this many tasks; the program writes `output` bytes in each."""
    place.service(*program, port=port, options=["-j", str(SLOTS)])
    variables = {**place.environment, "CEXEC_UDP_PORT": str(port)}

    def seconds(tasks: int) -> float:
        argv = place.command("cmap", place.public, "--array", f"1-{tasks}")
        run = timed(argv, variables, count_output=True)
        if run.written != tasks * output:
            raise Unfit(f"cmap wrote {run.written} bytes instead of {tasks * output}")
        return run.seconds

    return seconds


def _add(cases: dict[str, Case], name: str, tasks: int, make: Callable[[], Callable[[int], float]]) -> None:
    """Returns the rate of a program that may be missing."""
    try:
        seconds = make()
    except Unfit as reason:
        skipped(name, str(reason))
        return

    def rate() -> float:
        found = tasks / seconds(tasks)
        print(f"  {name:<44} {found:7.1f}", flush=True)
        return found

    cases[name] = rate


if __name__ == "__main__":
    main()
