"""Measures placement with real processes: goal P7, which `simulate_placement.py` measures over many seeds.

    make bench BENCH=benchmarks/bench_placement.py

200 clients wait, and 10 workers of one slot and different speeds start at once.  A job is a `sleep`, which is shorter
on a faster worker.  The figure is the time until all jobs are done, divided by that of a greedy list schedule that
knows all lengths and speeds.  Environment: BENCH_UNIT (0.5), the seconds of a job of length 1 at speed 1 (less than 0.3
measures this machine's CPU); BENCH_ROUNDS (1), each with its own lengths and speeds.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks.common import LOOPBACK_GROUP, Unfit, Workplace, goal, rounds, table
from benchmarks.simulate_placement import JOBS, WORKERS, greedy_makespan
from cexec.protocol.datagrams import datagram

UNIT = float(os.environ.get("BENCH_UNIT", 0.5))
PORT = 3010
PATIENCE = 90.0  # seconds until all clients have announced their jobs
GOAL = 1.15
# The program of a worker of speed $1/1000; the job's argument is its milliseconds at speed 1.
PROGRAM = "ms=$((PEER_MS * 1000 / $1)); exec sleep $((ms / 1000)).$(printf %03d $((ms % 1000)))"


def main() -> None:
    ratios = [measure(seed) for seed in range(rounds(1))]
    goal("P7", f"{JOBS} jobs on {WORKERS} workers, makespan over greedy", statistics.median(ratios), GOAL)


def measure(seed: int) -> float:
    """Returns the makespan divided by the greedy one, and prints both."""
    dice = random.Random(seed)
    lengths = [dice.uniform(1.0, 10.0) for _ in range(JOBS)]
    speeds = [dice.uniform(1.0, 4.0) for _ in range(WORKERS)]
    with Workplace() as place, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        workers = [start_worker(place, number, speed) for number, speed in enumerate(speeds)]
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((LOOPBACK_GROUP, PORT))
        for worker in workers:
            os.kill(worker.pid, signal.SIGSTOP)
        clients = [start_client(place, length) for length in lengths]
        try:
            wait_for_announcements(listener)
            start = time.monotonic()
            for worker in workers:
                os.kill(worker.pid, signal.SIGCONT)
            statuses = {client.wait() for client in clients}
            took = time.monotonic() - start
        finally:
            for client in clients:
                if client.poll() is None:
                    client.kill()
                    client.wait()
    if statuses != {0}:
        raise Unfit(f"exit statuses of the jobs: {sorted(statuses)}")
    best = greedy_makespan(lengths, speeds, 1) * UNIT
    table(f"seed {seed}", {"makespan": f"{took:.2f} s", "greedy": f"{best:.2f} s"})
    return took / best


def start_worker(place: Workplace, number: int, speed: float) -> subprocess.Popen[bytes]:
    """Starts the workers; they share this machine, so none of them may look at its load."""
    options = ["-j", "1", "--speed", f"{speed:.3f}", "--name", f"w{number}", "--load-command", "echo 0"]
    return place.service("sh", "-c", PROGRAM, "sh", f"{speed * 1000:.0f}", options=options)


def start_client(place: Workplace, length: float) -> subprocess.Popen[bytes]:
    argv, variables = place.client()
    argv.append(f"MS={length * UNIT * 1000:.0f}")
    return subprocess.Popen(argv, env={**variables, "CEXEC_TIMEOUT_ACCEPT": "0"}, stdin=subprocess.DEVNULL)


def wait_for_announcements(listener: socket.socket) -> None:
    """Waits until each client has been heard."""
    listener.settimeout(PATIENCE)
    heard: set[bytes] = set()
    while len(heard) < JOBS:
        data = listener.recv(2048)
        if data[datagram.KIND_AT] == datagram.ANNOUNCEMENT:
            heard.add(data[datagram.MAC1_START : datagram.INNER_START])


if __name__ == "__main__":
    main()
