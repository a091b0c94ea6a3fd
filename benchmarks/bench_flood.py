"""Measures the cost of a datagram that a worker ignores, amortised over a flood of them: goal P5.

    make bench BENCH=benchmarks/bench_flood.py

The figure is the CPU time of a real cservice, including the kernel's share, divided by the number of datagrams that it
took; datagrams that the kernel dropped before do not count.  Each burst is complete before the worker looks, as in a
flood that is faster than the worker.  A slower flood wakes it for fewer datagrams at a time, and costs less in all.
Environment: BENCH_DATAGRAMS (200000) of each kind.
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

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks.common import LOOPBACK_GROUP, Workplace, cpu_seconds, goal, table
from cexec.protocol.base.keys import ClientKey, decode_key
from cexec.protocol.base.limits import IDENTITY_SIZE, MAXIMUM_HOPS
from cexec.protocol.datagrams.announcement import SealedAnnouncement

DATAGRAMS = int(os.environ.get("BENCH_DATAGRAMS", 200_000))
PORT = 3010
ADDRESS = "127.0.0.1"
BURST = 2000  # datagrams that come while the worker is stopped; without CAP_NET_ADMIN its socket holds fewer
SETTLED = 0.005  # seconds after which the worker has handled everything that it has taken
GOAL = 5.0  # microseconds


def main() -> None:
    with Workplace() as place, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        place.environment["CEXEC_GROUP"] = f"{LOOPBACK_GROUP},{ADDRESS}"
        service = place.service("true", port=PORT)
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        other = strangers(place)
        floods = {
            "noise of 300 bytes": (os.urandom(300), LOOPBACK_GROUP),
            "another application's announcement": (other, LOOPBACK_GROUP),
            "the same by unicast": (other, ADDRESS),
        }
        costs = {name: flood(sender, service.pid, data, to) for name, (data, to) in floods.items()}
    table(f"{DATAGRAMS} datagrams each", {name: f"{cost:.2f} us of CPU" for name, cost in costs.items()})
    for name, cost in costs.items():
        goal("P5", name, cost, GOAL, unit=" us")


def strangers(place: Workplace) -> bytes:
    """Returns an announcement under keys that the worker does not have."""
    secret, public = place.directory / "other", place.directory / "other.pub"
    subprocess.run(place.command("ckeygen", secret, public), env=place.environment, check=True, capture_output=True)
    key = decode_key(public.read_bytes())
    assert isinstance(key, ClientKey)
    return SealedAnnouncement(key, job_id=bytes(IDENTITY_SIZE), attempt=1).datagram(0, 40000, MAXIMUM_HOPS)


def flood(sender: socket.socket, pid: int, data: bytes, to: str) -> float:
    """Returns microseconds of the worker's CPU for each datagram that it took, the median of all bursts."""
    costs: list[float] = []
    for _ in range(DATAGRAMS // BURST):
        dropped, used = waiting()[1], cpu_seconds(pid)
        os.kill(pid, signal.SIGSTOP)
        for _ in range(BURST):
            sender.sendto(data, (to, PORT))
        os.kill(pid, signal.SIGCONT)
        while waiting()[0]:
            time.sleep(0.001)
        time.sleep(SETTLED)
        costs.append((cpu_seconds(pid) - used) / (BURST - (waiting()[1] - dropped)) * 1e6)
    return statistics.median(costs)


def waiting() -> tuple[int, int]:
    """Returns the kernel's figures for the port: bytes that wait in its sockets, and datagrams that were dropped."""
    queued = dropped = 0
    for line in Path("/proc/net/udp").read_text().splitlines()[1:]:
        fields = line.split()
        if int(fields[1].rpartition(":")[2], 16) == PORT:
            queued += int(fields[4].rpartition(":")[2], 16)
            dropped += int(fields[-1])
    return queued, dropped


if __name__ == "__main__":
    main()
