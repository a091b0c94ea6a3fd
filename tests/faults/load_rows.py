"""Loads that are too much: jobs that multiply, that stay, that kill what carries them, and very many of them."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from tests.environment import ROOT
from tests.faults.load import Lane, Plan, Shape, submit_small, submit_to_file
from tests.faults.records import EXIT
from tests.faults.rows import LOAD, row
from tests.faults.scene import Scene
from tests.faults.worker_rows import restart
from tests.waiting import comes_true

RELEASED = "0234596"  # the commit of 0.1.0
AT_ONCE = 500
PATIENCE = 300.0  # seconds for all of them
REST = "the job fails at each worker, and clients complain of each: they rest for up to 5 s"
LIMIT = 8.0  # seconds


def submitting(act: str, *options: str) -> Callable[[Lane], None]:
    def submit(lane: Lane) -> None:
        submit_to_file(lane, Shape(1_000, EXIT, 7, act=act), options=options)

    return submit


def acts(act: str, lanes: int = 1, *options: str) -> Plan:
    """Jobs that do this, beside the others."""
    return Plan(bulk=(5_000_000,), others=tuple(submitting(act, *options) for _ in range(lanes)))


def until(scene: Scene, ended: int) -> None:
    """Each end of such a job is a fault."""
    lanes = [lane for name, lane in scene.load.lanes.items() if name.startswith("own")]
    while (before := sum(lane.done for lane in lanes)) < ended:
        with scene.fault(0) as fault:
            scene.work(4)
            fault.count = sum(lane.done for lane in lanes) - before
    for lane in lanes:
        lane.stopping.set()
    scene.work(8)


@row("fork bomb", LOAD, "jobs that leave 300 processes each, in sessions of their own", plan=acts("bomb"))
def fork_bomb(scene: Scene) -> None:
    until(scene, 12)


@row("standard output held", LOAD, "jobs whose grandchild holds standard output for 2 s after their end",
     plan=acts("hold", 2))  # fmt: skip
def output_held(scene: Scene) -> None:
    until(scene, 12)


@row("jobs that kill their worker", LOAD, "jobs that kill the process that carries them, and are given up after three"
     " attempts", plan=acts("kill", 1, "--retries", "2"), limit=LIMIT, reason=REST)  # fmt: skip
def jobs_that_kill(scene: Scene) -> None:
    until(scene, 6)


@row("jobs that escape", LOAD, "the same, and leave a process without an environment in a session of its own",
     plan=acts("escape", 1, "--retries", "2"), limit=LIMIT, reason=REST)  # fmt: skip
def jobs_that_escape(scene: Scene) -> None:
    until(scene, 6)


@row("500 at once", LOAD, "500 clients start at the same moment, at 12 slots", plan=Plan(small=1, piped=0, bulk=()))
def at_once(scene: Scene) -> None:
    lanes = [Lane(scene.load, f"burst{number}", submit_small, PATIENCE) for number in range(AT_ONCE)]
    threads = [threading.Thread(target=lane.submit_once) for lane in lanes]
    with scene.fault():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def submit_with_0_1_0(lane: Lane) -> None:
    """Waits for the tree, and runs its command in place of today's."""
    tree = lane.load.directory / "released"
    if comes_true(lambda: tree.exists() or lane.stopping.is_set(), PATIENCE) and tree.exists():
        launcher = ("sh", "-c", 'command=$1 python=$2; shift 3; exec "$python" "$command" "$@"', "sh")
        variables = {"PYTHONPATH": str(tree)}
        submit_to_file(lane, lane.load.shape(), launcher=(*launcher, str(tree / "bin" / "cexec")), variables=variables)


@row("version 0.1.0 with this one", LOAD, "a worker is changed to 0.1.0 and back, three times, and clients of 0.1.0"
     " call",
     plan=Plan(bulk=(5_000_000,), others=(submit_with_0_1_0,)))  # fmt: skip
def versions(scene: Scene) -> None:
    tree = released(scene.directory / "released")
    for number in range(3):
        worker = scene.workers[number % len(scene.workers)]
        with scene.fault():
            restart(worker, launcher=[sys.executable, str(tree / "bin" / "cservice")],
                    environment={"PYTHONPATH": str(tree)})  # fmt: skip
        scene.work(8)
        with scene.fault():
            restart(worker)
        scene.work(4)


def released(tree: Path) -> Path:
    """0.1.0, from the history of this repository; the tree is there only when it is whole."""
    argv = ["git", "-C", str(ROOT), "archive", RELEASED, "cexec", "bin"]
    archive = subprocess.run(argv, capture_output=True, check=True)
    part = tree.with_suffix(".part")
    part.mkdir()
    subprocess.run(["tar", "-x", "-C", part], input=archive.stdout, check=True)
    return part.rename(tree)
