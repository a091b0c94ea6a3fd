"""Measures jobs a second over leases: one client runs `true` many times on one worker with two slots; all are real.

Two processes that do nothing but start `true` and wait for it show the limit of this machine.  A third measurement is
the CPU time that a job costs each of the parties.  Environment: BENCH_JOBS (1,000 runs a round) and BENCH_SLOTS (2).
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks.common import (
    LOOPBACK_GROUP,
    Workplace,
    children,
    cpu_seconds,
    goal,
    interleaved,
    job_processes,
    rounds,
    table,
)
from cexec.client.aio.lease_job import LeaseJob
from cexec.client.aio.worker_search import Terms, find_worker
from cexec.client.request import NetworkSettings, Target, Times
from cexec.net.groups import groups_from_environment
from cexec.protocol.base.keys import ClientKey
from cexec.protocol.base.limits import DEFAULT_IDLE_TIMEOUT
from cexec.protocol.connection.frames import Stream
from cexec.protocol.connection.options import READS, WRITES
from cexec.system.io.fds import EmptySource, Sink
from cexec.system.storage.keyfile import read_key

JOBS = int(os.environ.get("BENCH_JOBS", 1000))
SLOTS = int(os.environ.get("BENCH_SLOTS", 2))
PORT = 3010
ACCEPT_TIMEOUT = PATIENCE = 20.0  # seconds
GOAL = 1000.0  # jobs a second, goal P4's aim
WORKER_GOAL = 0.7  # milliseconds
STREAMS = [Stream(0, READS), Stream(1, WRITES), Stream(2, WRITES)]
SPAWN = """
import os, sys
for _ in range(int(sys.argv[1])):
    ends = [os.pipe() for _ in range(3)]
    actions = [(os.POSIX_SPAWN_DUP2, pair[number == 0], number) for number, pair in enumerate(reversed(ends))]
    pid = os.posix_spawn(sys.argv[2], ["true"], {}, file_actions=actions, setsid=True)
    for end in (ends[0][1], ends[1][1], ends[2][0]):
        os.close(end)
    for end in (ends[0][0], ends[1][0]):
        os.read(end, 1)
        os.close(end)
    os.close(ends[2][1])
    os.waitpid(pid, 0)
"""


class Discard(Sink):
    """Takes all bytes and drops them."""

    def __init__(self) -> None:
        super().__init__(-1, shared=True)

    def write(self, view: memoryview) -> int:
        return len(view)


class Costs:
    """Returns the CPU seconds of each party so far."""

    def __init__(self, service: int) -> None:
        self.client = time.process_time()
        self.worker = cpu_seconds(service)
        self.leases = sum(map(cpu_seconds, (*children(service), *job_processes(service))))


def make_job() -> LeaseJob:
    return LeaseJob(streams=STREAMS, sources={0: EmptySource()}, sinks={1: Discard(), 2: Discard()})


async def play(terms: Terms, service: int, costs: dict[str, list[float]]) -> float:
    """Returns the jobs a second, once all slots are leased."""
    jobs = [make_job() for _ in range(SLOTS)]
    leases = [await find_worker(terms, lambda hello, address, job=job: job.go()) for job in jobs]  # type: ignore[misc]
    for lease, job in zip(leases, jobs, strict=True):
        await lease.run(job, lambda once: None)
    left = JOBS
    before, start = Costs(service), time.perf_counter()

    async def one(number: int) -> None:
        nonlocal left
        lease = leases[number]
        while left > 0:
            left -= 1
            if not await lease.offered(PATIENCE):
                raise RuntimeError("the worker has ended a lease")
            job = make_job()
            lease.give(job.go())
            result = await lease.run(job, lambda once: None)
            assert result.exit_status == 0

    await asyncio.gather(*map(one, range(SLOTS)))
    rate, after = JOBS / (time.perf_counter() - start), Costs(service)
    for party in ("client", "worker", "leases"):
        costs.setdefault(party, []).append((getattr(after, party) - getattr(before, party)) / JOBS * 1e6)
    for lease in leases:
        lease.release()
    return rate


def spawning(program: str) -> float:
    """Returns the jobs a second of processes that do nothing else."""
    start = time.perf_counter()
    argv = [sys.executable, "-S", "-c", SPAWN, str(JOBS // SLOTS), program]
    processes = [subprocess.Popen(argv) for _ in range(SLOTS)]
    for process in processes:
        process.wait()
    return JOBS / (time.perf_counter() - start)


def main() -> None:
    costs: dict[str, list[float]] = {}
    with Workplace() as place:
        program = "/bin/true"
        service = place.service(program, options=["-j", str(SLOTS)]).pid
        terms = Terms(
            read_key(os.fspath(place.public), (ClientKey,)),
            network=NetworkSettings(groups=groups_from_environment({"CEXEC_GROUP": LOOPBACK_GROUP}), udp_port=PORT),
            times=Times(accept=ACCEPT_TIMEOUT, idle=DEFAULT_IDLE_TIMEOUT),
            target=Target(),
        )
        cases = {
            "leases": lambda: asyncio.run(play(terms, service, costs)),
            "only starting them": lambda: spawning(program),
        }
        found = interleaved(cases, rounds(3))
    table(f"{JOBS} runs of true on {SLOTS} slots, a second", {name: f"{rate:.0f}" for name, rate in found.items()})
    names = {"client": "client", "worker": "cservice", "leases": "the leases' processes, without their programs"}
    middle = {party: median(values) for party, values in costs.items()}
    table("CPU time of a job, microseconds", {names[party]: f"{value:.0f}" for party, value in middle.items()})
    spent = (middle["worker"] + middle["leases"]) / 1000
    goal("P4b", "CPU of a job at its worker, beside the program", spent, WORKER_GOAL, unit=" ms")
    goal("P4", "jobs a second over leases", found["leases"], GOAL, at_least=True)


if __name__ == "__main__":
    main()
