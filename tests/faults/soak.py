"""`python -m tests.faults.soak`: a farm that runs for a long time while everything in it fails in turn.

    --jobs N       at least so many jobs, 10,000 by default
    --minutes N    at least so long, 20 by default
    --seed N       the order of the faults, 1 by default
    --records DIR  where the records are kept, if there was harm

Contract: `soak(directory, jobs, seconds, seed)` returns a `Report`.  There are four hosts with workers, one of them
behind a relay, and two loggers.  Each of FAULTS comes once in a round, in an order that the seed gives.  The checker of
the campaign judges the jobs.  One worker is never restarted: its memory, descriptors and processes are compared with
those after its first jobs.  Exit status: 0 without harm, 1 with it.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.faults.checker import check
from tests.faults.load import Plan
from tests.faults.network_rows import reset_all
from tests.faults.records import Submitted, read_all
from tests.faults.scene import PATIENCE, Layout, Scene
from tests.faults.worker import Worker
from tests.faults.worker_rows import restart
from tests.waiting import comes_true, wait_until

LAYOUT = Layout(networks=((1, 2, 3, 4, 6, 8, 9), (6, 5)), workers=(2, 3, 4, 5), relays=(6,), second_logger=8)
PLAN = Plan(small=2, bulk=(5_000_000,), tasks=100, at_once=8, options=("--retries", "9"))
RELAY = "relay"
STEADY = 1  # the place of the worker that is never restarted
CUT_FOR = 3.0  # seconds
PAUSE = 2.0  # seconds between two faults
MEMORY_GROWTH = 20_000_000  # bytes
SETTLE = 60.0  # seconds in which what the last jobs have used must be given back; a relay keeps some ports for 20 s

Fault = Callable[[Scene, random.Random], int]


def _victim(scene: Scene, dice: random.Random) -> Worker:
    return dice.choice([worker for place, worker in enumerate(scene.workers) if place != STEADY])


def kill_worker(scene: Scene, dice: random.Random) -> int:
    worker = _victim(scene, dice)
    worker.kill()
    worker.start()
    return 1


def restart_worker(scene: Scene, dice: random.Random) -> int:
    restart(_victim(scene, dice))
    return 1


def kill_job_processes(scene: Scene, dice: random.Random) -> int:
    return dice.choice(scene.workers).kill_job_processes()


def stop_worker(scene: Scene, dice: random.Random) -> int:
    pids = _victim(scene, dice).service.pids()
    for number in (signal.SIGSTOP, signal.SIGCONT):
        for pid in pids:
            with suppress(ProcessLookupError):  # a job has ended meanwhile
                os.kill(pid, number)
        scene.last(CUT_FOR if number == signal.SIGSTOP else 0)
    return 1


def partition(scene: Scene, dice: random.Random) -> int:
    """Between the client and one worker; the one behind the relay hears the client only through it."""
    host = dice.choice(scene.workers[:3]).host
    host.drop(100, match=f"ip saddr {scene.client.address}")
    host.drop(100, match=f"ip daddr {scene.client.address}", hook="output")
    scene.last(CUT_FOR)
    host.clear_rules()
    return 1


def cut_link(scene: Scene, dice: random.Random) -> int:
    host = dice.choice([scene.client, *(worker.host for worker in scene.workers)])
    host.link(up=False)
    scene.last(CUT_FOR)
    host.link(up=True)
    return 1


def lose_datagrams(scene: Scene, dice: random.Random) -> int:
    for host in scene.lab.hosts:
        host.drop(30)
    scene.last(CUT_FOR)
    for host in scene.lab.hosts:
        host.clear_rules()
    return 1


def reset_connections(scene: Scene, dice: random.Random) -> int:
    return reset_all(scene)


def restart_relay(scene: Scene, dice: random.Random) -> int:
    scene.relays[0].kill()
    scene.last(1.0)
    scene.relays[0] = scene.relay(LAYOUT.relays[0])
    return 1


def restart_logger(scene: Scene, dice: random.Random) -> int:
    """One of the two, so that there is always one."""
    number = dice.randrange(len(scene.loggers))
    scene.loggers[number].close()
    scene.loggers[number] = scene.logger(number)
    return 1


def kill_clients(scene: Scene, dice: random.Random) -> int:
    return sum(scene.load.signal(lane, signal.SIGKILL) for lane in ("small0", "bulk"))


FAULTS: dict[Fault, str] = {
    kill_worker: "cservice killed, and started again",
    restart_worker: "cservice restarted",
    kill_job_processes: "job process killed",
    stop_worker: "host stopped for 3 s",
    partition: "partition of 3 s",
    cut_link: "link down for 3 s",
    lose_datagrams: "30 % of datagrams lost for 3 s",
    reset_connections: "connection reset",
    restart_relay: "relay killed, and started again",
    restart_logger: "logger restarted",
    kill_clients: "client killed",
}


@dataclass
class State:
    """What a part of the farm uses."""

    descriptors: int
    processes: int
    memory: int  # bytes

    @classmethod
    def of(cls, pids: list[int]) -> State:
        processes = [psutil.Process(pid) for pid in pids]
        return cls(
            processes[0].num_fds(), len(processes), sum(process.memory_info().rss for process in processes)
        )  # fmt: skip

    def grown(self, before: State) -> bool:
        return (
            self.descriptors > before.descriptors
            or self.processes > before.processes
            or self.memory > before.memory + MEMORY_GROWTH
        )


@dataclass
class Report:
    """`before` and `after`: the steady worker, and each logger and relay."""

    jobs: int = 0
    seconds: float = 0
    faults: Counter[str] = field(default_factory=Counter)
    counts: dict[str, int] = field(default_factory=dict)
    before: dict[str, State] = field(default_factory=dict)
    after: dict[str, State] = field(default_factory=dict)
    harm: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        told = [f"{self.jobs:,} jobs in {self.seconds / 60:.1f} minutes, {self.faults.total():,} faults:"]
        told += [f"    {count:5,} {name}" for name, count in self.faults.items()]
        told += ["    " + ", ".join(f"{name} {count}" for name, count in self.counts.items())]
        for name, before in self.before.items():
            after = self.after[name]
            told.append(
                f"    {name}: descriptors {before.descriptors} → {after.descriptors}, processes {before.processes} → "
                f"{after.processes}, memory {before.memory / 1e6:.0f} → {after.memory / 1e6:.0f} MB"
            )
        return [*told, *(f"    !! {line}" for line in self.harm)]


def soak(
    directory: Path, jobs: int, seconds: float, seed: int = 1, plan: Plan = PLAN, faults: Sequence[Fault] = (*FAULTS,)
) -> Report:
    """At least one round of `faults`."""
    report, dice, began = Report(), random.Random(seed), time.monotonic()
    scene = Scene(directory, LAYOUT, plan)
    with scene:
        scene.warm_up()
        report.before = _states(scene)
        scene.load.start()
        wait_until(lambda: scene.load.done >= len(scene.load.lanes) or scene.load.errors, PATIENCE)
        while not report.faults or time.monotonic() < began + seconds or _submitted(directory) < jobs:
            for fault in dice.sample(faults, len(faults)):
                with scene.fault() as tally:
                    tally.count = fault(scene, dice)
                report.faults[FAULTS[fault]] += tally.count
                scene.last(min(PAUSE, seconds))
            print(f"    {(time.monotonic() - began) / 60:.1f} minutes, {_submitted(directory):,} jobs, "
                  f"{report.faults.total():,} faults", flush=True)  # fmt: skip
        scene.load.stop()
        report.seconds = time.monotonic() - began
        scene.settle()
        comes_true(lambda: not _grown(report, _states(scene)), SETTLE, pause=0.5)
        report.after = _states(scene)
    evidence = scene.evidence()
    verdict = check(evidence)
    report.jobs, report.counts = len(evidence.submitted), verdict.counts
    report.harm = verdict.lines() + [f"traceback: {line}" for line in scene.tracebacks()]
    report.harm += [f"{name} has grown" for name in _grown(report, report.after)]
    return report


def _states(scene: Scene) -> dict[str, State]:
    steady = scene.workers[STEADY].service
    parts = {"worker": [steady.pid, *(pid for pid in steady.pids() if pid != steady.pid)]}
    parts |= {f"logger {number}": [logger.process.pid] for number, logger in enumerate(scene.loggers, 1)}
    parts |= {RELAY: [scene.relays[0].process.pid]}
    return {name: State.of(pids) for name, pids in parts.items()}


def _grown(report: Report, now: dict[str, State]) -> list[str]:
    return [name for name, state in now.items() if state.grown(report.before[name])]


def _submitted(directory: Path) -> int:
    return len(read_all(directory, Submitted))


def main() -> int:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    parser = argparse.ArgumentParser(prog="make soak", description="A farm in which everything fails in turn.")
    parser.add_argument("--jobs", type=int, default=10_000, metavar="N")
    parser.add_argument("--minutes", type=float, default=20.0, metavar="N")
    parser.add_argument("--seed", type=int, default=1, metavar="N")
    parser.add_argument("--records", type=Path, metavar="DIR")
    options = parser.parse_args()
    directory = (options.records or Path(tempfile.mkdtemp(prefix="cexec-soak-"))) / "soak"
    report = soak(directory, options.jobs, options.minutes * 60, options.seed)
    print("\n".join(report.lines()))
    print(f"\nharm; records are in {directory}" if report.harm else "\nno harm")
    return 1 if report.harm else 0


if __name__ == "__main__":
    sys.exit(main())
