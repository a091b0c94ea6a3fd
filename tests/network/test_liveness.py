"""Dead machines and stopped processes are told apart, over a real network."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.conftest import MakeLab, StartService
from tests.environment import ROOT, clean_environment
from tests.lab import Host
from tests.needs import require_tool
from tests.relaying import traffic
from tests.service import Application
from tests.waiting import wait_until

ACCEPT = (
    "import socket, time; s = socket.create_server(('', 4000)); print(flush=True); c, _ = s.accept(); time.sleep(60)"
)
WATCH = """
import json, select, socket, sys, time
from cexec.errors import DisconnectedError
from cexec.net.liveness import Liveness
lost = {}
begun = time.monotonic()
watched = {}
for name in sys.argv[1:]:
    connection = socket.create_connection((name, 4000))
    connection.setblocking(False)
    watched[name] = connection, Liveness(connection)
print(flush=True); sys.stdin.readline()
full = set()
while time.monotonic() < begun + 60 and (len(lost) < 2 or time.monotonic() < begun + max(lost.values()) + 3):
    for name, (connection, watch) in watched.items():
        try:
            connection.send(bytes(100000))  # until the window is full
        except BlockingIOError:
            full.add(name)
            if full == {*sys.argv[1:]}:
                print("full", flush=True)
                full.add("told")
        watch.stepped(time.monotonic())
        try:
            watch.handle_timeout(time.monotonic())
        except DisconnectedError:
            lost.setdefault(name, time.monotonic() - begun)
    time.sleep(0.1)  # how often it looks
print(json.dumps(lost))
"""


def accepting(host: Host) -> subprocess.Popen[str]:
    process = host.popen([sys.executable, "-S", "-c", ACCEPT], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "\n"
    return process


def test_a_host_that_vanishes_is_noticed_and_a_process_that_does_not_read_is_not(lab: MakeLab) -> None:
    """Hosts 2 and 3 read nothing; host 2 vanishes with its window closed, host 4 before anything was sent."""
    require_tool("nft")
    network = lab(4)
    peers = [accepting(network.host(number)) for number in (2, 3, 4)]
    try:
        addresses = [network.host(number).address for number in (2, 3, 4)]
        watcher = network.host(1).popen(
            [sys.executable, "-c", WATCH, *addresses],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
        )  # fmt: skip
        assert watcher.stdout is not None and watcher.stdin is not None
        watcher.stdout.readline()
        network.host(4).drop(100, match="meta l4proto tcp")
        watcher.stdin.write("\n")
        watcher.stdin.flush()
        assert watcher.stdout.readline() == "full\n"
        network.host(2).drop(100, match="meta l4proto tcp")
        output, _ = watcher.communicate(timeout=60)
        lost = json.loads(output)
        assert set(lost) == {addresses[0], addresses[2]}
        assert all(15 <= seconds <= 30 for seconds in lost.values()), lost  # 20, and what a busy machine adds
    finally:
        for peer in peers:
            peer.kill()
            peer.communicate()


def test_when_the_network_breaks_both_sides_of_a_job_know_within_seconds(
    lab: MakeLab, service: StartService, application: Application
) -> None:
    """While the worker sends, while the client sends, and while nobody does."""
    require_tool("nft")
    network = lab(2)
    worker = service("sh", "-c", 'eval "$PEER_RUN"', options=["-j", "3"], host=network.host(1))
    helpers = len(worker.started())
    clients = []
    for program in ("yes", "cat > /dev/null", "sleep 60"):
        argv, _ = application.client(f"RUN={program}")
        argv[2:2] = ["--retries", "0"]
        with open("/dev/zero", "rb") as zeroes:
            client = network.host(2).popen(
                argv,
                env=clean_environment(),
                stdin=zeroes,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
        clients.append(client)
        worker.lines_with(" started ", len(clients))
    wait_until(lambda: min(traffic(network.host(1)), traffic(network.host(2))) > 1_000_000)  # both send
    for hook in ("input", "output"):
        network.host(2).drop(100, match="meta l4proto tcp", hook=hook)
    for client in clients:
        _, said = client.communicate(timeout=40)
        assert client.returncode == 111, said
    wait_until(lambda: len(worker.started()) <= helpers)
    assert len(worker.lines_with(" broken ", 3)) == 3
