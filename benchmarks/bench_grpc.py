"""Measures the gRPC side of `cgate`: the rate of short calls, the throughput of Exec, and the memory.

    make bench BENCH=benchmarks/bench_grpc.py

The caller is a process of its own on the same two cores, in Python, with grpc.aio.  Environment: BENCH_ROUNDS (3),
BENCH_JOBS (1,000 pairs of StartJob and GetJob a round), BENCH_MB (1,000 megabytes one way).
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks.common import Unfit, Workplace, goal, interleaved, rounds, skipped, table

JOBS = int(os.environ.get("BENCH_JOBS", 1000))
MEGABYTES = int(os.environ.get("BENCH_MB", 1000))
LEAST_RATE = 500.0  # pairs of calls a second
LEAST_THROUGHPUT = 150.0  # MB a second, one way
MOST_MEMORY = 130.0  # MB, idle, with HTTP and gRPC
PATIENCE = 300.0  # seconds

BEGIN = """
import asyncio, grpc, sys
from cexec.gate.rpc.wire import cexec_pb2 as wire
from cexec.gate.rpc.wire.cexec_pb2_grpc import ClusterStub

address, token, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
metadata = (("authorization", f"Bearer {token}"),)
"""
PAIRS = f"""{BEGIN}
async def one(stub, numbers):
    for number in numbers:
        started = await stub.StartJob(wire.StartJobRequest(command="true"), metadata=metadata)
        await stub.GetJob(wire.GetJobRequest(id=started.job.id), metadata=metadata)

async def main():
    async with grpc.aio.insecure_channel(address) as channel:
        numbers = iter(range(count))
        await asyncio.gather(*(one(ClusterStub(channel), numbers) for _ in range(50)))

asyncio.run(main())
"""
UP = f"""{BEGIN}
async def main():
    chunk = wire.ExecRequest(stdin=bytes(256 * 1024))
    async with grpc.aio.insecure_channel(address) as channel:
        call = ClusterStub(channel).Exec(metadata=metadata)
        await call.write(wire.ExecRequest(start=wire.StartJobRequest(command="cat >/dev/null")))
        for _ in range(count * 1000000 // (256 * 1024)):
            await call.write(chunk)
        await call.done_writing()
        async for answer in call:
            last = answer
        assert last.exit.state == wire.JOB_STATE_SUCCEEDED, last

asyncio.run(main())
"""
DOWN = f"""{BEGIN}
async def main():
    async with grpc.aio.insecure_channel(address) as channel:
        call = ClusterStub(channel).Exec(metadata=metadata)
        script = f"head -c {{count}}000000 /dev/zero"
        await call.write(wire.ExecRequest(start=wire.StartJobRequest(command=script)))
        await call.done_writing()
        got = 0
        async for answer in call:
            got += len(answer.stdout)
            last = answer
        assert last.exit.state == wire.JOB_STATE_SUCCEEDED and got == count * 1000000, (got, last)

asyncio.run(main())
"""


def measure() -> None:
    with Workplace() as place:
        place.service("sh", "-c", options=["--allow-args", "-j", "4"])
        state = os.fspath(place.directory / "state")
        argv = place.command("cgate", "--state", state, "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", place.public)
        gate = place.start(argv)
        place.wait_for(gate, " by gRPC at ")
        address = place.said(gate).partition(" by gRPC at ")[2].partition(";")[0]
        added = subprocess.run(
            place.command("cgate", "token", "add", "--state", state, "bench"),
            env=place.environment, capture_output=True, text=True, check=True,
        )  # fmt: skip
        token = added.stdout.strip()
        time.sleep(1.0)
        memory = psutil.Process(gate.pid).memory_info().rss / 1e6

        def seconds(code: str, count: int) -> float:
            start = time.perf_counter()
            ended = subprocess.run(
                [sys.executable, "-c", code, address, token, str(count)],
                env=place.environment, capture_output=True, text=True, timeout=PATIENCE,
            )  # fmt: skip
            if ended.returncode:
                raise Unfit(f"the caller ended with status {ended.returncode}: {ended.stderr[-500:]}")
            return time.perf_counter() - start

        begin = seconds(PAIRS, 0)
        found = interleaved(
            {
                "pairs": lambda: seconds(PAIRS, JOBS) - begin,
                "up": lambda: seconds(UP, MEGABYTES) - begin,
                "down": lambda: seconds(DOWN, MEGABYTES) - begin,
            },
            rounds(3),
        )
    table("gRPC, without the caller's start; calls: 50 at once, 4 slots", {
        "StartJob and GetJob": f"{JOBS / found['pairs']:.0f} pairs a second" if "pairs" in found else "-",
        "Exec, to the program": f"{MEGABYTES / found['up']:.0f} MB a second" if "up" in found else "-",
        "Exec, from the program": f"{MEGABYTES / found['down']:.0f} MB a second" if "down" in found else "-",
        "memory, idle": f"{memory:.0f} MB",
    })  # fmt: skip
    if "pairs" in found:
        goal("gRPC", "pairs of calls a second", JOBS / found["pairs"], LEAST_RATE, at_least=True)
    for name, words in (("up", "to"), ("down", "from")):
        if name in found:
            goal("gRPC", f"MB a second {words} a program", MEGABYTES / found[name], LEAST_THROUGHPUT, at_least=True)
    goal("gRPC", "memory, idle", memory, MOST_MEMORY, unit=" MB")


if __name__ == "__main__":
    try:
        measure()
    except Unfit as reason:
        skipped("gRPC", str(reason))
