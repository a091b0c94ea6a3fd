"""Recorded announcements that a stranger sends again from false addresses, on real hosts.

The recordings are announcements that the worker does not know: it has never heard them, or has forgotten them, as it
does after a minute.  At the false addresses nobody is, so that a connection there takes its whole three seconds.
docs/protocol.md section 2.8.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from cexec.net.announcer import clocks
from cexec.protocol.base.keys import ClientKey
from cexec.protocol.base.limits import IDENTITY_SIZE, MAXIMUM_HOPS, UDP_PORT
from cexec.protocol.datagrams.announcement import SealedAnnouncement
from cexec.protocol.decisions.slots import STALLED_TRIES
from cexec.system.storage.keyfile import read_key
from tests.conftest import MakeLab, StartService
from tests.environment import clean_environment, command
from tests.lab import Host, Lab
from tests.relaying import Capture, traffic
from tests.service import Application, Service
from tests.waiting import wait_until

VICTIM = "10.77.0.{}"  # and a number from FIRST on
FIRST, VICTIMS = 100, 100
FALSE_SOURCES = [VICTIM.format(FIRST + number) for number in range(VICTIMS)]
PORT = 41_000
SYNS = 3  # of one connection attempt
SYN_SENT = "02"  # the state in /proc/net/tcp
ACCEPT = 8.0  # seconds that a client waits while it knows of no worker
ANNOUNCEMENT = 340  # bytes; what else an idle host sends has less than 100
ATTEMPTS = 3  # for a machine so slow that a connection to a victim fails while an honest client starts

# Sends each line of standard input, a source address and a datagram, to the broadcast address, so many seconds apart.
SPOOF = """
import socket, struct, sys, time
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
raw.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
for line in sys.stdin:
    source, text = line.split()
    data = bytes.fromhex(text)
    udp = struct.pack("!4H", 5000, PORT, 8 + len(data), 0) + data
    addresses = socket.inet_aton(source) + socket.inet_aton("10.77.0.255")
    raw.sendto(struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0) + addresses + udp, ("10.77.0.255", 0))
    time.sleep(float(sys.argv[1]))
""".replace("PORT", str(UDP_PORT))


def recorded(application: Application, count: int) -> list[bytes]:
    """Announcements of an hour ago."""
    key = read_key(os.fspath(application.public), (ClientKey,))
    now, boot = clocks()
    made = []
    for number in range(count):
        then = (now - 3_600_000 + number, boot)
        made.append(SealedAnnouncement(key, job_id=os.urandom(IDENTITY_SIZE), attempt=1, clocks=then))
    return [sealed.datagram(0, PORT, MAXIMUM_HOPS) for sealed in made]


def replay(attacker: Host, datagrams: Sequence[bytes], sources: Sequence[str] = FALSE_SOURCES) -> None:
    """Sends each one from another false address."""
    attacker.run([sys.executable, "-c", SPOOF, "0"], input=spoofed(datagrams, sources), text=True, check=True)


def spoofed(datagrams: Sequence[bytes], sources: Sequence[str] = FALSE_SOURCES) -> str:
    """The standard input of SPOOF."""
    return "\n".join(f"{sources[number % len(sources)]} {data.hex()}" for number, data in enumerate(datagrams))


def make(lab: MakeLab) -> Lab:
    """Hosts 1 to 3: a client, a worker, an attacker.  The worker's packets to the victims do go out."""
    made = lab(3)
    neighbours = [f"neigh add {VICTIM.format(FIRST + n)} lladdr 02:00:00:00:77:77 dev eth0" for n in range(VICTIMS)]
    made.host(2).ip(*neighbours)
    return made


