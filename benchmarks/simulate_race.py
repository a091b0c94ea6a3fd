"""Simulates how many workers connect to a client, and how long a job waits for one: goal P6.

    python benchmarks/simulate_race.py [--seeds N]

Prints a table, and exits with 1 if a goal is missed.  Figures of docs/placement.md come from here.
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


def summary(client: Client) -> Race:
    milliseconds = (client.confirmed - client.announced) * 1000.0
    return Race(client.knocks, client.late_knocks, client.dropped, milliseconds)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=3)
    seeds = parser.parse_args().seeds
    missed = []
    print("                  |      first job            | after five claims")
    print("network   workers | connections dropped    ms | connections  worst refused    ms  worst")
    for name, latency in NETWORKS:
        for workers in (1, 2, 3, 5, 10, 30, 100, 300, 1000):
            runs = [races(workers, seed, latency=latency) for seed in range(seeds)]
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
    print("P6 missed: " + ", ".join(missed) if missed else "P6 met")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
