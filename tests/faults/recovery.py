"""How long it takes from the end of each fault until jobs succeed again.

Contract: `recovery(directory, lanes)` is the longest time over all faults and lanes, in seconds, from the fault's end
to the end of the lane's next job that succeeded.  A lane is a client that runs one small job after the other, so a
client that still waits for what the fault has cost it counts in full.  A run of `cmap` is such a lane, too: the time of
a success is that at which its result came into being.  None: a lane has not succeeded since.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from tests.faults.records import CEXEC, CMAP, Ended, Fault, Submitted, read_all


def recovery(directory: Path, lanes: set[str]) -> float | None:
    faults = read_all(directory, Fault)
    successes = _successes(directory)
    longest = 0.0
    for fault in faults:
        for lane in lanes:
            after = [time - fault.end for time in successes[lane] if time >= fault.end]
            if not after:
                return None
            longest = max(longest, min(after))
    return longest


def _successes(directory: Path) -> dict[str, list[float]]:
    """The times of each lane's successes."""
    ended = {one.id: one for one in read_all(directory, Ended)}
    found: dict[str, list[float]] = defaultdict(list)
    for job in read_all(directory, Submitted):
        if job.way == CEXEC and job.id in ended and ended[job.id].status == job.status:
            found[job.lane].append(ended[job.id].time)
        elif job.way == CMAP and (result := directory / "out" / job.id).exists():
            found[job.lane].append(result.stat().st_ctime)
    return found
