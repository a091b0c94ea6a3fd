"""Relays that are killed and started again, while jobs run and while jobs wait."""

from __future__ import annotations

from tests.faults.load import Plan
from tests.faults.rows import NETWORK, row
from tests.faults.scene import Layout, Scene

RELAYED = Layout(networks=((1, 2), (2, 3, 4, 9)), workers=(3, 4), relays=(2,))
PARALLEL = Layout(networks=((1, 11, 12), (11, 12, 3, 4, 9)), workers=(3, 4), relays=(11, 12))


@row("relay killed", NETWORK, "one of two relays side by side is killed with jobs on it, three times",
     layout=PARALLEL)  # fmt: skip
def relay_killed(scene: Scene) -> None:
    for number in range(3):
        scene.work()
        with scene.fault():
            scene.relays[number % 2].kill()
        scene.work()
        scene.relays[number % 2] = scene.relay(scene.layout.relays[number % 2])


@row("relay restarted", NETWORK, "the only relay is killed and started again a second later, three times",
     layout=RELAYED)  # fmt: skip
def relay_restarted(scene: Scene) -> None:
    for _ in range(3):
        scene.work()
        with scene.fault():
            scene.relays[0].kill()
            scene.last(1.0)
            scene.relays[0] = scene.relay(scene.layout.relays[0])


@row("relay restarted while jobs wait", NETWORK, "the same twice, with one slot, so that most jobs wait",
     layout=Layout(networks=((1, 2), (2, 3, 9)), workers=(3,), relays=(2,), slots=1),
     plan=Plan(bulk=(5_000_000,), tasks=0, everywhere=False))  # fmt: skip
def relay_restarted_while_jobs_wait(scene: Scene) -> None:
    for _ in range(2):
        scene.work()
        with scene.fault():
            scene.relays[0].kill()
            scene.last(1.0)
            scene.relays[0] = scene.relay(scene.layout.relays[0])
        scene.last(2.0)


@row("two relays killed", NETWORK, "both relays are killed, and one is started again a second later, twice",
     layout=PARALLEL)  # fmt: skip
def two_relays_killed(scene: Scene) -> None:
    for _ in range(2):
        scene.work()
        with scene.fault():
            for relay in scene.relays:
                relay.kill()
            scene.last(1.0)
            scene.relays[1] = scene.relay(scene.layout.relays[1])
        scene.work()
        scene.relays[0] = scene.relay(scene.layout.relays[0])
