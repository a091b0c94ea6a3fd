"""Simulates clients that hold a key and do harm to the others: the figures of docs/reliability.md, section Attacks.

    python benchmarks/simulate_attacks.py [--seeds N]

Prints the time from the announcement of an honest job to its end, for jobs of 0.1 s one after another, idle and under
each attack, in its first 20 seconds and after its first minute; exits 1 if an honest client waits for more than three
times as long as at an idle worker, in the median.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks.simulation import Client, Network, Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

FIRST_SECONDS = 20.0  # of an attack
JOBS = 30
LONGEST = 60.0  # seconds after which an honest client gives up
LENGTH = 0.1  # seconds of an honest job
PAUSE = 0.2  # seconds between two honest jobs
HEAVY = 65535  # the greatest weight that can be announced
BORN = 0.02  # seconds after which an attacker announces its next job
HESITATION = 0.09  # seconds after which a client says that it has no job: one of which `clients` takes no notice
FEIGNED = 0.4  # seconds that a client takes for its answer to the first flight
ATTACK_BEGAN = 60.0  # seconds before the honest jobs


class SilentClient(Client):
    """Lets each worker confirm, and never gives it the job."""

    def _take(self, worker: Worker) -> None:
        """Does nothing, so that the worker's GO_DEADLINE passes; then there is another announcement of this user."""
        if self.listening:
            self.listening = False
            self.network.at(self.network.now + BORN, self.again)

    def again(self) -> None:
        """Announces anew, as a job that nobody has heard of."""
        SilentClient(self.network, self.network.next_number(), LENGTH, self.weight, user=self.user).announce()


class LeavingClient(Client):
    """Lets each worker confirm, and tells it after a while that it is not needed."""

    def _take(self, worker: Worker) -> None:
        if self.listening:
            self.listening = False
            self.network.at(self.network.now + HESITATION, self.leave, worker)

    def leave(self, worker: Worker) -> None:
        self.network.send(worker.cancel, self)
        LeavingClient(self.network, self.network.next_number(), LENGTH, self.weight, user=self.user).announce()


class FarClient(SilentClient):
    """Answers the first flight late, as a client does whose network is slow, and never gives a job."""

    def first_flight(self, worker: Worker) -> None:
        self.network.at(self.network.now + FEIGNED, super().first_flight, worker)

    def again(self) -> None:
        FarClient(self.network, self.network.next_number(), LENGTH, self.weight, user=self.user).announce()


class StallingClient(Client):
    """Takes connections and never answers the first flight."""

    def first_flight(self, worker: Worker) -> None:
        self.network.at(self.network.now + 3.0, worker.connection_failed, self)
        self.network.at(self.network.now + BORN, self.again)
        self.listening = False

    def again(self) -> None:
        StallingClient(self.network, self.network.next_number(), LENGTH, self.weight, user=self.user).announce()


class GreedyClient(Client):
    """Gives jobs that are as short as the honest ones, as many as it can."""

    def exit(self, worker: Worker, outcome: object) -> None:
        super().exit(worker, outcome)  # type: ignore[arg-type]
        GreedyClient(self.network, self.network.next_number(), LENGTH, self.weight, user=self.user).announce()


def attack(network: Network, kind: type[Client], clients: int, each: int, weight: int) -> None:
    """Lets so many clients announce so many jobs each."""
    for number in range(clients):
        for _ in range(each):
            kind(network, network.next_number(), LENGTH, weight, user=b"attacker %d" % number).announce()


def latencies(seed: int, slots: int, begin: Callable[[Network], None], *, at_once: bool = False) -> list[float]:
    """Returns the times of the honest client's jobs, on one worker.

    `at_once`: those of the first seconds of an attack, else those after its first minute.
    """
    network = Network(seed)
    network.users = 1
    Worker(network, "one", slots=slots)
    begin(network)
    network.wait(0.0 if at_once else ATTACK_BEGAN)
    found: list[float] = []
    while network.now < FIRST_SECONDS if at_once else len(found) < JOBS:
        found.append(_latency(network))
    return found


def _latency(network: Network) -> float:
    """Announces one honest job in a while; returns how long it took, LONGEST if it was not done by then."""
    client = Client(network, network.next_number(), LENGTH)
    network.at(network.now + PAUSE, client.announce)
    given_up = network.now + PAUSE + LONGEST
    network.run(until=lambda: client.has_ended() or network.now >= given_up)
    client.listening = False
    return client.ended - client.announced if client.has_ended() else LONGEST


def _idle(network: Network) -> None:
    pass


def measure(
    seeds: Sequence[int], slots: int, begin: Callable[[Network], None], *, at_once: bool = False
) -> list[float]:
    return [value for seed in seeds for value in latencies(seed, slots, begin, at_once=at_once)]


ATTACKS: dict[str, tuple[type[Client], int, int, int]] = {
    "six clients that never send GO": (SilentClient, 6, 1, 1),
    "the same, of weight 65535": (SilentClient, 6, 1, HEAVY),
    "the same, each with 20 announcements": (SilentClient, 6, 20, HEAVY),
    "six clients that are far and never send GO": (FarClient, 6, 20, HEAVY),
    "six clients that cancel after 0.09 s": (LeavingClient, 6, 20, HEAVY),
    "six clients that never answer the first flight": (StallingClient, 6, 20, HEAVY),
    "one client with 100 jobs": (GreedyClient, 1, 100, 1),
}


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=5)
    seeds = range(parser.parse_args().seeds)
    met = True
    for slots in (1, 4):
        idle = median(measure(seeds, slots, _idle))
        print(f"{slots} slots, idle: {idle:.3f} s")
        for name, (kind, clients, each, weight) in ATTACKS.items():
            begin = partial(attack, kind=kind, clients=clients, each=each, weight=weight)
            for at_once in (True, False):
                found = measure(seeds, slots, begin, at_once=at_once)
                worst = quantiles(found, n=20)[-1]
                reached = median(found) <= 3 * idle
                met &= reached
                print(
                    f"  {name:50} {'at first' if at_once else 'later':8} median {median(found):7.3f} s, "
                    f"95 % {worst:7.3f} s {'' if reached else 'MISSED'}",
                    flush=True,
                )
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
