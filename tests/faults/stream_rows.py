"""Damage to the bytes of connections: they end, are reset, or are changed at places all over a small session."""

from __future__ import annotations

from tests.faults.load import Plan
from tests.faults.payloads import LARGE
from tests.faults.rows import STREAM, row
from tests.faults.scene import Layout, Scene
from tests.faults.tamper import CUT, DIRECTIONS, FLIP, REPLAY, RESET, TO_CLIENT

LAYOUT = Layout(networks=((1, 2), (2, 3, 4, 9)), workers=(3, 4), bad_relay=2)
PLAN = Plan(bulk=(5_000_000,), everywhere=False, options=("--retries", "5"))
LENGTH = 1_600  # bytes that a small session has in each direction
PLACES = 8  # in each direction
FEW_PLACES = 4


def damage(
    scene: Scene, what: str, directions: tuple[str, ...] = DIRECTIONS, length: int = LENGTH, places: int = PLACES
) -> None:
    """One connection after the other, at places that are spread over it."""
    assert scene.bad_relay is not None
    for direction in directions:
        with scene.fault(places):
            for place in range(places):
                scene.bad_relay.damage(what, direction, place * length // places)
        scene.work()  # so that the damage of the other direction does not count as the time after this one


@row(
    "cut",
    STREAM,
    "FIN at 16 places of a small session, both directions",
    layout=LAYOUT,
    plan=PLAN,
)
def cut(scene: Scene) -> None:
    damage(scene, CUT)


@row(
    "reset",
    STREAM,
    "a reset at 16 places of a small session, both directions",
    layout=LAYOUT,
    plan=PLAN,
)
def reset(scene: Scene) -> None:
    damage(scene, RESET)


@row(
    "one bit",
    STREAM,
    "one bit is flipped at 16 places of a small session",
    layout=LAYOUT,
    plan=PLAN,
)
def one_bit(scene: Scene) -> None:
    damage(scene, FLIP)


@row(
    "one bit of a large job",
    STREAM,
    "one bit is flipped at 8 places of 5 MB",
    layout=LAYOUT,
    plan=PLAN,
    limit=5.0,
    reason="a worker that loses one job after the other rests for 1 and 2 s",
)
def one_bit_of_a_large_job(scene: Scene) -> None:
    damage(scene, FLIP, length=LARGE, places=FEW_PLACES)


@row("replayed flight", STREAM, "a worker's first flight comes on a second connection, too", layout=LAYOUT, plan=PLAN)
def replayed_flight(scene: Scene) -> None:
    damage(scene, REPLAY, (TO_CLIENT,), length=PLACES)
