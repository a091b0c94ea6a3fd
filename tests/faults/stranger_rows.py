"""Neighbours without a key, and relays that lie."""

from __future__ import annotations

from tests.faults import tamper
from tests.faults.link import Script
from tests.faults.load import Plan
from tests.faults.rows import CONNECTION, DATAGRAM, HOST, HOSTILE, NETWORK, row
from tests.faults.scene import Layout, Scene
from tests.faults.stream_rows import LAYOUT as BEHIND_A_BAD_RELAY
from tests.faults.stream_rows import PLACES

# One slot each, so that some client always waits with an open port.
WAITING = Layout(networks=((1, 2, 3, 8, 9),), workers=(2, 3), slots=1, stranger=8)
PLAN = Plan(small=3, bulk=(5_000_000,), tasks=4, everywhere=False)
LOOP = Layout(networks=((1, 11, 12), (11, 12, 3, 4, 9)), workers=(3, 4), relays=(11, 12))
ROUND = 3.0  # seconds
FORGET = 61.0  # seconds: longer than a worker remembers an announcement
VICTIMS = [f"10.77.0.{number}" for number in (1, 2, 3, 9)]


def stranger(scene: Scene) -> Script:
    host = scene.lab.host(scene.layout.stranger)
    return scene.hires(Script(host, "stranger.py", f"{host.address.rpartition('.')[0]}.255"))


def connect(scene: Scene, rounds: int, what: str, count: int) -> None:
    """So many connections to each client that waits, in several rounds."""
    someone = stranger(scene)
    for _ in range(rounds):
        with scene.fault(0) as fault:
            fault.count = someone.count(what=what, count=count, seconds=ROUND)
        scene.work(2)


@row("64 silent connections", HOSTILE, "a stranger keeps 64 connections to each waiting client open, three times",
     layout=WAITING, plan=PLAN)  # fmt: skip
def silent_64(scene: Scene) -> None:
    connect(scene, 3, "silent", 64)


@row("300 silent connections", HOSTILE, "the same with 300", layout=WAITING, plan=PLAN)
def silent_300(scene: Scene) -> None:
    connect(scene, 2, "silent", 300)


@row("one byte a second", HOSTILE, "64 connections on which a stranger says a byte a second", layout=WAITING, plan=PLAN)
def one_byte_a_second(scene: Scene) -> None:
    connect(scene, 2, "dribble", 64)


@row("other protocols", HOSTILE, "HTTP, TLS, SSH, noise and nothing, ended by FIN or RST, 40 to each waiting client",
     layout=WAITING, plan=PLAN)  # fmt: skip
def other_protocols(scene: Scene) -> None:
    connect(scene, 3, "words", 40)


@row("port scanner", HOSTILE, "a stranger connects to 64,000 ports of the client's host and of a worker's",
     layout=WAITING, plan=PLAN)  # fmt: skip
def port_scanner(scene: Scene) -> None:
    someone = stranger(scene)
    hosts = [scene.client.address, scene.workers[0].host.address]
    for first in range(1_024, 65_024, 8_000):
        with scene.fault(0) as fault:
            fault.count = max(someone.count(what="scan", hosts=hosts, first=first, count=8_000), 1)
        scene.work(1)


@row("datagrams replayed", HOSTILE, "all that is heard in 3 s is sent again 20 times, with other counters, reply ports"
     " and sources; three times", layout=WAITING, plan=PLAN, kind=DATAGRAM)  # fmt: skip
def replayed(scene: Scene) -> None:
    someone = stranger(scene)
    for _ in range(3):
        someone.count(what="record", seconds=ROUND)
        with scene.fault(0) as fault:
            fault.count = someone.count(what="replay", count=20, sources=VICTIMS)
        scene.work(2)


@row("datagrams replayed after a minute", HOSTILE, "the same 61 s later, when workers have forgotten them",
     layout=WAITING, plan=PLAN, kind=DATAGRAM)  # fmt: skip
def replayed_after_a_minute(scene: Scene) -> None:
    someone = stranger(scene)
    someone.count(what="record", seconds=ROUND)
    scene.last(FORGET)
    for _ in range(3):
        with scene.fault(0) as fault:
            fault.count = someone.count(what="replay", count=20, sources=VICTIMS)
        scene.work(2)


MUTED = 12.0  # seconds
WHY_MUTED = "clients wait for connections that are mute; then both workers rest because of complaints"
RELAYED = Plan(bulk=(5_000_000,), everywhere=False, options=("--retries", "5"))


@row("a relay that lies", HOSTILE, "a relay joins workers to other clients, puts bytes in, and keeps quiet, 64 times",
     layout=BEHIND_A_BAD_RELAY, plan=RELAYED, limit=MUTED, reason=WHY_MUTED, kind=CONNECTION)  # fmt: skip
def lying_relay(scene: Scene) -> None:
    assert scene.bad_relay is not None
    for what, places in ((tamper.SWAP, 1), (tamper.INSERT, PLACES), (tamper.MUTE, PLACES // 2)):
        for direction in tamper.DIRECTIONS:
            for _ in range(2 if places > 1 else PLACES):
                with scene.fault(0) as fault:
                    fault.count = scene.bad_relay.sweep(what, direction, range(0, 100 * places, 100))
        scene.work(2)


@row("two relays in a loop", NETWORK, "two relays pass everything back to where the other one has it from",
     layout=LOOP, kind=HOST)  # fmt: skip
def loop(scene: Scene) -> None:
    back = [scene.hires(scene.relay(number, back=True)) for number in LOOP.relays]
    with scene.fault(len(back)):
        scene.last(ROUND)
        scene.work(20)
        for relay in back:
            relay.kill()
