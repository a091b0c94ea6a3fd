"""Measures how busy `cmap` keeps the slot of a worker behind a link with a delay, with and without jobs in advance.

Two hosts are network namespaces; the client's cable delays each frame by half of BENCH_ROUND_TRIP (0.02 s).  The worker
has one slot, and each of BENCH_TASKS (400) tasks sleeps for BENCH_TASK (0.1 s).  The share is the time in which a task
ran, of the time from the first task's begin to the last one's end.  A shell tells these times, and its own start and
end are not in them; so the same tasks are run without the delay, too, and the share of that share is what counts.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks.common import goal, interleaved, rounds, skipped, table
from tests.campaigns import cmap
from tests.faults.link import BadCable
from tests.lab import Lab
from tests.service import Application, Service

ROUND_TRIP = float(os.environ.get("BENCH_ROUND_TRIP", 0.02))
TASKS = int(os.environ.get("BENCH_TASKS", 400))
TASK = os.environ.get("BENCH_TASK", "0.1")
TIMED = f"date +%s.%N; sleep {TASK}; date +%s.%N"
NEAR, AHEAD = "without the delay", "delayed, with jobs in advance"
RUN = "import sys; from cexec.cmap.run import scheduler; scheduler.SHORT = float(sys.argv.pop(1)); "
MAIN = "from cexec.commands.cmap import main; raise SystemExit(main())"


def busy(application: Application, lab: Lab, short: float) -> float:
    """Returns the share; tasks whose median is longer than `short` are not given in advance."""
    with tempfile.TemporaryDirectory() as directory:
        results = Path(directory) / "results"
        words = cmap(application, "--array", f"1-{TASKS}", "--results", results)[2:]
        argv = [sys.executable, "-c", RUN + MAIN, str(short), *words]
        lab.host(1).run(argv, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        times = sorted(tuple(map(float, path.read_text().split())) for path in results.rglob("stdout"))
    return sum(end - begin for begin, end in times) / (times[-1][1] - times[0][0])


def main() -> None:
    try:
        lab = Lab(2)
    except (OSError, subprocess.SubprocessError) as error:
        skipped("a link with a delay", str(error))
        return
    with lab, tempfile.TemporaryDirectory() as directory:
        application = Application(Path(directory))
        service = Service(application, ["sh", "-c", TIMED], ["-j", "1"], host=lab.host(2))
        try:
            with BadCable(lab, lab.host(1)) as cable:

                def case(delay: float, short: float) -> float:
                    cable.set(delay=delay / 2)
                    return busy(application, lab, short)

                cases = {
                    NEAR: lambda: case(0.0, 0.5),
                    AHEAD: lambda: case(ROUND_TRIP, 0.5),
                    "delayed, without": lambda: case(ROUND_TRIP, 0.0),
                }
                found = interleaved(cases, rounds(1))
        finally:
            service.kill()
    title = f"share of the time in which the slot is busy, round trip {ROUND_TRIP:g} s, tasks of {TASK} s"
    table(title, {name: f"{share:.3f}" for name, share in found.items()})
    if AHEAD in found and NEAR in found:
        goal("P4", "busy behind the delay, of that without", found[AHEAD] / found[NEAR], 0.95, at_least=True)


if __name__ == "__main__":
    main()
