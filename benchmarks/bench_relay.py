"""Measures the cost of a relay: throughput and start of jobs without a relay, through one, and through two.

The hosts are network namespaces of this machine: a client and a worker with three ways between them, namely a network
of their own, one relay, and two relays.  The cases run in turn, several times.  The table has the medians, and their
share of the direct way's throughput.  `--splices` measures instead how one relay process carries many jobs at once.
Exits with 1 if one relay leaves less than 60 % of the direct throughput.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from time import perf_counter

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tests.environment import clean_environment, command
from tests.lab import Host, Lab
from tests.relaying import Proxy
from tests.service import Application, Service

LEAST_SHARE = 0.6  # of the direct throughput through one relay
CLIENT, WORKER, ONE, FIRST, SECOND = 1, 2, 3, 4, 5
NETWORKS = [(CLIENT, WORKER), (CLIENT, ONE), (ONE, WORKER), (CLIENT, FIRST), (FIRST, SECOND), (SECOND, WORKER)]
WAYS = {"direct": 0, "one relay": 1, "two relays": 3}  # the network of the client's that its announcement goes to
RELAYS = {ONE: (1, 2), FIRST: (3, 4), SECOND: (4, 5)}  # the two networks of each
MIB = 1024 * 1024


def run(application: Application, host: Host, network: int, size: int) -> float:
    """Returns the seconds of a job with this many zero bytes on the way that begins with this network."""
    environment = clean_environment({"CEXEC_GROUP": f"10.77.{network}.255"})
    with (
        open("/dev/null", "wb") as nowhere,
        subprocess.Popen(["head", "-c", str(size), "/dev/zero"], stdout=subprocess.PIPE) as source,
    ):
        start = perf_counter()
        client = host.popen(command("cexec", application.public), env=environment, stdin=source.stdout, stdout=nowhere)
        status = client.wait(300)
        seconds = perf_counter() - start
    if status != 0:
        raise SystemExit(f"a job failed with status {status}")
    return seconds


def measure(application: Application, made: Lab, relays: dict[int, Proxy], size: int, rounds: int) -> dict[str, float]:
    """Prints a table, and returns the throughput of each way in bytes a second."""
    client = made.host(CLIENT)
    short: dict[str, list[float]] = {way: [] for way in WAYS}
    long: dict[str, list[float]] = {way: [] for way in WAYS}
    before = cpu_of(relays[ONE])
    for _ in range(rounds):
        for way, network in WAYS.items():
            short[way].append(run(application, client, network, 1))
            long[way].append(run(application, client, network, size))
    spent = (cpu_of(relays[ONE]) - before) / rounds
    throughput = {way: size / (median(long[way]) - median(short[way])) for way in WAYS}
    print("| way | a job of one byte | throughput | share |\n|---|---|---|---|")
    for way in WAYS:
        share = throughput[way] / throughput["direct"]
        print(f"| {way} | {median(short[way]) * 1000:.0f} ms | {throughput[way] / 1e6:.0f} MB/s | {share:.0%} |")
    print(f"\nthe relay's own CPU time: {spent / (2 * size) * 1e12:.0f} ms for each GB that it passed on")
    return throughput


def measure_splices(application: Application, made: Lab, relay: Proxy, size: int, counts: list[int]) -> None:
    """Prints the throughput of many jobs at once through one relay."""
    print("| jobs at once | together | relay's CPU | memory |\n|---|---|---|---|")
    process = psutil.Process(relay.process.pid)
    for count in counts:
        before, start = cpu_of(relay), perf_counter()
        environment = clean_environment({"CEXEC_GROUP": "10.77.1.255"})
        clients = []
        for _ in range(count):
            source = subprocess.Popen(["head", "-c", str(size // count), "/dev/zero"], stdout=subprocess.PIPE)
            argv = command("cexec", application.public)
            clients.append(
                made.host(CLIENT).popen(argv, env=environment, stdin=source.stdout, stdout=subprocess.DEVNULL)
            )
        memory = process.memory_full_info().uss
        if any(client.wait(300) for client in clients):
            raise SystemExit("a job failed")
        seconds = perf_counter() - start
        share = (cpu_of(relay) - before) / seconds
        print(f"| {count} | {2 * size / seconds / 1e6:.0f} MB/s | {share:.0%} | {memory / MIB:.0f} MiB |")


def cpu_of(relay: Proxy) -> float:
    times = psutil.Process(relay.process.pid).cpu_times()
    return times.user + times.system


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=256, help="MiB of a long job, there and back")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--splices", action="store_true", help="many jobs at once")
    options = parser.parse_args()
    if os.geteuid() != 0:
        raise SystemExit("network namespaces need root: make bench")
    size = options.size * MIB
    with ExitStack() as stack:
        application = Application(Path(stack.enter_context(tempfile.TemporaryDirectory())))
        made = stack.enter_context(Lab(NETWORKS))
        relays = {}
        for number, (near, far) in RELAYS.items():
            host = made.host(number)
            relays[number] = Proxy(host, host.address_on(near), f"10.77.{far}.255")
            stack.callback(relays[number].kill)
        service = Service(application, ["cat"], ["-j", "64"], host=made.host(WORKER))
        stack.callback(service.kill)
        if options.splices:
            measure_splices(application, made, relays[ONE], size, [1, 4, 16])
            return 0
        throughput = measure(application, made, relays, size, options.rounds)
    share = throughput["one relay"] / throughput["direct"]
    print(f"\none relay: {share:.0%} of direct, at least {LEAST_SHARE:.0%} is wanted")
    return int(share < LEAST_SHARE)


if __name__ == "__main__":
    raise SystemExit(main())
