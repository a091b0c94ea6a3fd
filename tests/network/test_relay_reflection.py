"""What a stranger who has recorded one announcement makes a relay send to a host that has nothing to do with it.

He sends copies from invented ports of the victim, so that each looks as if it came from another client, and lets a
worker answer.  The relay of 0.1.0 is the released code; docs/security.md has its figures.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cexec.protocol.base.keys import ClientKey
from cexec.protocol.base.limits import UDP_PORT
from cexec.protocol.datagrams import datagram
from cexec.protocol.datagrams.announcement import SealedAnnouncement
from cexec.relay.announcement_table import MAXIMUM_SOURCES
from cexec.system.storage.keyfile import read_key
from tests.conftest import MakeLab, StartService
from tests.environment import ROOT
from tests.needs import require_tool, skip_for_want_of
from tests.relaying import Proxy
from tests.service import Application
from tests.waiting import wait_until

RELEASED = "0234596"  # the commit of 0.1.0
RELEASED_OF_HOST = 512  # announcements of one host that its relay remembered, each with an answer
SOURCES, FIRST = 600, 20_000  # ports of the victim
PAUSE = 0.0022  # seconds between two copies: a relay passes 500 a second on for one host
REPLY_PORT = 4000

# Sends copies from invented ports until its standard input ends.
SPOOF = """
import os, select, socket, struct, sys, time
data, victim, group, counter = bytes.fromhex(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
port, sources, first, pause = int(sys.argv[5]), int(sys.argv[6]), int(sys.argv[7]), float(sys.argv[8])
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
raw.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
number = 0
while not select.select([0], [], [], pause)[0]:
    copy = bytearray(data)
    copy[counter] = number & 255  # mac1 does not cover it
    udp = struct.pack("!HHHH", first + number % sources, port, 8 + len(copy), 0) + bytes(copy)
    addresses = socket.inet_aton(victim) + socket.inet_aton(group)
    raw.sendto(struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0) + addresses + udp, (group, 0))
    number += 1
"""


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree of 0.1.0, from the history of this repository."""
    tree = tmp_path_factory.mktemp("released")
    archive = subprocess.run(["git", "-C", ROOT, "archive", RELEASED, "cexec", "bin"], capture_output=True, check=False)
    if archive.returncode:
        skip_for_want_of("the history of this repository, with version 0.1.0")
    subprocess.run(["tar", "-x", "-C", tree], input=archive.stdout, check=True)
    return tree


@pytest.mark.campaign
@pytest.mark.parametrize(("version", "most"), [("0.1.0", RELEASED_OF_HOST), ("today", MAXIMUM_SOURCES)])
def test_a_relay_sends_one_answer_to_a_bounded_number_of_invented_sources(
    version: str, most: int, application: Application, lab: MakeLab, service: StartService, released: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    require_tool("nft")
    made = lab([(1, 2, 4), (2, 3)])
    stranger, victim = made.host(1), made.host(4)
    if version == "0.1.0":
        monkeypatch.setattr(
            "tests.relaying.command", lambda name, *words: [sys.executable, str(released / "bin" / name), *words]
        )
    environment = {"PYTHONPATH": str(released)} if version == "0.1.0" else None
    relay = Proxy(made.host(2), "10.77.0.2", "10.77.1.255", environment=environment)
    monkeypatch.undo()
    try:
        service("cat", host=made.host(3))
        victim.nft(
            "add table inet count",
            "add counter inet count answers",
            "add chain inet count input { type filter hook input priority 0; }",
            f"add rule inet count input udp dport {FIRST}-{FIRST + SOURCES} counter name answers drop",
            f"add rule inet count input tcp dport {REPLY_PORT} drop",  # so that the worker's connection takes its time
        )
        key = read_key(os.fspath(application.public), (ClientKey,))
        data = SealedAnnouncement(key, job_id=bytes(16), attempt=1, wanted_for=600).datagram(0, REPLY_PORT, 8)
        words = [data.hex(), victim.address, "10.77.0.255", datagram.COUNTER.start, UDP_PORT, SOURCES, FIRST, PAUSE]
        argv = [sys.executable, "-c", SPOOF, *map(str, words)]
        with stranger.popen(argv, stdin=subprocess.PIPE) as spoofing:

            def counted() -> int:
                listed = victim.run(["nft", "list", "counters"], stdout=subprocess.PIPE, text=True).stdout
                return int(re.findall(r"packets (\d+)", listed)[0])

            # The worker's connection has failed, and it asks for a proof.
            wait_until(lambda: counted() >= most, explain=lambda: f"{counted()} datagrams")
            spoofing.communicate(b"")
            assert counted() == most  # and there is no second answer
    finally:
        relay.kill()
