"""Simulates how many workers connect to a client, and how long a job waits for one: goal P6.

    python benchmarks/simulate_race.py [--seeds N] [--large]

Prints a table, and exits with 1 if a goal is missed.  A second table is about rooms in which nine of ten workers are
busy: how many of them say so to a client whose job an idle worker takes.  `--large` adds 10,000 workers (one seed, some
minutes).  Figures of docs/placement.md and docs/scale.md come from here.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from statistics import median
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks.simulation import LATENCY, Client, Network, Worker, one_after_another

CLAIMS_TO_LEARN = 5  # as goal P6 has it
MEDIAN_CONNECTIONS = 5
MEDIAN_MILLISECONDS = 100
BUSY = 0.9  # share of the workers in a busy room
LARGE = 10_000  # workers
NETWORKS = (("fast LAN", (0.0001, 0.0005)), ("busy LAN", LATENCY), ("VPN", (0.010, 0.020)))


class Race(NamedTuple):
    connections: int  # connections that the client's listener took
    refused: int  # connections that came after it had closed
    dropped: int  # connections that the client's full backlog dropped
    milliseconds: float  # seconds from the announcement to the winner's confirmation


def races(
    workers: int, seed: int, jobs: int = 40, latency: tuple[float, float] = LATENCY, loss: float = 0.0
) -> list[Race]:
    """Runs jobs one after another on idle, equal workers that know nothing of each other at first."""
    network = Network(seed, latency, loss)
    for number in range(workers):
        Worker(network, f"worker {number}")
    clients = one_after_another(network, jobs, length=0.05, pause=0.5)
    return [summary(client) for client in clients]


def words_in_a_busy_room(workers: int, seed: int, jobs: int = 10) -> tuple[float, float]:
    """Returns how many workers say QUEUED to a client, and the milliseconds until it has a worker, both medians."""
    network = Network(seed)
    for number in range(workers):
        Worker(network, f"worker {number}")
    one_after_another(network, jobs, length=0.05, pause=0.5)  # so that they have heard of each other
    for _ in range(round(workers * BUSY)):
        long = Client(network, network.next_number(), length=1e6)
        long.announce()
        network.run(until=lambda client=long: client.confirmed >= 0.0)  # type: ignore[misc]
    clients = one_after_another(network, jobs, length=0.05, pause=0.5)
    return median(client.queued for client in clients), median(summary(client).milliseconds for client in clients)


def summary(client: Client) -> Race:
    milliseconds = (client.confirmed - client.announced) * 1000.0
    return Race(client.knocks, client.late_knocks, client.dropped, milliseconds)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--large", action="store_true")
    options = parser.parse_args()
    seeds = options.seeds
    missed = []
    print("                  |      first job            | after five claims")
    print("network   workers | connections dropped    ms | connections  worst refused    ms  worst")
    for name, latency in NETWORKS:
        sizes = [1, 2, 3, 5, 10, 30, 100, 300, 1000]
        if options.large and latency is LATENCY:
            sizes.append(LARGE)
        for workers in sizes:
            runs = [races(workers, seed, latency=latency) for seed in range(1 if workers == LARGE else seeds)]
            first = [run[0] for run in runs]
            learned = [race for run in runs for race in run[CLAIMS_TO_LEARN:]]
            connections = median(race.connections for race in learned)
            milliseconds = median(race.milliseconds for race in learned)
            print(
                f"{name:9} {workers:7} | {median(r.connections for r in first):11.0f} "
                f"{median(r.dropped for r in first):7.0f} {median(r.milliseconds for r in first):5.0f} | "
                f"{connections:11.0f} {max(r.connections for r in learned):6} "
                f"{median(r.refused for r in learned):7.0f} {milliseconds:5.0f} "
                f"{max(r.milliseconds for r in learned):6.0f}",
                flush=True,
            )
            if name != "VPN" and (connections > MEDIAN_CONNECTIONS or milliseconds > MEDIAN_MILLISECONDS):
                missed.append(f"{workers} workers, {name}")
    print("\nworkers, nine of ten busy | QUEUED a job    ms")
    for workers in (10, 100, 300):
        words, milliseconds = words_in_a_busy_room(workers, 0)
        print(f"{workers:25} | {words:12.0f} {milliseconds:5.0f}", flush=True)
    print("P6 missed: " + ", ".join(missed) if missed else "P6 met")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