def client(host: Host, application: Application, environment: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Starts a client whose input is the test's."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return host.popen(command("cexec", application.public), env=clean_environment(environment), **pipes)


def to_victims(packets: Sequence[bytes]) -> tuple[int, int]:
    """The SYNs and the datagrams that went to the false addresses."""
    syns = datagrams = 0
    for packet in packets:
        if packet[12:14] == b"\x08\x00" and packet[30:33] == b"\x0a\x4d\x00" and FIRST <= packet[33] < FIRST + VICTIMS:
            syns += packet[23] == 6 and packet[47] == 2
            datagrams += packet[23] == 17
    return syns, datagrams


def test_one_recorded_datagram_causes_one_connection_and_one_datagram(
    application: Application, lab: MakeLab, service: StartService, tmp_path: Path
) -> None:
    """Regression: each copy of it from another address caused three SYNs, and one datagram for each counter."""
    made = make(lab)
    worker = service("echo", "done", host=made.host(2))
    capture = Capture(made.host(2), tmp_path)
    data = recorded(application, 1)
    replay(made.host(3), data * 30)
    worker.wait_for("unreachable")
    replay(made.host(3), data * 30)
    assert application.run(host=made.host(1)).stdout == b"done\n"
    wait_until(lambda: "finished" in "\n".join(worker.lines))
    capture.close()
    syns, datagrams = to_victims(capture.packets)
    heads = [(packet[23], packet[30:38].hex(), packet[47]) for packet in capture.packets if len(packet) > 47]
    assert 1 <= syns <= SYNS and datagrams == 1, (heads, worker.lines)


@dataclass(frozen=True)
class Flood:
    """So many recordings, and so many seconds between two of them.  `tries`: how many connections it keeps begun."""

    count: int
    pause: float
    tries: int

    @contextmanager
    def from_host(self, attacker: Host, application: Application) -> Iterator[None]:
        datagrams = recorded(application, self.count)
        with tempfile.TemporaryFile("w+") as file:
            file.write(spoofed(datagrams))
            file.seek(0)
            with attacker.popen([sys.executable, "-c", SPOOF, str(self.pause)], stdin=file) as sender:
                yield
                sender.kill()


FLOODS = {
    "40 at once": Flood(40, 0.0, 1),
    "400 at once": Flood(400, 0.0, 1),
    "one after the other": Flood(1000, 0.01, 1 + STALLED_TRIES),  # the worker begins no more than these
}


def begun(worker: Service) -> int:
    """The connections of a worker's host that nobody has answered yet."""
    lines = Path(f"/proc/{worker.process.pid}/net/tcp").read_text().splitlines()
    return sum(line.split()[3] == SYN_SENT for line in lines[1:])


@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS)
def test_replays_do_not_keep_an_honest_job_from_its_worker(
    flood: Flood, application: Application, lab: MakeLab, service: StartService
) -> None:
    """It starts before any of the connections to false addresses has failed.

    Regression: it had to wait for many of them, so that 40 replays cost it 15 s, and 400 its life.  A steady flood
    takes each connection that a worker may begin to whoever has proved nothing: only a client that has proved that it
    receives is served then.
    """
    made = make(lab)
    worker = service("echo", "done", options=["-j", "1"], host=made.host(2))
    events: list[str] = []
    for _ in range(ATTEMPTS):
        before = len(worker.lines)
        with flood.from_host(made.host(3), application):
            wait_until(lambda: begun(worker) >= flood.tries, pause=0.005)
            ended = application.run(host=made.host(1))
        assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"done\n", b"")
        wait_until(lambda: not begun(worker))
        worker.wait_for("unreachable")  # so they were there
        events = [line.split()[1] for line in worker.lines[before:]]
        if "unreachable" not in events[: events.index("started")]:
            return
    raise AssertionError(events)


def test_replays_do_not_keep_a_client_that_waits_from_its_slot(
    application: Application, lab: MakeLab, service: StartService
) -> None:
    made = make(lab)
    worker = service("cat", options=["-j", "1"], host=made.host(2))
    with client(made.host(1), application) as first:
        worker.wait_for("started")
        with client(made.host(1), application) as second:
            replay(made.host(3), recorded(application, 400))
            assert first.communicate(b"first", timeout=30)[0] == b"first"
            assert second.communicate(b"second", timeout=30)[0] == b"second"
    assert (first.returncode, second.returncode) == (0, 0)


def test_a_client_whose_workers_only_answer_was_lost_is_served_all_the_same(
    application: Application, lab: MakeLab, service: StartService
) -> None:
    """A worker answers an announcement once until its client has proved itself, so the client announces anew."""
    made = make(lab)
    worker = service("cat", options=["-j", "1"], host=made.host(2))
    with client(made.host(3), application) as first:
        worker.wait_for("started")
        made.host(1).drop(100)  # what comes by UDP
        before = traffic(made.host(1))
        with client(made.host(1), application, {"CEXEC_TIMEOUT_ACCEPT": str(ACCEPT)}) as second:
            wait_until(lambda: traffic(made.host(1)) - before > 3 * ANNOUNCEMENT)  # the first one was answered by then
            made.host(1).clear_rules()
            with pytest.raises(subprocess.TimeoutExpired):
                second.wait(ACCEPT + 1.0)
            assert first.communicate(b"first", timeout=30)[0] == b"first"
            assert second.communicate(b"second", timeout=30)[0] == b"second"
    assert (first.returncode, second.returncode) == (0, 0)
