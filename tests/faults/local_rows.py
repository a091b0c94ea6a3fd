"""What whoever starts a command leaves to it: signals that are ignored, logs that nobody reads, a poor /proc."""

from __future__ import annotations

import sys

from tests.environment import ROOT
from tests.faults.load import Lane, Plan, Shape, submit_to_file
from tests.faults.records import CAT
from tests.faults.rows import LOCAL, row
from tests.faults.scene import Scene
from tests.faults.worker_rows import restart

DEAF = """
import os, signal, sys
every = set(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP}
for number in every:
    try:
        signal.signal(number, signal.SIG_IGN)
    except OSError:
        pass
signal.pthread_sigmask(signal.SIG_BLOCK, every - {signal.SIGTERM})
os.execv(sys.argv[1], sys.argv[1:])
"""
DEAF_LAUNCHER = (sys.executable, "-S", "-c", DEAF)
CSERVICE = (sys.executable, str(ROOT / "bin" / "cservice"))
EMPTY_STAT = 'for file in stat loadavg meminfo; do mount --bind /dev/null /proc/$file || exit; done; exec "$@"'
JOBS = 8


def submit_deaf(lane: Lane) -> None:
    submit_to_file(lane, lane.load.shape(), launcher=DEAF_LAUNCHER)


def until(scene: Scene, ended: int) -> None:
    while scene.load.lanes["own0"].done < ended:
        with scene.fault(4):
            scene.work(4)


@row("signals ignored and blocked", LOCAL, "clients and workers are started with all signals ignored and blocked",
     plan=Plan(bulk=(5_000_000,), others=(submit_deaf,)))  # fmt: skip
def deaf(scene: Scene) -> None:
    for worker in scene.workers[:2]:
        with scene.fault():
            restart(worker, launcher=[*DEAF_LAUNCHER, *CSERVICE])
        scene.work(2)
    until(scene, JOBS)


@row("logs that nobody reads", LOCAL, "nobody reads what workers write to stderr, a pipe of 4 KB, until it is full",
     plan=Plan(bulk=(5_000_000,)))  # fmt: skip
def logs_that_nobody_reads(scene: Scene) -> None:
    for worker in scene.workers:
        with scene.fault(), worker.service.unread():
            scene.work(40)


def submit_failing_descriptor(lane: Lane) -> None:
    """Descriptor 3 is a full device, and the program writes there, or does not."""
    act = "third" if lane.done % 2 else ""
    launcher = ("sh", "-c", 'exec "$0" "$@" 3>/dev/full')
    submit_to_file(lane, Shape(70_000, CAT, act=act), launcher=launcher, variables={"CEXEC_MAXFD": "3"})


@row("descriptors that fail", LOCAL, "descriptor 3 of clients is a full device, and every second program writes there",
     plan=Plan(bulk=(5_000_000,), others=(submit_failing_descriptor,)))  # fmt: skip
def descriptors_that_fail(scene: Scene) -> None:
    until(scene, JOBS)


@row("/proc without figures", LOCAL, "workers see empty files in place of /proc/stat, loadavg and meminfo",
     plan=Plan(bulk=(5_000_000,)))  # fmt: skip
def poor_proc(scene: Scene) -> None:
    for worker in scene.workers[:2]:
        with scene.fault():
            restart(worker, launcher=["unshare", "--mount", "sh", "-c", EMPTY_STAT, "sh", *CSERVICE])
        scene.work(8)
