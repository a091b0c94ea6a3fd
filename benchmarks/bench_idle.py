"""Measures the CPU time of idle processes: cservice, crat, cproxy, and both sides of a job that does nothing: goal P9.

    make bench BENCH=benchmarks/bench_idle.py

Environment: BENCH_SECONDS (60).
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks.common import Workplace, cpu_seconds, goal, job_processes, table

SECONDS = float(os.environ.get("BENCH_SECONDS", 60))
SETTLED = 2.0  # seconds after which the work of the start is done
GOAL = 0.1  # per cent of one CPU


def main() -> None:
    with Workplace() as place:
        service = place.service("true", port=3010)
        logger = place.start(place.command("crat", place.public))
        place.wait_for(logger, "crat: logging")
        proxy = place.start(place.command("cproxy", "127.0.0.1", "127.0.0.2"), {"CEXEC_UDP_PORT": "3012"})
        place.wait_for(proxy, "cproxy: relaying")
        busy = place.service("cat", port=3011)
        argv, variables = place.client(3011)
        client = subprocess.Popen(argv, env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            assert client.stdin is not None and client.stdout is not None
            client.stdin.write(b"x")
            client.stdin.flush()
            client.stdout.read(1)
            time.sleep(SETTLED)
            (job,) = job_processes(busy.pid)
            pids = {
                "cservice without a job": service.pid,
                "crat": logger.pid,
                "cproxy": proxy.pid,
                "cservice with an idle job": busy.pid,
                "its job's process": job,
                "its client": client.pid,
            }
            before = {name: (cpu_seconds(pid), switches(pid)) for name, pid in pids.items()}
            time.sleep(SECONDS)
            used = {name: cpu_seconds(pid) - before[name][0] for name, pid in pids.items()}
            woken = {name: switches(pid) - before[name][1] for name, pid in pids.items()}
        finally:
            client.kill()
            client.communicate()
    rows = {name: f"{100 * used[name] / SECONDS:.3f} % CPU, {woken[name] / SECONDS:.2f} wake-ups/s" for name in pids}
    table(f"idle for {SECONDS:g} s", rows)
    for name in pids:
        goal("P9", name, 100 * used[name] / SECONDS, GOAL, unit=" %")


def switches(pid: int) -> int:
    """Returns how often a process has slept and been woken."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("voluntary_ctxt_switches:"):
            return int(line.split()[1])
    return 0


if __name__ == "__main__":
    main()
