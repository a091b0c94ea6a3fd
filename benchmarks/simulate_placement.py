"""Simulates which worker gets how much work: goal P7 and the figures of docs/placement.md.

    python benchmarks/simulate_placement.py [--seeds N]

Prints each figure with its goal; exits 1 when one is missed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from random import Random
from statistics import median
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks.simulation import LATENCY, Client, Network, Worker, jobs_by_worker, one_after_another, side_by_side
from cexec.protocol.decisions.bid import Bidder
from cexec.protocol.decisions.rivals import RivalWord

if TYPE_CHECKING:
    from collections.abc import Callable

WORKERS = 10
JOBS = 200


def greedy_makespan(lengths: list[float], speeds: list[float], slots: int) -> float:
    """Returns the makespan with full knowledge: each job in order goes to the slot that ends it first."""
    ends = [0.0] * (len(speeds) * slots)
    for length in lengths:
        end, slot = min((end + length / speeds[slot // slots], slot) for slot, end in enumerate(ends))
        ends[slot] = end
    return max(ends)


def makespan_ratio(seed: int, slots: int = 1) -> float:
    """Announces all jobs at once to workers that know no lengths; returns the makespan divided by the greedy one."""
    random = Random(seed)
    lengths = [random.uniform(1.0, 10.0) for _ in range(JOBS)]
    speeds = [random.uniform(1.0, 4.0) for _ in range(WORKERS)]
    network = Network(seed)
    for number, speed in enumerate(speeds):
        Worker(network, str(number), slots=slots, speed=speed)
    clients = announce_all(network, [(length, 1) for length in lengths])
    network.run(until=lambda: all_ended(clients))
    return max(client.ended for client in clients) / greedy_makespan(lengths, speeds, slots)


def announce_all(network: Network, jobs: list[tuple[float, int]]) -> list[Client]:
    """Returns (length, weight) of jobs that are all announced now."""
    clients = [Client(network, network.next_number(), length, weight) for length, weight in jobs]
    for client in clients:
        network.at(network.now, client.announce)
    return clients


def all_ended(clients: list[Client]) -> bool:
    return all(client.has_ended() for client in clients)


def share_of_busy(seed: int, latency: tuple[float, float] = LATENCY) -> float:
    """Returns the share of a host with foreign load 1.0, beside an idle one, of 100 jobs, one after another."""
    network = Network(seed, latency)
    for worker in (Worker(network, "busy", load=1.0), Worker(network, "idle")):
        worker.bidder.competition.rival_heard(network.now)  # by the HELLO of the other one
    return jobs_by_worker(one_after_another(network, 100, 0.05, 0.5)).get("busy", 0) / 100


def share_of_fast(seed: int, slow: float, fast: float, latency: tuple[float, float] = LATENCY) -> float:
    """Returns the share of the faster of two idle hosts of 100 jobs, one after another."""
    network = Network(seed, latency)
    Worker(network, "slow", speed=slow)
    Worker(network, "fast", speed=fast)
    return jobs_by_worker(one_after_another(network, 100, 0.05, 0.5)).get("fast", 0) / 100


def shares_by_speed(seed: int, at_a_time: int) -> list[float]:
    """Returns the shares of three hosts of 8 slots and `--speed` 1, 2 and 4, of jobs that last equally long on all."""
    network = Network(seed)
    for speed in (1.0, 2.0, 4.0):
        Worker(network, f"{speed:.0f}", slots=8, speed=speed).speed = 1.0
    counts = jobs_by_worker(side_by_side(network, 700, at_a_time, lambda: network.random.uniform(0.5, 1.5)))
    return [counts.get(name, 0) / 700 for name in ("1", "2", "4")]


def unevenness(seed: int) -> float:
    """Returns the most jobs of one host divided by the mean, with 50 clients at once on 8 hosts of 2 slots."""
    network = Network(seed)
    workers = [Worker(network, str(number), slots=2) for number in range(8)]
    counts = jobs_by_worker(side_by_side(network, 50, 50, lambda: 0.3))
    assert all(worker.most_jobs <= worker.slots for worker in workers)
    return max(counts.values()) / (50 / 8)


def share_of_broken(seed: int, at_a_time: int, length: float, alerts: bool = True) -> float:
    """Returns the share of 200 jobs of a host whose jobs exit 1 at once, one of four."""
    network = Network(seed)
    network.alerts = alerts
    workers = [Worker(network, str(number), slots=2) for number in range(4)]
    workers[0].broken = True
    return jobs_by_worker(side_by_side(network, 200, at_a_time, lambda: length)).get("0", 0) / 200


def share_of_dropper(seed: int, at_a_time: int, length: float, users: int = 1) -> tuple[float, float]:
    """Returns the share of all attempts of a host that drops jobs, one of four; and its share once it is healed."""
    network = Network(seed)
    network.users = users
    workers = [Worker(network, str(number), slots=2) for number in range(4)]
    workers[0].drops = True
    side_by_side(network, 200, at_a_time, lambda: length)
    share = workers[0].jobs / sum(worker.jobs for worker in workers)
    workers[0].drops = False
    network.wait(300.0)
    return share, jobs_by_worker(side_by_side(network, 200, at_a_time, lambda: length)).get("0", 0) / 200


def four_workers(seed: int) -> tuple[Network, list[Worker]]:
    """Returns four workers of 2 slots, each of which has done a job."""
    network = Network(seed)
    workers = [Worker(network, str(number), slots=2) for number in range(4)]
    side_by_side(network, 40, 8, lambda: 1.0)
    return network, workers


def next_job_after_reset(seed: int, at_a_time: int, length: float) -> float:
    """Returns the seconds from a reset of all connections to the end of the next job, without the job itself."""
    network, workers = four_workers(seed)
    clients = [Client(network, network.next_number(), length, user=b"%d" % number) for number in range(at_a_time)]
    for client in clients:
        network.at(network.now, client.announce)
    network.wait(length / 2)
    reset_at = network.now
    for worker in workers:
        worker.reset()
    network.run(until=lambda: any(client.has_ended() for client in clients))
    return network.now - reset_at - length


def repeat(network: Network, every: float, action: Callable[[], None]) -> None:
    """Does something again and again, for ever."""

    def again() -> None:
        action()
        network.at(network.now + every, again)

    again()


def share_despite_lies(seed: int, at_a_time: int, length: float, every: float) -> float:
    """Returns the share of a worker of four about which complaints are invented and replayed; 0.25 is fair."""
    network, workers = four_workers(seed)
    victim = workers[0]
    lost = Client(network, network.next_number(), 0.1, user=b"attacker", wanted=victim, resets=True)
    network.at(network.now, lost.announce)
    network.run(until=lambda: lost.attempts > 1)
    lost.listening = False
    network.wait(30.0)
    done = one_after_another(network, 40, 0.1, 0.1)
    assert not victim.bidder.penalty
    words = [RivalWord(w.name.encode(), job=b"", completed=True, clock=0.0, said_at=0.0) for w in workers[1:]]

    def lie() -> None:
        invented = network.random.randbytes(16)
        recorded = (1).to_bytes(8, "big") + lost.identity[8:]
        for identity in (invented, lost.identity, recorded, *(client.identity for client in done)):
            network.multicast("complaint", victim, identity)
        for word in words:
            network.multicast("alert", workers[1], word)

    repeat(network, every, lie)
    jobs = 800
    return jobs_by_worker(side_by_side(network, jobs, at_a_time, lambda: length)).get("0", 0) / jobs


def share_despite_resets(seed: int, at_a_time: int, length: float) -> float:
    """Returns a worker's share of honest jobs while a client gives it jobs, resets them and complains; 0.25 is fair."""
    network, workers = four_workers(seed)
    for _ in range(2):
        attacker = Client(network, network.next_number(), 0.1, user=b"attacker", wanted=workers[0], resets=True)
        network.at(network.now, attacker.announce)
    jobs = 800
    return jobs_by_worker(side_by_side(network, jobs, at_a_time, lambda: length)).get("0", 0) / jobs


