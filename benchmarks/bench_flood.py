"""Measures the cost of a datagram that a worker ignores, amortised over a flood of them: goal P5.

    make bench BENCH=benchmarks/bench_flood.py
    make bench BENCH=benchmarks/bench_flood.py BENCH_OTHER=/path/of/another/checkout

The figure is the CPU time of a real cservice, including the kernel's share, divided by the number of datagrams that it
took; datagrams that the kernel dropped before do not count.  Each burst is complete before the worker looks, as in a
flood that is faster than the worker.  A slower flood wakes it for fewer datagrams at a time, and costs less in all.
With another checkout, whose virtual environment `make .venv/made` has made there, bursts to its worker and to this one
come in turns, so that a machine that changes its speed affects both.
Environment: BENCH_DATAGRAMS (200000) of each kind; BENCH_BURST (2000) at a time; BENCH_OTHER.
"""

from __future__ import annotations

import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks.common import LOOPBACK_GROUP, Workplace, cpu_seconds, goal, table
from cexec.protocol.base.keys import ClientKey, decode_key
from cexec.protocol.base.limits import IDENTITY_SIZE, MAXIMUM_HOPS
from cexec.protocol.datagrams.announcement import SealedAnnouncement

if TYPE_CHECKING:
    from collections.abc import Mapping

DATAGRAMS = int(os.environ.get("BENCH_DATAGRAMS", 200_000))
PORT, OTHER_PORT = 3010, 3011
ADDRESS = "127.0.0.1"
BURST = int(os.environ.get("BENCH_BURST", 2000))  # that come while the worker is stopped; without CAP_NET_ADMIN less
SETTLED = 0.005  # seconds after which the worker has handled everything that it has taken
GOAL = 5.0  # microseconds


def main() -> None:
    checkout = os.environ.get("BENCH_OTHER", "")
    with Workplace() as place, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        place.environment["CEXEC_GROUP"] = f"{LOOPBACK_GROUP},{ADDRESS}"
        services = {PORT: place.service("true", port=PORT).pid}
        if checkout:
            services[OTHER_PORT] = other_service(place, Path(checkout)).pid
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        other = strangers(place)
        floods = {
            "noise of 300 bytes": (os.urandom(300), LOOPBACK_GROUP),
            "another application's announcement": (other, LOOPBACK_GROUP),
            "the same by unicast": (other, ADDRESS),
        }
        costs = {name: flood(sender, services, data, to) for name, (data, to) in floods.items()}
    rows = {name: f"{cost[PORT]:.2f} us of CPU" for name, cost in costs.items()}
    if checkout:
        rows = {
            name: f"{row}, {cost[OTHER_PORT]:.2f} us in the other checkout, {cost[PORT] / cost[OTHER_PORT]:.2f} times"
            for (name, row), cost in zip(rows.items(), costs.values(), strict=True)
        }
    table(f"{DATAGRAMS} datagrams each, in bursts of {BURST}", rows)
    for name, cost in costs.items():
        goal("P5", name, cost[PORT], GOAL, unit=" us")


def other_service(place: Workplace, checkout: Path) -> subprocess.Popen[bytes]:
    """Starts the worker of another checkout, with a key of its own."""
    changes = {"PYTHONPATH": "", "CEXEC_UDP_PORT": str(OTHER_PORT)}
    commands, key = checkout / ".venv" / "bin", place.directory / "other-version"
    argv = [commands / "ckeygen", key]
    subprocess.run(argv, env={**place.environment, **changes}, check=True, capture_output=True)
    process = place.start(
        [os.fspath(commands / "cservice"), "-j", "64", "--speed", "1", os.fspath(key), "true"], changes
    )
    place.wait_for(process, "cservice: serving")
    return process


def strangers(place: Workplace) -> bytes:
    """Returns an announcement under keys that the worker does not have."""
    secret, public = place.directory / "other", place.directory / "other.pub"
    subprocess.run(place.command("ckeygen", secret, public), env=place.environment, check=True, capture_output=True)
    key = decode_key(public.read_bytes())
    assert isinstance(key, ClientKey)
    return SealedAnnouncement(key, job_id=bytes(IDENTITY_SIZE), attempt=1).datagram(0, 40000, MAXIMUM_HOPS)


def flood(sender: socket.socket, services: Mapping[int, int], data: bytes, to: str) -> dict[int, float]:
    """Returns microseconds of each worker's CPU, by port, for a datagram that it took: the median of all bursts."""
    costs: dict[int, list[float]] = {port: [] for port in services}
    for _ in range(DATAGRAMS // BURST):
        for port, pid in services.items():
            costs[port].append(burst(sender, port, pid, data, to))
    return {port: statistics.median(measured) for port, measured in costs.items()}


def burst(sender: socket.socket, port: int, pid: int, data: bytes, to: str) -> float:
    """Returns microseconds of the worker's CPU for each datagram of one burst."""
    dropped, used = waiting(port)[1], cpu_seconds(pid)
    os.kill(pid, signal.SIGSTOP)
    for _ in range(BURST):
        sender.sendto(data, (to, port))
    os.kill(pid, signal.SIGCONT)
    while waiting(port)[0]:
        time.sleep(0.001)
    time.sleep(SETTLED)
    return (cpu_seconds(pid) - used) / (BURST - (waiting(port)[1] - dropped)) * 1e6


def waiting(port: int) -> tuple[int, int]:
    """Returns the kernel's figures for the port: bytes that wait in its sockets, and datagrams that were dropped."""
    queued = dropped = 0
    for line in Path("/proc/net/udp").read_text().splitlines()[1:]:
        fields = line.split()
        if int(fields[1].rpartition(":")[2], 16) == port:
            queued += int(fields[4].rpartition(":")[2], 16)
            dropped += int(fields[-1])
    return queued, dropped


if __name__ == "__main__":
    main()
