"""How long it takes from the end of each fault until jobs succeed again.

Contract: a lane is a client that runs one small job after the other, so a client that still waits for what a fault has
cost it counts in full.  A run of `cmap` is such a lane, too: the time of a success is that at which its result came
into being.  `recovery(directory, lanes)` looks for the slowest lane after the worst fault; None if a lane has not
succeeded since.  Jobs take time without any fault, the more so on a busy machine: `usual` is the longest time that this
lane needed for a success before the first fault, and what counts is the time beyond that.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from tests.faults.records import CEXEC, CMAP, Ended, Fault, Submitted, read_all


@dataclass(frozen=True)
class Recovery:
    """Seconds, from the end of a fault to the end of a job, and for a job before the faults."""

    seconds: float
    usual: float
    lane: str

    @property
    def beyond(self) -> float:
        return self.seconds - self.usual


@dataclass(frozen=True)
class Success:
    """A job that was submitted at `begin` and had succeeded at `end`."""

    begin: float
    end: float


def recovery(directory: Path, lanes: set[str]) -> Recovery | None:
    faults = read_all(directory, Fault)
    successes = find_successes(directory)
    found: list[Recovery] = []
    for lane in sorted(lanes):
        usual = _usual(successes[lane], min((fault.begin for fault in faults), default=0.0))
        for fault in faults:
            after = [success.end - fault.end for success in successes[lane] if success.end >= fault.end]
            if not after:
                return None
            found.append(Recovery(min(after), usual, lane))
    return max(found, key=lambda one: one.beyond, default=None)


def _usual(successes: list[Success], until: float) -> float:
    longest, last = 0.0, 0.0
    for success in sorted(successes, key=lambda one: one.end):
        if success.end <= until:
            longest = max(longest, success.end - max(last, success.begin))
            last = success.end
    return longest


def find_successes(directory: Path) -> dict[str, list[Success]]:
    """Each lane's."""
    ended = {one.id: one for one in read_all(directory, Ended)}
    found: dict[str, list[Success]] = defaultdict(list)
    for job in read_all(directory, Submitted):
        if job.way == CEXEC and job.id in ended and ended[job.id].status == job.status:
            found[job.lane].append(Success(job.time, ended[job.id].time))
        elif job.way == CMAP and (result := directory / "out" / job.id).exists():
            found[job.lane].append(Success(job.time, result.stat().st_ctime))
    return found
