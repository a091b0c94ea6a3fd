"""Measures what a stranger on the network can do with recorded announcements and with silent connections.

    make bench BENCH=benchmarks/bench_attacks.py

The hosts are network namespaces of this machine: a client, a worker with one slot, a stranger.  The stranger sends
recorded announcements, which the worker does not know, from false addresses at which nobody is; at once an honest job
starts.  The goal is a latency of at most three times that of an idle network.  Each round has the cases in turn.  Then
the packets are counted that one recorded datagram causes at the false addresses, and a worker is started whose client
has its listener full of silent connections.  docs/security.md and docs/reliability.md have the figures.
Environment: BENCH_ROUNDS (7).
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from time import perf_counter, sleep

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks.common import goal, rounds, table
from tests.environment import clean_environment, command
from tests.lab import Host, Lab
from tests.network.test_replay import FIRST, VICTIM, VICTIMS, recorded, replay, to_victims
from tests.relaying import Capture
from tests.service import Application, Service

CASES = {"idle": 0, "40 replays": 40, "400 replays": 400}
SILENT = (0, 300)
FACTOR = 3.0
SETTLED = 4.0  # seconds after which the connections to false addresses are over
CONNECT = """
import socket, sys, time
held = [socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=30) for _ in range(int(sys.argv[3]))]
print("ready", flush=True)
sys.stdin.read()
"""
PORT = 21_400


def main() -> None:
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        made = stack.enter_context(Lab(3))
        made.host(2).ip(
            *(f"neigh add {VICTIM.format(FIRST + n)} lladdr 02:00:00:00:77:77 dev eth0" for n in range(VICTIMS))
        )
        application = Application(directory)
        replays(application, made)
        packets(application, made, directory)
        silence(application, made)


@contextmanager
def worker(application: Application, made: Lab) -> Iterator[None]:
    """A worker with one slot on host 2."""
    service = Service(application, ["true"], ["-j", "1"], host=made.host(2))
    try:
        yield
    finally:
        service.kill()


def job(application: Application, host: Host) -> float:
    start = perf_counter()
    argv = command("cexec", "-n", application.public)
    ended = host.run(argv, env=clean_environment(), capture_output=True, timeout=120)
    return perf_counter() - start if ended.returncode == 0 else float("inf")


def replays(application: Application, made: Lab) -> None:
    seconds: dict[str, list[float]] = {name: [] for name in CASES}
    with worker(application, made):
        for _ in range(rounds(7)):
            for name, number in CASES.items():
                if number:
                    replay(made.host(3), recorded(application, number))
                seconds[name].append(job(application, made.host(1)))
                sleep(SETTLED)
    table(
        "an honest job, median and longest",
        {name: f"{1000 * median(one):.0f} ms, {1000 * max(one):.0f} ms" for name, one in seconds.items()},
    )
    idle = median(seconds["idle"])
    for name in list(CASES)[1:]:
        goal("13.1", f"{name} beside an idle network", median(seconds[name]) / idle, FACTOR, unit=" times")


def packets(application: Application, made: Lab, directory: Path) -> None:
    rows = {}
    for copies in (1, 30, 300):
        with worker(application, made):
            capture = Capture(made.host(2), directory)
            replay(made.host(3), recorded(application, 1) * copies)
            sleep(SETTLED)
            capture.close()
        syns, datagrams = to_victims(capture.packets)
        rows[f"{copies} copies"] = f"{syns} SYNs, {datagrams} datagrams"
    table("what one recorded datagram causes at the addresses that it claims", rows)


def silence(application: Application, made: Lab) -> None:
    seconds: dict[int, list[float]] = {number: [] for number in SILENT}
    for _ in range(rounds(7)):
        for number in SILENT:
            seconds[number].append(beside_silence(application, made, number))
    table(
        "from the start of a worker to the end of the job that waits for it, median and longest",
        {f"{n} silent connections": f"{median(one):.2f} s, {max(one):.2f} s" for n, one in seconds.items()},
    )


def beside_silence(application: Application, made: Lab, number: int) -> float:
    client, stranger = made.host(1), made.host(3)
    environment = clean_environment({"CEXEC_LISTEN_PORTS": str(PORT), "CEXEC_TIMEOUT_ACCEPT": "0"})
    argv = command("cexec", "-n", application.public)
    with client.popen(argv, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as waiting:
        sleep(1.0)
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        words = [sys.executable, "-c", CONNECT, client.address, str(PORT), str(number)]
        with stranger.popen(words, **pipes) as silent:
            assert silent.stdout is not None and silent.stdout.readline() == b"ready\n"
            start = perf_counter()
            with worker(application, made):
                waiting.wait(120)
                taken = perf_counter() - start
            silent.communicate()
    return taken


if __name__ == "__main__":
    if os.geteuid() != 0:
        raise SystemExit("network namespaces need root: make bench")
    main()
