"""Counts the system calls of a short leased job: those of the job process, of `cservice`, and of the client.

One client runs `true` COUNT_JOBS times (300) over a lease of one worker with one slot, while strace follows them all.
strace makes every call slow, so a job takes longer than 2 ms here: its STARTED goes out alone, and its process names
the program in its record. Without strace a job has fewer calls. The calls of the program itself are not counted.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks.bench_leases import ACCEPT_TIMEOUT, PATIENCE, PORT, make_job
from benchmarks.common import LOOPBACK_GROUP, Workplace, children, skipped
from cexec.client.aio.lease import Lease
from cexec.client.aio.worker_search import Terms, find_worker
from cexec.client.request import NetworkSettings, Target, Times
from cexec.net.groups import groups_from_environment
from cexec.protocol.base.keys import ClientKey
from cexec.protocol.base.limits import DEFAULT_IDLE_TIMEOUT
from cexec.system.storage.keyfile import read_key

JOBS = int(os.environ.get("COUNT_JOBS", 300))
FIRST = 20  # jobs before those that are counted
ATTACH = 0.4  # seconds that strace gets to attach: less than a worker waits for a GO
SHOWN = 12  # calls of each party that are named
CALL = re.compile(r"^\S+ (\w+)\(", re.MULTILINE)


async def run_jobs(lease: Lease, count: int) -> None:
    for _ in range(count):
        if not await lease.offered(PATIENCE):
            raise RuntimeError("the worker has ended the lease")
        job = make_job()
        lease.give(job.go())
        assert (await lease.run(job, lambda once: None)).exit_status == 0


async def trace(terms: Terms, service: int, directory: Path) -> dict[str, Counter[str]]:
    """Returns how often each party has made each call."""
    job = make_job()
    lease = await find_worker(terms, lambda hello, address: job.go())
    await lease.run(job, lambda once: None)
    await run_jobs(lease, FIRST)
    (supervisor,) = children(service)
    parties = {"client": os.getpid(), "cservice": service, "job process": children(supervisor)[0]}
    attached = [word for pid in parties.values() for word in ("-p", str(pid))]
    argv = ["strace", "-ff", "-tt", "-o", os.fspath(directory / "calls"), *attached]
    tracer = subprocess.Popen(argv, stderr=subprocess.DEVNULL)
    await asyncio.sleep(ATTACH)
    await run_jobs(lease, JOBS)
    tracer.terminate()
    tracer.wait()
    lease.release()
    return {name: Counter(CALL.findall((directory / f"calls.{pid}").read_text())) for name, pid in parties.items()}


def main() -> None:
    if shutil.which("strace") is None:
        skipped("system calls", "strace is not installed")
        return
    with Workplace() as place, tempfile.TemporaryDirectory() as directory:
        service = place.service("/bin/true", options=["-j", "1"]).pid
        terms = Terms(
            read_key(os.fspath(place.public), (ClientKey,)),
            network=NetworkSettings(groups=groups_from_environment({"CEXEC_GROUP": LOOPBACK_GROUP}), udp_port=PORT),
            times=Times(accept=ACCEPT_TIMEOUT, idle=DEFAULT_IDLE_TIMEOUT),
            target=Target(),
        )
        found = asyncio.run(trace(terms, service, Path(directory)))
    for name, calls in found.items():
        most = ", ".join(f"{call} {count / JOBS:.1f}" for call, count in calls.most_common(SHOWN))
        print(f"{name}: {sum(calls.values()) / JOBS:.1f} system calls a job ({most})")


if __name__ == "__main__":
    main()
