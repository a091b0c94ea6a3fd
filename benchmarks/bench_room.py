"""Measures what `cmap` itself costs in a large room: workers of another machine, as it were, whose jobs only take time.

    make bench BENCH=benchmarks/bench_room.py

The real command runs against 10, 100 and 1,000 workers (`benchmarks/room.py`), which a few processes play over the real
protocol, and which start no programs.  So all CPU time of `cmap` is its own.  A single task is run as well, and its CPU
time subtracted, because the start of the command is not a cost of a task.

- "no time": jobs that end at once, on 64 slots.  Tasks a second and CPU time a task; also with 4 KB of output a task.
- "1 s": jobs of one second, ten for each slot.  The share of the time in which the slots are busy, from the moment when
  all of them are until no task is left; the time until then; and the time from the end of the last task to the exit.
- BENCH_CURVE=1: jobs that end at once, 10^4, 10^5 and 10^6 of them on 64 slots, and 10^5 on 10, 100 and 1,000 workers:
  the curves of docs/scale.md.  This takes some ten minutes.

The processes of the room and `cmap` share this machine's CPUs, so a rate is what the room gets, too.
Environment: BENCH_ROUNDS (3), BENCH_TASKS (20,000), BENCH_PROCESSES (2), BENCH_CURVE, BENCH_ROOMS (10 100 1000),
BENCH_TELL_AFTER (0.5): a busy worker says QUEUED to a client that still waits after so many seconds.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks.common import PATIENCE, Unfit, Workplace, goal, rounds, table
from benchmarks.room import READY

TASKS = int(os.environ.get("BENCH_TASKS", 20_000))
TELL_AFTER = float(os.environ.get("BENCH_TELL_AFTER", 0.5))  # seconds
PROCESSES = int(os.environ.get("BENCH_PROCESSES", 2))
ROOMS = [int(word) for word in os.environ.get("BENCH_ROOMS", "10 100 1000").split()]
WORKERS, SLOTS = 16, 4  # the room of 64 slots
OUTPUT = 4096  # bytes
LENGTH, JOBS = 1.0, 10  # seconds of a job, and jobs for each slot
CURVE = (10_000, 100_000, 1_000_000)  # tasks


class Run:
    """The figures of one call of `cmap`.  `full`, `busy` and `tail` are None if not all slots were busy at once."""

    def __init__(self, tasks: int, seconds: float, cpu: float, memory: int) -> None:
        self.tasks = tasks
        self.seconds = seconds
        self.cpu = cpu
        self.memory = memory  # most resident bytes
        self.full: float | None = None  # seconds from the start until all slots were busy
        self.busy: float | None = None  # share of the slots' time from then on
        self.tail = 0.0  # seconds from the end of the last task to the exit


class RoomOfWorkers:
    """The processes of a room, from their start to their figures."""

    def __init__(self, place: Workplace, workers: int, slots: int, *, seconds: float = 0.0, output: int = 0) -> None:
        self._place = place
        self._seconds = seconds
        shares = min(PROCESSES, workers)
        self._processes = []
        for share in range(shares):
            options = {
                "workers": workers * (share + 1) // shares - workers * share // shares,
                "slots": slots,
                "seconds": seconds,
                "output": output,
                "tell-after": TELL_AFTER,
                "share": share,
                "shares": shares,
            }
            words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
            script = Path(__file__).with_name("room.py")
            self._processes.append(place.start([sys.executable, str(script), str(place.secret), *words]))
        for process in self._processes:
            place.wait_for(process, READY)

    def run(self, tasks: int, output: int = 0) -> Run:
        """Runs `cmap` to its end; the room then ends as well."""
        argv = self._place.command("cmap", self._place.public, "--array", f"1-{tasks}")
        began = time.monotonic()
        process = subprocess.Popen(argv, env=self._place.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        assert process.stdout is not None
        written = 0
        while piece := os.read(process.stdout.fileno(), 1 << 16):
            written += len(piece)
        _, status, usage = os.wait4(process.pid, 0)
        ended = time.monotonic()
        process.returncode = os.waitstatus_to_exitcode(status)
        process.stdout.close()
        if process.returncode or written != tasks * output:
            raise Unfit(f"cmap ended with {process.returncode} and wrote {written} bytes instead of {tasks * output}")
        run = Run(tasks, ended - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)
        figures = [self._figures(process) for process in self._processes]
        if all(one["full"] is not None for one in figures):
            run.full = max(one["full"] for one in figures) - began
        if self._seconds and all(one["busy"] is not None for one in figures):
            run.busy = sum(one["busy"] for one in figures) / len(figures)
        run.tail = ended - max(one["last_exit"] for one in figures)
        return run

    def _figures(self, process: subprocess.Popen[bytes]) -> dict[str, float]:
        process.terminate()
        process.wait(PATIENCE)
        found: dict[str, float] = json.loads(self._place.said(process).splitlines()[-1])
        return found


def measure(workers: int, slots: int, tasks: int, *, seconds: float = 0.0, output: int = 0) -> Run:
    with Workplace() as place:
        return RoomOfWorkers(place, workers, slots, seconds=seconds, output=output).run(tasks, output)


def cost(run: Run, start: Run) -> float:
    """Returns milliseconds of CPU time for each task beyond the first."""
    return (run.cpu - start.cpu) / (run.tasks - start.tasks) * 1000


def middle(runs: list[Run], start: Run) -> Run:
    """Returns the run whose CPU time for a task is the median."""
    return sorted(runs, key=lambda run: cost(run, start))[len(runs) // 2]


def words(run: Run, start: Run) -> str:
    full = "" if run.full is None else f", all busy after {run.full:5.2f} s"
    busy = "" if run.busy is None else f", then {run.busy * 100:5.1f} % busy"
    return (
        f"{run.tasks / run.seconds:6.0f} tasks/s, {cost(run, start):.3f} ms CPU a task, {run.memory / 1e6:4.0f} MB, "
        f"exit {run.tail * 1000:4.0f} ms after the last task{full}{busy}"
    )


def compare() -> None:
    """Jobs that take no time, and jobs of one second."""
    cases = {f"{WORKERS * SLOTS} slots, no time": (WORKERS, SLOTS, TASKS, 0.0, 0)}
    cases["the same, 4 KB of output a task"] = (WORKERS, SLOTS, TASKS, 0.0, OUTPUT)
    cases |= {f"{room} workers, 1 s": (room, 1, room * JOBS, LENGTH, 0) for room in ROOMS}
    runs: dict[str, list[Run]] = {name: [] for name in cases}
    starts = []
    for _ in range(rounds(3)):
        starts.append(measure(WORKERS, SLOTS, 1))
        for name, (workers, slots, tasks, seconds, output) in cases.items():
            runs[name].append(measure(workers, slots, tasks, seconds=seconds, output=output))
            print(f"  {name:<34} {words(runs[name][-1], starts[-1])}", flush=True)
    start = min(starts, key=lambda run: run.cpu)
    table("cmap in a room, medians", {name: words(middle(found, start), start) for name, found in runs.items()})
    silent = next(iter(runs.values()))
    rate = median(run.tasks / run.seconds for run in silent)
    goal("P4a", "ms of CPU a task", median(cost(run, start) for run in silent), 0.30)
    goal("P4a", "tasks a second, 64 slots, no time", rate, 2500, at_least=True)
    for room in ROOMS:
        shares = [run.busy for run in runs[f"{room} workers, 1 s"] if run.busy is not None]
        if shares:
            goal("P4a", f"share of the time in which {room} slots are busy", median(shares), 0.95, at_least=True)


def curve() -> None:
    """The cost of a task by the number of tasks, and by the number of workers; all cases in turn."""
    cases = {f"{tasks} tasks, {WORKERS * SLOTS} slots": (WORKERS, SLOTS, tasks) for tasks in CURVE}
    cases |= {f"{CURVE[1]} tasks, {room} workers": (room, 1, CURVE[1]) for room in ROOMS}
    start = measure(WORKERS, SLOTS, 1)
    runs: dict[str, list[Run]] = {name: [] for name in cases}
    for _ in range(rounds(3)):
        for name, case in cases.items():
            runs[name].append(measure(*case))
            print(f"  {name:<30} {words(runs[name][-1], start)}", flush=True)
    found = {name: middle(of_case, start) for name, of_case in runs.items()}
    table("jobs that take no time, medians", {name: words(run, start) for name, run in found.items()})
    for kind in ("slots", "workers"):
        costs = [cost(run, start) for name, run in found.items() if name.endswith(kind)]
        goal("P10", f"most and least CPU of a task, by {kind}", max(costs) / min(costs), 1.25, unit=" times")


def main() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # for the processes of the room
    if os.environ.get("BENCH_CURVE"):
        curve()
    else:
        compare()


if __name__ == "__main__":
    main()
