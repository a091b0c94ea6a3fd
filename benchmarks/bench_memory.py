"""Measures the memory of an idle worker, of running jobs, and of both sides while nobody reads: goal P8.

    make bench BENCH=benchmarks/bench_memory.py

RSS includes memory that is shared with other processes; USS is the memory that a process has for itself.
Environment: BENCH_MEGABYTES (1024), the size of a stopped reader's stream.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks.common import Workplace, children, goal, job_processes, smaps, table

MEBI = 1 << 20
MEGABYTES = int(os.environ.get("BENCH_MEGABYTES", 1024))
JOBS = 8
SETTLED = 1.0  # seconds after which a process has the memory that it needs


def main() -> None:
    idle()
    running()
    slow_reader()


def idle() -> None:
    with Workplace() as place:
        service = place.service("true")
        time.sleep(SETTLED)
        resident, own = smaps(service.pid)
        waiting = sum(smaps(pid)[1] for pid in (*children(service.pid), *job_processes(service.pid)))
        rows = {"resident (RSS)": _mebi(resident), "its own (USS)": _mebi(own)}
        table("idle cservice", {**rows, "supervisor and the process that waits for a job (USS)": _mebi(waiting)})
        goal("P8", "idle cservice, RSS, and what waits for a job", (resident + waiting) / MEBI, 30, unit=" MiB")


def running() -> None:
    """Measures jobs that have echoed a few megabytes and now wait."""
    with Workplace() as place:
        service = place.service("cat")
        argv, variables = place.client()
        clients = [
            subprocess.Popen(argv, env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(JOBS)
        ]
        try:
            for client in clients:
                assert client.stdin is not None and client.stdout is not None
                client.stdin.write(bytes(4 * MEBI // 64))
                for _ in range(64):
                    client.stdin.write(bytes(4 * MEBI // 64))
                    client.stdin.flush()
                    client.stdout.read(4 * MEBI // 64)
            time.sleep(SETTLED)
            jobs = [smaps(pid)[1] for pid in job_processes(service.pid)]
            own = [smaps(client.pid)[1] for client in clients]
            rows = {"jobs": str(len(jobs)), "a job's process (USS), most": _mebi(max(jobs))}
            table("running jobs", {**rows, "a client (USS), most": _mebi(max(own))})
            goal("P8", "a running job, USS", max(jobs) / MEBI, 6, unit=" MiB")
        finally:
            for client in clients:
                client.kill()
                client.communicate()


def slow_reader() -> None:
    """Measures the growth of both sides while a reader stops, takes most of a stream, and stops again."""
    with Workplace() as place, tempfile.NamedTemporaryFile(dir=place.directory) as file:
        file.truncate(MEGABYTES * MEBI)
        service = place.service("cat")
        argv, variables = place.client()
        with open(file.name, "rb") as source:
            client = subprocess.Popen(argv, env=variables, stdin=source, stdout=subprocess.PIPE)
        try:
            assert client.stdout is not None
            sizes = []
            taken = 0
            for share in (0.1, 0.5, 0.9):
                while taken < share * MEGABYTES * MEBI:
                    taken += len(os.read(client.stdout.fileno(), MEBI))
                time.sleep(SETTLED)  # nobody reads: everything in between is full
                job = max(smaps(pid)[1] for pid in job_processes(service.pid))
                sizes.append((smaps(client.pid)[1], job))
            rows = {f"{share} of {MEGABYTES} MiB": f"client {_mebi(c)}, job {_mebi(j)}" for share, (c, j) in zip(
                ("10 %", "50 %", "90 %"), sizes, strict=True)}  # fmt: skip
            table("USS while the reader has stopped, after", rows)
            grown = max(last - first for first, last in zip(sizes[0], sizes[-1], strict=True))
            goal("P8", "growth under a slow reader, either side", grown / MEBI, 4, unit=" MiB")
        finally:
            client.send_signal(signal.SIGKILL)
            client.communicate()


def _mebi(size: int) -> str:
    return f"{size / MEBI:.1f} MiB"


if __name__ == "__main__":
    main()
