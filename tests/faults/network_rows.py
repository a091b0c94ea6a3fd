"""Faults of the network: loss, delay and damage, links that go, connections that are reset."""

from __future__ import annotations

import sys

from tests.faults.link import BadCable
from tests.faults.load import Plan
from tests.faults.rows import CONNECTION, DATAGRAM, NETWORK, row
from tests.faults.scene import Scene
from tests.lab import Host

PHASE = 6.0  # seconds that a lasting fault is on
LIGHT = Plan(bulk=(5_000_000,))


def lasting(scene: Scene, **settings: float) -> None:
    """The client's cable is bad for PHASE."""
    with BadCable(scene.lab, scene.client) as cable:
        scene.work()
        with scene.fault():
            cable.set(**settings)
            scene.last(PHASE)
            scene.work()
            cable.set()
        scene.work()


@row("datagrams lost", NETWORK, "every host loses 30 % of the datagrams that come")
def datagrams_lost(scene: Scene) -> None:
    with scene.fault():
        for host in scene.lab.hosts:
            host.drop(30)
        scene.work(30)
        for host in scene.lab.hosts:
            host.clear_rules()


@row("frames twice", NETWORK, "30 % of the client's frames come twice", plan=LIGHT)
def frames_twice(scene: Scene) -> None:
    lasting(scene, duplicate=0.3)


@row("frames reordered", NETWORK, "the client's frames are 20 to 50 ms late, each for itself", plan=LIGHT)
def frames_reordered(scene: Scene) -> None:
    lasting(scene, delay=0.02, jitter=0.03)


@row("frames damaged", NETWORK, "one bit of 2 % of the client's frames is flipped, which checksums show", plan=LIGHT)
def frames_damaged(scene: Scene) -> None:
    lasting(scene, corrupt=0.02)


@row("damage with good checksums", NETWORK, "one bit of 1 % of the client's packets is flipped, and the checksum fits",
     plan=LIGHT)  # fmt: skip
def damage_with_good_checksums(scene: Scene) -> None:
    lasting(scene, forge=0.01)


@row("connections reset", NETWORK, "all connections of all hosts are reset at one moment, three times", quick=True,
     kind=CONNECTION)  # fmt: skip
def connections_reset(scene: Scene) -> None:
    for _ in range(3):
        scene.work()
        with scene.fault(0) as fault:
            fault.count = reset_all(scene)


def reset_all(scene: Scene) -> int:
    """Resets all connections of all hosts; how many ends of one were there."""
    command = ["ss", "-H", "-t", "-K", "state", "established"]
    ended = [host.run(command, capture_output=True, check=True, text=True).stdout for host in scene.lab.hosts]
    return max(sum(len(text.splitlines()) for text in ended), 1)


@row("connections refused", NETWORK, "for 3 s the client's host answers every packet of TCP with a reset")
def connections_refused(scene: Scene) -> None:
    scene.work()
    with scene.fault():
        scene.client.nft(
            "add table inet lab",
            "add chain inet lab input { type filter hook input priority 0; }",
            "add rule inet lab input meta l4proto tcp reject with tcp reset",
        )
        scene.last(3.0)
        scene.client.clear_rules()


@row("link flaps", NETWORK, "the client's link is down for 5 s and up for 5 s, three times")
def link_flaps(scene: Scene) -> None:
    for _ in range(3):
        scene.work()
        with scene.fault():
            scene.client.link(up=False)
            scene.last(5.0)
            scene.client.link(up=True)
        scene.last(5.0)


@row("partition", NETWORK, "packets between the client and two of three workers are lost for 5 s, three times")
def partition(scene: Scene) -> None:
    for _ in range(3):
        scene.work()
        with scene.fault():
            cut = [worker.host for worker in scene.workers[1:]]
            for host in cut:
                host.drop(100, match=f"ip saddr {scene.client.address}")
                host.drop(100, match=f"ip daddr {scene.client.address}", hook="output")
            scene.last(5.0)
            for host in cut:
                host.clear_rules()


def at_both_ends(scene: Scene) -> list[Host]:
    return [scene.client, *[worker.host for worker in scene.workers]]


@row("small packets", NETWORK, "an MTU of 600 bytes everywhere, while jobs run and afterwards", plan=LIGHT)
def small_packets(scene: Scene) -> None:
    with scene.fault():
        for host in at_both_ends(scene):
            host.mtu(600)
        scene.work(20)
        for host in at_both_ends(scene):
            host.mtu(1500)


@row("black hole", NETWORK, "packets to the client of more than 700 bytes are lost without a word for 6 s", plan=LIGHT)
def black_hole(scene: Scene) -> None:
    scene.work()
    with scene.fault():
        scene.client.drop(100, "meta l4proto tcp meta length > 700")
        scene.last(PHASE)
        scene.client.clear_rules()


@row("slow link", NETWORK, "1 Mbit/s from and to the client, while 64 KB jobs run", plan=Plan(bulk=()))
def slow_link(scene: Scene) -> None:
    with scene.fault():
        for host in at_both_ends(scene):
            host.limit_rate("1mbit")
        scene.work(20)
        for host in at_both_ends(scene):
            host.unlimit_rate()


GARBAGE = """
import os, socket, sys, time
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
for number in range(int(sys.argv[1])):
    head = b"\\xcexec\\x01" + bytes([1 + number % 7]) + b"\\x08\\0" + os.urandom(2) + (40000).to_bytes(2, "big")
    sock.sendto((head if number % 2 else b"") + os.urandom(316), ("10.77.0.255", 3010))
    if number % 100 == 99:
        time.sleep(float(sys.argv[2]))
"""


@row("flood", NETWORK, "a burst of 5,000 datagrams of garbage, then 10,000 a second for 5 s", kind=DATAGRAM)
def flood(scene: Scene) -> None:
    stranger = scene.lab.host(scene.layout.logger)
    for count, pause in ((5_000, 0.0), (50_000, 0.01)):
        scene.work()
        with scene.fault(count):
            stranger.run([sys.executable, "-c", GARBAGE, str(count), str(pause)], check=True)
