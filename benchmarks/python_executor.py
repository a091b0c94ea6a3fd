"""Measures `cexec.Executor` beside ProcessPoolExecutor, Dask distributed with processes, and loky, on two slots each.

Goals: no-op calls by `submit` with 1,000 in flight at least 2 times as fast as with Dask and half as fast as with
ProcessPoolExecutor; 3 ms for a lone call on a held slot; 0.5 s until the first result of a fresh executor; 0.6 s for a
call that takes and returns 100 MB.  Each measurement is a process of its own; the executors take turns.
Environment: BENCH_ROUNDS (3), BENCH_CALLS (10,000).
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path

from benchmarks.common import PATIENCE, ROOT, Unfit, Workplace, goal, rounds, skipped, table

PEERS = ("cexec", "processes", "dask", "loky")
PORT = 3010


def measure_one(place: Workplace, peer: str) -> dict[str, float]:
    argv = [str(place.python), str(Path(ROOT, "benchmarks", "executor_calls.py")), peer, str(place.public)]
    variables = {**place.environment, "CEXEC_UDP_PORT": str(PORT)}
    ended = subprocess.run(argv, env=variables, capture_output=True, text=True, timeout=PATIENCE)
    if ended.returncode or not ended.stdout.startswith("{"):
        raise Unfit(ended.stderr.strip().rpartition("\n")[2])
    return {name: float(value) for name, value in json.loads(ended.stdout.splitlines()[0]).items()}


def measure() -> None:
    found: dict[str, list[dict[str, float]]] = {peer: [] for peer in PEERS}
    with Workplace() as place:
        place.service(sys.executable, "-m", "cexec.pool", port=PORT, options=["-j", "2"])
        for _ in range(rounds(3)):
            for peer in list(found):
                try:
                    found[peer].append(measure_one(place, peer))
                except Unfit as reason:
                    skipped(peer, str(reason))
                    del found[peer]
    medians = {
        peer: {name: statistics.median(one[name] for one in times) for name in times[0]}
        for peer, times in found.items()
    }
    rows = {
        peer: f"first {one['first']:.2f} s, {one['rate']:,.0f} calls/s, lone {one['lone'] * 1000:.2f} ms, "
        f"100 MB {one['large']:.2f} s"
        for peer, one in medians.items()
    }
    table("executors on two slots, medians", rows)
    ours = medians["cexec"]
    for peer, limit in (("dask", 2.0), ("processes", 0.5)):
        if peer in medians:
            goal("E1", f"rate of no-op calls, times {peer}", ours["rate"] / medians[peer]["rate"], limit, at_least=True)
    goal("E2", "a lone call on a held slot", ours["lone"] * 1000, 3.0, unit=" ms")
    goal("E3", "first result of a fresh executor", ours["first"], 0.5, unit=" s")
    goal("E4", "a call that takes and returns 100 MB", ours["large"], 0.6, unit=" s")
