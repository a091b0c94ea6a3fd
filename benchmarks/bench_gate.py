"""Measures `cgate`: start and memory, short jobs, followers, the WebSocket, pages of a long list.

    make bench BENCH=benchmarks/bench_gate.py

Environment: BENCH_JOBS (3,000 jobs), BENCH_CONNECTIONS (50), BENCH_FOLLOWERS (1,000), BENCH_BYTES (1 GiB each way over
the WebSocket), BENCH_RECORDS (100,000 jobs in the list).
"""

from __future__ import annotations

import json
import os
import resource
import sqlite3
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks.common import ROOT, Unfit, Workplace, cpu_seconds, goal, smaps, table

JOBS = int(os.environ.get("BENCH_JOBS", 3000))
CONNECTIONS = int(os.environ.get("BENCH_CONNECTIONS", 50))
FOLLOWERS = int(os.environ.get("BENCH_FOLLOWERS", 1000))
BYTES = int(os.environ.get("BENCH_BYTES", 1 << 30))
RECORDS = int(os.environ.get("BENCH_RECORDS", 100_000))
SLOTS = 4
START, IDLE = 1.0, 90.0  # seconds; MB
RATE, P99 = 300.0, 0.4  # jobs a second; seconds
FOLLOWER = 100.0  # kB (ours) of one follower; constant is what counts
EXEC = 150.0  # MB a second
PAGE = 50.0  # ms
LISTENS = " at http"


class Gate:
    """A `cgate` of the workplace, and its clients."""

    def __init__(self, place: Workplace, name: str) -> None:
        self.place = place
        self.state = place.directory / name
        argv = place.command("cgate", "token", "add", "--state", self.state, "--role", "admin", "bench")
        made = subprocess.run(argv, env=place.environment, capture_output=True, text=True)
        if made.returncode:
            raise Unfit(made.stderr.strip())
        self.token = made.stdout.strip()

    def start(self, *options: str) -> float:
        """Starts it; returns seconds until it listens."""
        argv = self.place.command("cgate", "--http", "127.0.0.1:0", "--state", self.state, "--rate", "100000", *options,
                                  self.place.public)  # fmt: skip
        begun = time.perf_counter()
        self.process = self.place.start(argv, {"CEXEC_UDP_PORT": "3010"})
        while LISTENS not in self.place.said(self.process):
            if self.process.poll() is not None:
                raise Unfit(self.place.said(self.process))
            time.sleep(0.002)
        seconds = time.perf_counter() - begun
        self.url = self.place.said(self.process).partition(" at ")[2].partition(";")[0]
        return seconds

    def client(self, name: str, *arguments: object, **options: Any) -> subprocess.Popen[str]:
        """Starts a client of `gate_clients`."""
        argv = [sys.executable, "-m", "benchmarks.gate_clients", name, self.url, self.token, *map(str, arguments)]
        environment = {**self.place.environment, "PYTHONPATH": os.fspath(ROOT)}
        return subprocess.Popen(argv, env=environment, cwd=ROOT, stdout=subprocess.PIPE, text=True, **options)

    def measured(self, name: str, *arguments: object) -> tuple[dict[str, float], float]:
        """Returns the figures of a client, and the CPU seconds of cgate meanwhile."""
        before = cpu_of(self.process.pid)
        output, _ = self.client(name, *arguments).communicate()
        if not output:
            raise Unfit(f"the client {name} has failed")
        figures: dict[str, float] = json.loads(output)
        return figures, cpu_of(self.process.pid) - before

    def memory(self) -> float:
        """MB that it has for itself and shares."""
        return smaps(self.process.pid)[0] / 1e6


def cpu_of(pid: int) -> float:
    """CPU seconds of all threads."""
    return sum(cpu_seconds(int(one.name)) for one in Path(f"/proc/{pid}/task").iterdir())


def start_and_idle(place: Workplace) -> None:
    gate = Gate(place, "idle")
    seconds = min(_started_again(gate) for _ in range(3))
    goal("GATE1", "from the start of cgate to its first line", seconds, START, unit=" s")
    time.sleep(1)
    goal("GATE2", "resident memory, idle", gate.memory(), IDLE, unit=" MB")
    gate.process.terminate()
    gate.process.wait()


def _started_again(gate: Gate) -> float:
    if hasattr(gate, "process"):
        gate.process.terminate()
        gate.process.wait()
    return gate.start()


