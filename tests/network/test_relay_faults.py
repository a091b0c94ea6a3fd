"""Relays on bad networks, relays that are killed, relays that lie: jobs are done or said not to be."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.conftest import MakeLab, StartService
from tests.environment import ROOT, clean_environment, command
from tests.lab import Host, Lab
from tests.needs import require_tool
from tests.relaying import Capture, Proxy, traffic
from tests.service import Application
from tests.waiting import PATIENCE, wait_until

ROW = [(1, 2), (2, 3)]
LOOP = [(1, 11, 12), (11, 12, 3)]  # two relays between the same networks
ANNOUNCEMENT = 340  # bytes; the packets by which an idle host looks for neighbours and groups have less than 100
FLOODED = 200_000  # bytes, of which a flood of 20,000 datagrams a second sends so many within moments
StartProxy = Callable[..., Proxy]


@pytest.fixture
def proxy(lab: MakeLab) -> Iterator[StartProxy]:
    """Starts a `cproxy` on a host, between its two networks."""
    with ExitStack() as stack:

        def start(host: Host, *options: str) -> Proxy:
            started = Proxy(host, *options, host.address, f"10.77.{host.networks[1]}.255")
            stack.callback(started.close)
            return started

        yield start


def lose(host: Host, percent: int) -> None:
    """The host loses datagrams in both directions."""
    host.drop(percent)
    host.drop(percent, hook="output")


def run_jobs(application: Application, host: Host, count: int, at_once: int = 4) -> list[str]:
    """What went wrong with so many jobs of `cat`, each with bytes of its own."""
    wrong: list[str] = []
    numbers = iter(range(count))
    lock = threading.Lock()

    def work() -> None:
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            data = b"%d" % number * (number * 97 % 2000 + 1)
            result = application.run(input=data, host=host, timeout=100)
            if (result.returncode, result.stdout) != (0, data):
                wrong.append(f"{number}: {result.returncode} {result.stderr!r}")

    threads = [threading.Thread(target=work) for _ in range(at_once)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return wrong


@pytest.mark.parametrize("count", [12, pytest.param(300, marks=[pytest.mark.campaign, pytest.mark.timeout(600)])])
def test_with_30_percent_of_datagrams_lost_behind_the_relay_every_job_is_done(
    application: Application, lab: MakeLab, proxy: StartProxy, service: StartService, count: int
) -> None:
    require_tool("nft")
    made = lab(ROW)
    proxy(made.host(2))
    service("cat", options=["-j", "4"], host=made.host(3))
    lose(made.host(3), 30)
    assert run_jobs(application, made.host(1), count) == []


@pytest.mark.parametrize("count", [8, pytest.param(200, marks=[pytest.mark.campaign, pytest.mark.timeout(600)])])
def test_two_relays_in_parallel_that_lose_datagrams_do_every_job_once(
    application: Application, lab: MakeLab, proxy: StartProxy, service: StartService, count: int
) -> None:
    require_tool("nft")
    made = lab(LOOP)
    for number in (11, 12):
        proxy(made.host(number))
        lose(made.host(number), 30)
    worker = service("cat", options=["-j", "4"], host=made.host(3))
    assert run_jobs(application, made.host(1), count) == []
    assert len(worker.lines_with(" started ", count)) == count


def start_in_loop(
    application: Application, made: Lab, proxy: StartProxy, service: StartService, script: str, **io: Any
) -> tuple[subprocess.Popen[bytes], Proxy, Proxy]:
    """A job that has started through one of two relays: the client, that relay, the other one."""
    relays = {number: proxy(made.host(number)) for number in (11, 12)}
    worker = service("sh", "-c", script, host=made.host(3))
    argv = command("cexec", application.public)
    client = made.host(1).popen(argv, env=clean_environment(), stderr=subprocess.PIPE, **io)
    used = int(worker.wait_for("accepted").split("client=10.77.1.")[1].split(":")[0])
    worker.wait_for("started")
    return client, relays[used], relays[23 - used]


@pytest.mark.parametrize("how", ["is killed", pytest.param("loses its network", marks=pytest.mark.campaign)])
def test_a_job_whose_relay_fails_is_done_again_by_another_path(
    application: Application, lab: MakeLab, proxy: StartProxy, service: StartService, tmp_path: Path, how: str
) -> None:
    made = lab(LOOP)
    source, target = tmp_path / "in", tmp_path / "out"
    source.write_bytes(bytes(range(256)) * 20_000)
    with source.open("rb") as stdin, target.open("wb") as stdout:
        script = f"cat; test $CEXEC_ATTEMPT != 1 || {{ touch {tmp_path}/copied; sleep 60; }}"
        client, used, other = start_in_loop(application, made, proxy, service, script, stdin=stdin, stdout=stdout)
        wait_until((tmp_path / "copied").exists)
        if how == "is killed":
            used.kill()
        else:
            next(host for host in made.hosts if f"(at {host.address})" in used.lines[0]).link(up=False)
        _, errors = client.communicate(timeout=60)
    assert client.returncode == 0, errors
    assert target.read_bytes() == source.read_bytes()
    assert b"running the job again" in errors
    other.wait_for("forwarded")


def test_a_job_whose_relay_is_killed_fails_when_output_has_left(
    application: Application, lab: MakeLab, proxy: StartProxy, service: StartService
) -> None:
    made = lab(LOOP)
    client, used, _ = start_in_loop(
        application, made, proxy, service, "echo output; sleep 30", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    )
    assert client.stdout is not None and client.stdout.readline() == b"output\n"
    used.kill()
    output, errors = client.communicate(timeout=30)
    assert (client.returncode, output) == (111, b"")
    assert b"not repeated, because" in errors


def test_a_relay_that_is_killed_while_nobody_has_the_job_is_replaced_by_the_next_one(
    application: Application, lab: MakeLab, proxy: StartProxy, service: StartService
) -> None:
    made = lab(ROW)
    first = proxy(made.host(2))
    silent = traffic(made.host(2))
    argv = command("cexec", application.public)
    with made.host(1).popen(argv, env=clean_environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as client:
        # at least one announcement has passed: the rest that a host says is smaller
        wait_until(lambda: traffic(made.host(2)) > silent + ANNOUNCEMENT)
        first.kill()
        proxy(made.host(2))
        service("echo", "done", host=made.host(3))
        assert client.communicate(timeout=PATIENCE)[0] == b"done\n"


def test_a_client_behind_a_firewall_is_told_by_the_worker(
    application: Application, lab: MakeLab, proxy: StartProxy, service: StartService
) -> None:
    require_tool("nft")
    made = lab(ROW)
    relay = proxy(made.host(2))
    service("cat", options=["--name", "far-away"], host=made.host(3))
    made.host(1).drop(100, "tcp flags syn / syn,ack")
    result = application.run(host=made.host(1), environment={"CEXEC_TIMEOUT_ACCEPT": "15"})
    assert result.returncode == 111
    assert b"far-away" in result.stderr and b"cannot connect to 10.77.1.2:" in result.stderr
    assert "timed out" in relay.wait_for("unreachable")


FLOOD = """
import os, socket, sys, time
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
end = time.monotonic() + float(sys.argv[1])
while time.monotonic() < end:
    for _ in range(20):
        head = b"\\xcexec\\x01\\x01\\x08\\0" + os.urandom(2) + (40000).to_bytes(2, "big")
        sock.sendto(head + os.urandom(316), ("10.77.0.255", 3010))
        sock.sendto(os.urandom(300), ("10.77.0.255", 3010))
    time.sleep(0.002)  # what makes it 20,000 datagrams a second and no more
