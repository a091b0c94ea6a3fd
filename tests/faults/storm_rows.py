"""Many faults in a row: damage at places all over small sessions, resets and kills without a pause."""

from __future__ import annotations

import signal

from tests.faults.load import Plan
from tests.faults.network_rows import reset_all
from tests.faults.rows import CLIENT, CONNECTION, NETWORK, STREAM, WORKER, row
from tests.faults.scene import Layout, Scene
from tests.faults.stream_rows import LENGTH
from tests.faults.tamper import CUT, DIRECTIONS, FLIP, RESET

# One worker, which rests for nobody's sake, and many clients.
LAYOUT = Layout(networks=((1, 2), (2, 3, 9)), workers=(3,), bad_relay=2, slots=12)
PLAN = Plan(small=6, piped=1, bulk=(), tasks=60, at_once=6, everywhere=False, options=("--retries", "9"))
STEP = 3  # bytes between two places
STORM = Plan(small=4, bulk=(5_000_000,), tasks=40, at_once=6, everywhere=False, options=("--retries", "9"))
PAUSE = 0.25  # seconds
LIMIT = 8.0  # seconds
LATER = 12.0  # seconds
TRIED_LATER = "a client whose connections break one after the other is tried again after up to 8 s"
REASON = "after so many complaints a worker rests for up to 5 s"


def sweep(scene: Scene, what: str) -> None:
    assert scene.bad_relay is not None
    for direction in DIRECTIONS:
        with scene.fault(0) as fault:
            fault.count = scene.bad_relay.sweep(what, direction, range(0, LENGTH, STEP))
        scene.work(2)


@row(
    "cut everywhere",
    STREAM,
    "FIN at each third byte of a small session, both directions",
    layout=LAYOUT,
    plan=PLAN,
    limit=LATER,
    reason=TRIED_LATER,
)
def cut_everywhere(scene: Scene) -> None:
    sweep(scene, CUT)


@row(
    "reset everywhere",
    STREAM,
    "a reset at each third byte, both directions",
    layout=LAYOUT,
    plan=PLAN,
    limit=LATER,
    reason=TRIED_LATER,
)
def reset_everywhere(scene: Scene) -> None:
    sweep(scene, RESET)


@row(
    "one bit everywhere",
    STREAM,
    "one bit is flipped at each third byte, both directions",
    layout=LAYOUT,
    plan=PLAN,
    limit=LATER,
    reason=TRIED_LATER,
)
def one_bit_everywhere(scene: Scene) -> None:
    sweep(scene, FLIP)


@row("connections reset without a pause", NETWORK, "all connections of all hosts are reset four times a second, for"
     " 60 s", plan=STORM, limit=LIMIT, reason=REASON, kind=CONNECTION)  # fmt: skip
def resets_without_a_pause(scene: Scene) -> None:
    for _ in range(4):
        with scene.fault(0) as fault:
            for _ in range(60):
                fault.count += reset_all(scene)
                scene.last(PAUSE)
        scene.work(2)


@row("job processes killed without a pause", WORKER, "SIGKILL of all job processes of a worker, four times a second,"
     " for 60 s", plan=STORM, limit=LIMIT, reason=REASON)  # fmt: skip
def job_processes_killed_without_a_pause(scene: Scene) -> None:
    for _ in range(4):
        with scene.fault(0) as fault:
            for number in range(60):
                worker = scene.workers[number % len(scene.workers)]
                fault.count += worker.kill_job_processes()
                scene.last(PAUSE)
        scene.work(2)


@row("clients killed without a pause", CLIENT, "SIGKILL of a `cexec` ten times a second, for 40 s",
     plan=Plan(small=8, bulk=(5_000_000,), tasks=8))  # fmt: skip
def clients_killed_without_a_pause(scene: Scene) -> None:
    victims = [name for name in scene.load.lanes if name.startswith("small")][2:]
    for _ in range(4):
        with scene.fault(0) as fault:
            for number in range(100):
                fault.count += scene.load.signal(victims[number % len(victims)], signal.SIGKILL)
                scene.last(0.1)
        scene.work(2)