def short_jobs(place: Workplace) -> None:
    gate = Gate(place, "jobs")
    gate.start()
    gate.measured("jobs", CONNECTIONS, CONNECTIONS)
    figures, cpu = gate.measured("jobs", JOBS, CONNECTIONS)
    table(f"{JOBS} short jobs, {CONNECTIONS} connections, {SLOTS} slots", {
        "jobs a second": f"{figures['rate']:.0f}",
        "median, 99th percentile": f"{figures['median'] * 1000:.0f} ms, {figures['p99'] * 1000:.0f} ms",
        "CPU time of cgate for a job": f"{cpu / JOBS * 1000:.2f} ms",
    })  # fmt: skip
    goal("GATE3", "short jobs a second", figures["rate"], RATE, at_least=True)
    goal("GATE4", "99th percentile", figures["p99"], P99, unit=" s")
    gate.process.terminate()
    gate.process.wait()


def with_a_shell(place: Workplace) -> None:
    """Followers and the WebSocket, whose jobs are scripts."""
    gate = Gate(place, "shell")
    gate.start()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4 * FOLLOWERS + 1000) if hard > 0 else soft, hard))
    headers = ["-H", f"Authorization: Bearer {gate.token}", "-H", "Content-Type: application/json"]
    body = '{"app": "app", "args": ["while :; do echo a line of some text; sleep 0.5; done"]}'
    made = subprocess.run(["curl", "-sS", *headers, "-d", body, f"{gate.url}/v1/jobs"], capture_output=True, text=True)
    job = json.loads(made.stdout)["id"]
    sizes = {}
    for count in (FOLLOWERS // 10, FOLLOWERS):
        before = gate.memory()
        client = gate.client("follow", job, count, stdin=subprocess.PIPE)
        assert client.stdout is not None
        client.stdout.readline()
        time.sleep(2)
        sizes[count] = (gate.memory() - before) * 1000 / count
        client.communicate("")
    table(
        "followers of one job's output", {f"{count} followers": f"{size:.0f} kB each" for count, size in sizes.items()}
    )
    goal("GATE5", f"memory of each of {FOLLOWERS} followers", sizes[FOLLOWERS], FOLLOWER, unit=" kB")
    subprocess.run(["curl", "-sS", *headers, "-X", "POST", f"{gate.url}/v1/jobs/{job}/cancel"], capture_output=True)
    rows = {}
    for number, way in enumerate(("download", "upload"), 6):
        figures, cpu = gate.measured(way, BYTES)
        rate = BYTES / figures["seconds"] / 1e6
        rows[way] = f"{rate:.0f} MB/s, {cpu / (BYTES / 1e9):.2f} s of CPU time of cgate for 1 GB"
        goal(f"GATE{number}", f"/v1/exec, {way}, messages of 256 KiB", rate, EXEC, unit=" MB/s", at_least=True)
    table(f"/v1/exec, {BYTES / 1e6:.0f} MB", rows)
    gate.process.terminate()
    gate.process.wait()


def a_long_list(place: Workplace) -> None:
    gate = Gate(place, "list")
    now = time.time()
    database = sqlite3.connect(gate.state)
    database.executemany(
        "INSERT INTO job VALUES "
        "(?, 'app', 'bench', NULL, NULL, '[]', ?, 0, NULL, NULL, 'w@127.0.0.1', 1, ?, ?, ?, ?, '{}')",
        ((str(uuid.UUID(int=(7 << 76) | number)), ("succeeded", "failed")[number % 2], now, now, now, now)
         for number in range(RECORDS)),
    )  # fmt: skip
    database.commit()
    database.close()
    gate.start()
    figures, _ = gate.measured("pages", 100)
    table(
        f"a page of 100 out of {RECORDS} jobs",
        {"median, most": f"{figures['median'] * 1000:.1f} ms, {figures['most'] * 1000:.1f} ms"},
    )
    goal("GATE8", "a page of the list", figures["median"] * 1000, PAGE, unit=" ms")
    gate.process.terminate()
    gate.process.wait()


def main() -> None:
    with Workplace() as place:
        start_and_idle(place)
        a_long_list(place)
        service = place.service("/bin/true", options=["-j", str(SLOTS)])
        short_jobs(place)
        service.terminate()
        service.wait()
    with Workplace() as place:
        place.service("sh", "-c", options=["-j", str(SLOTS), "--allow-args"])
        with_a_shell(place)


if __name__ == "__main__":
    main()