"""


def test_a_flood_from_one_host_is_bounded_and_jobs_of_another_pass(
    application: Application, lab: MakeLab, proxy: StartProxy, service: StartService, tmp_path: Path
) -> None:
    made = lab([(1, 2, 4), (2, 3)])
    relay = proxy(made.host(2), "--rate", "100")
    service("cat", host=made.host(3))
    capture = Capture(made.host(3), tmp_path)
    flood = made.host(4).popen([sys.executable, "-c", FLOOD, "6"])
    try:
        wait_until(lambda: traffic(made.host(4)) > FLOODED)
        for _ in range(3):
            assert application.run(input=b"x", host=made.host(1), timeout=20).stdout == b"x"
        assert psutil.Process(relay.process.pid).num_fds() < 700
    finally:
        flood.wait(20)
    capture.close()
    announced = [packet for packet in capture.packets if b"\xcexec\x01\x01" in packet]
    assert 50 < len(announced) < 100 * 8
    relay.wait_for("dropped")


LIES = {
    "flips a bit": """
    def fill(self, source):
        size = honest_fill(self, source)
        if (size or 0) > LARGE:
            self._data = self._data[: size // 2] + bytes([self._data[size // 2] ^ 1]) + self._data[size // 2 + 1 :]
        return size
    MemoryBuffer.fill = fill
    """,
    "ends directions cleanly": """
    def fill(self, source):
        size = honest_fill(self, source)
        if (size or 0) > LARGE:
            self._data = b""
            return 0
        return size
    MemoryBuffer.fill = fill
    """,
    "sends some things twice": """
    def fill(self, source):
        size = honest_fill(self, source)
        if (size or 0) > LARGE:
            self._data = 2 * self._data
        return size
    MemoryBuffer.fill = fill
    """,
    "changes announcements": """
    def rewrite(data, **changes):
        return honest_rewrite(data, **changes)[:-1] + b"?"
    relay.rewrite = rewrite
    """,
    "gives every datagram all its hops again": """
    def rewrite(data, hops=None, reply_port=None):
        return honest_rewrite(data, hops=8, reply_port=reply_port)
    relay.rewrite = rewrite
    """,
    "keeps claims and answers to itself": """
    def rewrite(data, **changes):
        return b"" if data[5] in (2, 3) else honest_rewrite(data, **changes)
    relay.rewrite = rewrite
    """,
    "takes everybody for somebody else": """
    clients = []
    honest_client = RelayedAnnouncement.client.fget
    def client(self):
        clients.append(honest_client(self))
        return clients[0]
    RelayedAnnouncement.client = property(client)
    """,
}
CUTS = """
    honest_read = RelayedConnection._read_opening
    def read_opening(self, now):
        if os.path.exists({fault!r}):
            self.cut("because it lies")
        else:
            honest_read(self, now)
    RelayedConnection._read_opening = read_opening
"""
LIAR = """
import os, sys
sys.path.insert(0, {root!r})
from cexec.relay import relay as relay
from cexec.relay import buffers
from cexec.commands.cproxy import main
from cexec.protocol.datagrams.relay_datagram import rewrite as honest_rewrite
from cexec.relay.buffers import MemoryBuffer
from cexec.relay.relayed_connection import RelayedConnection
from cexec.relay.announcement_table import RelayedAnnouncement
honest_fill = MemoryBuffer.fill
LARGE = 1000  # bytes: no flight of the handshake, and the middle of so many is in the box of a record
buffers.PipeBuffer = MemoryBuffer
if True:
{lie}
sys.exit(main())
"""


@pytest.mark.parametrize("lie", LIES)
def test_a_relay_that_lies_denies_service_at_worst(
    application: Application, lab: MakeLab, service: StartService, lie: str
) -> None:
    made = lab(ROW)
    code = LIAR.format(root=str(ROOT), lie=LIES[lie])
    argv = [sys.executable, "-c", code, "10.77.0.2", "10.77.1.255"]
    liar = made.host(2).popen(argv, env=clean_environment(), stderr=subprocess.PIPE, text=True)
    assert liar.stderr is not None and "relaying" in liar.stderr.readline()
    worker = service("cat", host=made.host(3))
    data = bytes(range(256)) * 200
    statuses = []
    try:
        for _ in range(2):
            argv = command("cexec", "--retries", "0", application.public)
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
            environment = clean_environment({"CEXEC_TIMEOUT_ACCEPT": "3"})
            client = made.host(1).popen(argv, env=environment, **pipes)
            output, errors = client.communicate(data, timeout=30)  # nobody is kept waiting
            assert data.startswith(output)
            assert client.returncode in (0, 111), errors
            assert client.returncode or output == data
            statuses.append(client.returncode)
    finally:
        liar.terminate()
        _, errors = liar.communicate(timeout=20)
    assert "Traceback" not in errors
    assert "Traceback" not in "\n".join(worker.lines)
    # It is a lie that is told: most of them nobody survives.
    assert (statuses == [0, 0]) == lie.startswith(("gives", "keeps"))


def test_a_worker_whose_connections_a_relay_cuts_keeps_no_client_waiting_although_it_had_queued_the_job(
    application: Application, lab: MakeLab, service: StartService, tmp_path: Path
) -> None:
    made = lab(ROW)
    fault = tmp_path / "fault"
    code = LIAR.format(root=str(ROOT), lie=CUTS.format(fault=str(fault)))
    liar = made.host(2).popen([sys.executable, "-c", code, "10.77.0.2", "10.77.1.255"], stderr=subprocess.PIPE)
    assert liar.stderr is not None and b"relaying" in liar.stderr.readline()
    worker = service("sleep", "2", options=["-j", "1", "--name", "far-away"], host=made.host(3))
    argv = command("cexec", "-n", application.public)
    try:
        with made.host(1).popen(argv) as first:
            worker.wait_for("started")
            fault.touch()
            start = time.monotonic()
            second = application.run(host=made.host(1), environment={"CEXEC_TIMEOUT_ACCEPT": "1"})
            took = time.monotonic() - start
        assert first.returncode == 0
    finally:
        liar.terminate()
        liar.communicate(timeout=20)
    assert second.returncode == 111
    assert b"worker far-away heard you, but cannot connect to 10.77.1.2:" in second.stderr
    assert took < 25  # for which a QUEUED would have counted


def test_an_honest_relay_beside_a_liar_does_the_job(
    application: Application, lab: MakeLab, proxy: StartProxy, service: StartService, tmp_path: Path
) -> None:
    """The liar raises hops, so that its copies look as near as the client's own: they still do not go round."""
    made = lab(LOOP)
    code = LIAR.format(root=str(ROOT), lie=LIES["gives every datagram all its hops again"])
    argv = [sys.executable, "-c", code, "10.77.1.12", "10.77.0.255"]
    liar = made.host(12).popen(argv, env=clean_environment(), stderr=subprocess.PIPE, text=True)
    try:
        assert liar.stderr is not None and "relaying" in liar.stderr.readline()
        proxy(made.host(11))
        service("cat", host=made.host(3))
        capture = Capture(made.host(3), tmp_path)
        assert run_jobs(application, made.host(1), 5, at_once=1) == []
        capture.close()
    finally:
        liar.terminate()
        liar.communicate(timeout=20)
    assert len([packet for packet in capture.packets if b"\xcexec\x01\x01" in packet]) < 60