def share_of_liar(seed: int, at_a_time: int, slots: int) -> float:
    """Returns the share of 400 jobs of a worker of four that always answers first, and says that it has `slots`."""
    network, workers = four_workers(seed)
    workers[0].bidder = Bidder(slots=slots, boost=0.0, random=network.random.random)
    return jobs_by_worker(side_by_side(network, 400, at_a_time, lambda: 1.0)).get("0", 0) / 400


def ratio_of_weights(seed: int, waiting: int = 40) -> float:
    """Returns how many jobs of weight 3 ran for each of weight 1, of 200 that waited for one slot; 3.0 is right."""
    network = Network(seed)
    Worker(network, "one")
    ended: list[int] = []

    def following(weight: int) -> None:
        client = Client(network, network.next_number(), 0.05, weight)
        client.when_ended = again
        network.at(network.now, client.announce)

    def again(client: Client) -> None:
        ended.append(client.weight)
        following(client.weight)

    for _ in range(waiting):
        following(1)
        following(3)
    network.run(until=lambda: len(ended) >= 200)
    return ended.count(3) / ended.count(1)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=100)
    seeds = range(parser.parse_args().seeds)
    some = seeds[:20]
    met = True

    def show(what: str, value: float, goal: str = "", reached: bool = True) -> None:
        nonlocal met
        met &= reached
        print(f"{what:76} {value:6.3f}  {goal and 'goal ' + goal} {'' if reached else 'MISSED'}", flush=True)

    ratio = median(makespan_ratio(seed) for seed in seeds)
    show("P7: makespan over greedy with full knowledge, 1 slot, median", ratio, "<= 1.15", ratio <= 1.15)
    for slots in (2, 4):
        show(f"  the same, {slots} slots", median(makespan_ratio(seed, slots) for seed in some))
    busy = max(share_of_busy(seed) for seed in some)
    show("busy host against an idle one, largest share", busy, "<= 0.05", busy <= 0.05)
    for slow, fast in ((1.0, 2.0), (1.0, 4.0), (2.0, 4.0)):
        value = median(share_of_fast(seed, slow, fast, (0.0001, 0.0005)) for seed in some)
        show(f"idle host of speed {fast:.0f} against one of speed {slow:.0f}, share, fast LAN", value)
    for at_a_time in (6, 10, 14):
        shares = [shares_by_speed(seed, at_a_time) for seed in some[:3]]
        for index, speed in enumerate((1, 2, 4)):
            value = median(share[index] for share in shares)
            show(f"speeds 1, 2, 4, {at_a_time} jobs at a time: share of {speed}", value, f"~ {speed / 7:.3f}")
    uneven = max(unevenness(seed) for seed in some)
    show("50 clients at once, 8 hosts of 2 slots, most over mean, worst", uneven, "<= 1.3", uneven <= 1.3)
    for at_a_time, length in ((4, 0.05), (8, 1.0), (8, 5.0)):
        broken = max(share_of_broken(seed, at_a_time, length) for seed in some[:5])
        show(f"host that exits 1 of four, {at_a_time} jobs of {length} s at a time", broken, "< 0.1", broken < 0.1)
    for at_a_time, length in ((1, 0.05), (8, 1.0), (8, 5.0)):
        for users in (1, 8):
            outcomes = [share_of_dropper(seed, at_a_time, length, users) for seed in some[:5]]
            dropped = max(share for share, _ in outcomes)
            text = f"host that wins and drops of four, {at_a_time} jobs of {length} s of {users} users"
            show(text, dropped, "< 0.05", dropped < 0.05)
            show("  its share five minutes after it has healed", min(share for _, share in outcomes), "~ 0.25")
    for at_a_time, length in ((8, 0.3), (8, 5.0)):
        after = max(next_job_after_reset(seed, at_a_time, length) for seed in some[:5])
        text = f"all connections reset, {at_a_time} jobs of {length} s: seconds to the next job"
        show(text, after, "<= 2", after <= 2.0)
    for at_a_time in (2, 8):
        for every in (1.0, 31.0):
            share = min(share_despite_lies(seed, at_a_time, 1.0, every) for seed in some[:5])
            text = f"invented and replayed complaints each {every:.0f} s, {at_a_time} jobs of 1 s: share"
            show(text, share, ">= 0.2", share >= 0.2)
        share = min(share_despite_resets(seed, at_a_time, 1.0) for seed in some[:5])
        text = f"a client that resets its own jobs and complains, {at_a_time} jobs of 1 s: share"
        show(text, share, ">= 0.125", share >= 0.125)
    for at_a_time in (1, 2, 8):
        for slots in (2, 1000):
            share = max(share_of_liar(seed, at_a_time, slots) for seed in some[:5])
            show(f"one of four that always answers first, of {slots} slots, {at_a_time} jobs at a time: share", share)
    weights = max(abs(ratio_of_weights(seed) - 3.0) for seed in some)
    show("weights 3 and 1: their ratio differs from 3 by at most", weights, "<= 0.45", weights <= 0.45)
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
