"""Holders of keys who do harm: workers that win and lie, clients that slander, alerts that are forged or lost."""

from __future__ import annotations

from tests.faults.insider import PLAYS
from tests.faults.link import Script
from tests.faults.load import Plan
from tests.faults.rows import DATAGRAM, HOST, HOSTILE, row
from tests.faults.scene import Layout, Scene

LAYOUT = Layout(networks=((1, 2, 3, 7, 8, 9),), workers=(2, 3), stranger=8)
SECOND = 7  # the host of another false worker
PLAN = Plan(bulk=(5_000_000,), options=("--retries", "5"))
STALLING = [name for name in PLAYS if name.startswith(("stalls", "dribbles"))]
DROPPING = [name for name in PLAYS if "drops" in name or "resets" in name]
LYING = [name for name in PLAYS if name not in STALLING and name not in DROPPING]
ROUNDS = 3
KIND_OF_ALERTS = 5  # docs/protocol.md section 2.1
ALERTS = f"udp dport 3010 @th,104,8 {KIND_OF_ALERTS}"
LOST_FOR = 5.0  # seconds


def insider(scene: Scene, side: str, number: int = 0) -> Script:
    host = scene.lab.host(number or scene.layout.stranger)
    key = scene.application.secret if side == "worker" else scene.application.public
    return scene.hires(Script(host, "insider.py", side, str(key), f"{host.address.rpartition('.')[0]}.255"))


def play(scene: Scene, plays: list[str], count: int) -> None:
    """A false worker wins first attempts, and does each of these in turn."""
    worker = insider(scene, "worker")
    for _ in range(ROUNDS):
        with scene.fault(count):
            worker.count(what="play", plays=plays, count=count)
        scene.work(2)


@row("wins and drops", HOSTILE, "a worker that always answers first hangs up at five points, 120 times",
     layout=LAYOUT, plan=PLAN)  # fmt: skip
def wins_and_drops(scene: Scene) -> None:
    play(scene, DROPPING, 40)


@row("wins and stalls", HOSTILE, "such a worker says nothing for 3 s, or a byte a second, and hangs up, 36 times",
     layout=LAYOUT, plan=PLAN)  # fmt: skip
def wins_and_stalls(scene: Scene) -> None:
    play(scene, STALLING, 12)


@row("wins and lies", HOSTILE, "an oversized record, an unknown stream, success with bytes missing, noise, and a text"
     " that expands, 90 times", layout=LAYOUT, plan=PLAN)  # fmt: skip
def wins_and_lies(scene: Scene) -> None:
    play(scene, LYING, 30)


@row("two workers confirm at once", HOSTILE, "two false workers confirm for each first attempt, in the same"
     " milliseconds, and hang up, 60 times", layout=LAYOUT, plan=PLAN)  # fmt: skip
def two_confirm_at_once(scene: Scene) -> None:
    both = [insider(scene, "worker"), insider(scene, "worker", SECOND)]
    for _ in range(ROUNDS):
        with scene.fault(20):
            for worker in both:
                worker.order(what="play", plays=["drops_after_confirming", "drops_after_go"], count=10)
            for worker in both:
                worker.answer()
        scene.work(2)


@row("complaints invented", HOSTILE, "a client complains 1,000 times about each worker, of jobs that it never gave",
     layout=LAYOUT, plan=PLAN, kind=DATAGRAM)  # fmt: skip
def slander(scene: Scene) -> None:
    client = insider(scene, "client")
    for _ in range(ROUNDS):
        scene.work()
        with scene.fault(0) as fault:
            fault.count = client.count(what="slander", count=333)


@row("alerts forged and replayed", HOSTILE, "a client tells of 100 ends of jobs for each worker, whose signature is"
     " wrong; a stranger sends all alerts again 20 times", layout=LAYOUT, plan=PLAN, kind=DATAGRAM)  # fmt: skip
def forged_alerts(scene: Scene) -> None:
    client = insider(scene, "client")
    host = scene.lab.host(SECOND)
    stranger = scene.hires(Script(host, "stranger.py", "10.77.0.255"))
    for _ in range(ROUNDS):
        scene.work()
        stranger.count(what="record", seconds=1.0)
        with scene.fault(0) as fault:
            fault.count = client.count(what="forge", count=100)
            fault.count += stranger.count(what="replay", count=20, sources=[host.address])


@row("alerts lost", HOSTILE, "all alerts that come to the logger are lost for 5 s, three times", layout=LAYOUT,
     plan=PLAN, kind=HOST)  # fmt: skip
def alerts_lost(scene: Scene) -> None:
    logger = scene.lab.host(scene.layout.logger)
    for _ in range(ROUNDS):
        scene.work()
        with scene.fault():
            logger.drop(100, ALERTS)
            scene.last(LOST_FOR)
            logger.clear_rules()
