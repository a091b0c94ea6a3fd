"""Measures what a stranger on the network can do with recorded announcements, silent connections, and floods.

    make bench BENCH=benchmarks/bench_attacks.py

The hosts are network namespaces of this machine: a client, a worker with one slot, a stranger.  The goal is a latency
of at most three times that of an idle network; each round has the cases in turn.  The parts:

replays: the stranger sends recorded announcements, which the worker does not know, from false addresses at which nobody
is, or from that of the client; at once an honest job starts.
over: 400 of them are sent over and over from the client's own address, 1,000 a second, while an honest job starts.
packets: the packets are counted that one recorded datagram causes at the false addresses.
silence: a worker is started whose client has its listener full of silent connections.
floods: an honest job starts while the stranger broadcasts noise, announcements of another application, or alerts under
random keys, 2,000 and 10,000 a second.  A logger runs beside the worker, which hears them, too.
instances: an honest job finds its worker by multicast DNS alone, while the stranger registers
instances, with false addresses or with none.

docs/security.md and docs/reliability.md have the figures.
Environment: BENCH_ROUNDS (7; floods and instances 15), BENCH_PARTS (a regular expression; all).
"""

from __future__ import annotations

import os
import re
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from threading import Thread
from time import perf_counter, sleep

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks.common import goal, rounds, table
from cexec.protocol.base.limits import UDP_PORT
from cexec.protocol.datagrams import datagram
from tests.environment import clean_environment, command
from tests.lab import Host, Lab
from tests.needs import require_tool
from tests.network.test_replay import (
    FALSE_SOURCES,
    FIRST,
    SPOOF,
    VICTIM,
    VICTIMS,
    recorded,
    replay,
    spoofed,
    to_victims,
)
from tests.relaying import Capture
from tests.service import Application, Service

OWN = "400 replays from the client's own address"
CASES = {"idle": 0, "40 replays": 40, "400 replays": 400, OWN: 400}
SILENT = (0, 300)
FACTOR = 3.0
SPREAD = 0.3  # seconds from the beginning of a flood to an honest job
QUIET = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
SETTLED = 4.0  # seconds after which the connections to false addresses are over
CONNECT = """
import socket, sys, time
held = [socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=30) for _ in range(int(sys.argv[3]))]
print("ready", flush=True)
sys.stdin.read()
"""
PORT = 21_400
FLOODS = (2_000, 10_000)  # datagrams a second
NOISE = 300  # bytes of a datagram
MDNS = {"CEXEC_GROUP": "mdns"}
INSTANCES = 100  # of a stranger
# Broadcasts the datagrams of standard input, one a line up to an empty one, so many a second, until its end or for 20
# seconds; writes how many it has sent a second.
FLOOD = """
import select, socket, sys, time
to, rate = (sys.argv[1], int(sys.argv[2])), float(sys.argv[3])
data = [bytes.fromhex(line) for line in iter(sys.stdin.readline, "\\n")]
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(sys.argv[4]))
print("ready", flush=True)
sent, begin = 0, time.monotonic()
while (took := time.monotonic() - begin) < 20.0 and not select.select([sys.stdin], [], [], 0.005)[0]:
    for number in range(sent, min(int(took * rate), sent + 1000)):
        sender.sendto(data[number % len(data)], to)
        sent += 1
print(sent / took)
"""


def main() -> None:
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        made = stack.enter_context(Lab(3))
        made.host(2).ip(
            *(f"neigh add {VICTIM.format(FIRST + n)} lladdr 02:00:00:00:77:77 dev eth0" for n in range(VICTIMS))
        )
        application = Application(directory)
        parts: dict[str, Callable[[], None]] = {
            "replays": lambda: replays(application, made),
            "over": lambda: over_and_over(application, made),
            "packets": lambda: packets(application, made, directory),
            "silence": lambda: silence(application, made),
            "floods": lambda: floods(application, made, directory),
            "instances": lambda: instances(application, made),
        }
        for name, part in parts.items():
            if re.search(os.environ.get("BENCH_PARTS", ""), name):
                part()


@contextmanager
def worker(application: Application, made: Lab, environment: Mapping[str, str] | None = None) -> Iterator[None]:
    """A worker with one slot on host 2."""
    service = Service(application, ["true"], ["-j", "1"], host=made.host(2), environment=environment)
    try:
        yield
    finally:
        service.kill()


def job(application: Application, host: Host, environment: Mapping[str, str] | None = None) -> float:
    start = perf_counter()
    argv = command("cexec", "-n", application.public)
    ended = host.run(argv, env=clean_environment(environment), capture_output=True, timeout=120)
    return perf_counter() - start if ended.returncode == 0 else float("inf")


def replays(application: Application, made: Lab) -> None:
    seconds: dict[str, list[float]] = {name: [] for name in CASES}
    with worker(application, made):
        for _ in range(rounds(7)):
            for name, number in CASES.items():
                if number:
                    sources = [made.host(1).address] if name == OWN else FALSE_SOURCES
                    replay(made.host(3), recorded(application, number), sources)
                seconds[name].append(job(application, made.host(1)))
                sleep(SETTLED)
    table(
        "an honest job, median and longest",
        {name: f"{1000 * median(one):.0f} ms, {1000 * max(one):.0f} ms" for name, one in seconds.items()},
    )
    idle = median(seconds["idle"])
    for name in list(CASES)[1:]:
        goal("13.1", f"{name} beside an idle network", median(seconds[name]) / idle, FACTOR, unit=" times")


def over_and_over(application: Application, made: Lab) -> None:
    name = "400 replays from the client's own address, over and over"
    seconds: dict[str, list[float]] = {"idle": [], name: []}
    attacker, client = made.host(3), made.host(1)
    with worker(application, made):
        for _ in range(rounds(7)):
            seconds["idle"].append(job(application, client))
            lines = spoofed(recorded(application, 400) * 10, [client.address])
            argv = [sys.executable, "-c", SPOOF, "0.001"]
            with attacker.popen(argv, stdin=subprocess.PIPE, text=True) as sender:
                feeder = Thread(target=sender.communicate, args=(lines,))
                feeder.start()
                sleep(SPREAD)
                seconds[name].append(job(application, client))
                sender.kill()
                feeder.join()
            sleep(SETTLED)
    compare("an honest job beside recordings that claim its client's address", seconds, {})


def packets(application: Application, made: Lab, directory: Path) -> None:
    rows = {}
    for copies in (1, 30, 300):
        with worker(application, made):
            capture = Capture(made.host(2), directory)
            replay(made.host(3), recorded(application, 1) * copies)
            sleep(SETTLED)
            capture.close()
        syns, datagrams = to_victims(capture.packets)
        rows[f"{copies} copies"] = f"{syns} SYNs, {datagrams} datagrams"
    table("what one recorded datagram causes at the addresses that it claims", rows)


def silence(application: Application, made: Lab) -> None:
    seconds: dict[int, list[float]] = {number: [] for number in SILENT}
    for _ in range(rounds(7)):
        for number in SILENT:
            seconds[number].append(beside_silence(application, made, number))
    table(
        "from the start of a worker to the end of the job that waits for it, median and longest",
        {f"{n} silent connections": f"{median(one):.2f} s, {max(one):.2f} s" for n, one in seconds.items()},
    )


def beside_silence(application: Application, made: Lab, number: int) -> float:
    client, stranger = made.host(1), made.host(3)
    environment = clean_environment({"CEXEC_LISTEN_PORTS": str(PORT), "CEXEC_TIMEOUT_ACCEPT": "0"})
    argv = command("cexec", "-n", application.public)
    with client.popen(argv, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as waiting:
        sleep(1.0)
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        words = [sys.executable, "-c", CONNECT, client.address, str(PORT), str(number)]
        with stranger.popen(words, **pipes) as silent:
            assert silent.stdout is not None and silent.stdout.readline() == b"ready\n"
            start = perf_counter()
            with worker(application, made):
                waiting.wait(120)
                taken = perf_counter() - start
            silent.communicate()
    return taken


@contextmanager
def flood(
    attacker: Host, data: Sequence[bytes], rate: int, reached: list[float], to: tuple[str, int]
) -> Iterator[None]:
    """Sends these from the attacker's host; `reached` gets the number a second."""
    words = [sys.executable, "-c", FLOOD, to[0], str(to[1]), str(rate), attacker.address]
    with attacker.popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as sender:
        assert sender.stdin is not None and sender.stdout is not None
        print(*(one.hex() for one in data), "", sep="\n", file=sender.stdin, flush=True)
        assert sender.stdout.readline() == "ready\n"
        sleep(SPREAD)
        try:
            yield
        finally:
            reached.append(float(sender.communicate()[0]))


def floods(application: Application, made: Lab, directory: Path) -> None:
    kinds = {
        "noise": [os.urandom(NOISE) for _ in range(500)],
        "another application's announcements": recorded(Application(directory, "other"), 500),
        "alerts under random keys": [
            datagram.encode(datagram.ALERT, os.urandom(16), os.urandom(NOISE), hops=8) for _ in range(500)
        ],
    }
    cases = {f"{name}, {rate} a second": (data, rate) for name, data in kinds.items() for rate in FLOODS}
    seconds: dict[str, list[float]] = {name: [] for name in ("idle", *cases)}
    reached: dict[str, list[float]] = {name: [] for name in cases}
    attacker, group = made.host(3), ("10.77.0.255", UDP_PORT)
    argv = command("crat", "--output", directory / "log", application.public)
    with worker(application, made), made.host(2).popen(argv, env=clean_environment(), **QUIET) as logger:
        sleep(SETTLED)
        for _ in range(rounds(15)):
            seconds["idle"].append(job(application, made.host(1)))
            for name, (data, rate) in cases.items():
                with flood(attacker, data, rate, reached[name], group):
                    seconds[name].append(job(application, made.host(1)))
        logger.terminate()
    compare("an honest job beside a flood", seconds, reached)


def instances(application: Application, made: Lab) -> None:
    require_tool("nft")
    made.host(2).drop(100, "meta pkttype { broadcast, multicast } udp dport 3010")
    cases = {f"{INSTANCES} names alone": named_instances(), f"{INSTANCES} false addresses": placed_instances()}
    seconds: dict[str, list[float]] = {name: [] for name in ("idle", *cases)}
    reached: dict[str, list[float]] = {name: [] for name in cases}
    with worker(application, made, MDNS):
        for _ in range(rounds(15)):
            seconds["idle"].append(job(application, made.host(1), MDNS))
            for name, data in cases.items():  # each instance ten times a second
                with flood(made.host(3), data, 10 * len(data), reached[name], ("224.0.0.251", 5353)):
                    seconds[name].append(job(application, made.host(1), MDNS))
    made.host(2).clear_rules()
    compare("an honest job by multicast DNS beside a stranger's instances", seconds, reached)


def named_instances() -> list[bytes]:
    """Responses of multicast DNS that name instances, of which no other record comes."""
    names = [labels(f"a{number}._cexec._udp.local") for number in range(INSTANCES)]
    pointers = [record(labels("_cexec._udp.local"), 12, name) for name in names]
    return [response(pointers[first : first + 20]) for first in range(0, INSTANCES, 20)]


def placed_instances() -> list[bytes]:
    """Whole instances, at addresses at which nobody is."""
    found = []
    for number in range(INSTANCES):
        name, host = labels(f"b{number}._cexec._udp.local"), labels(f"b{number}.local")
        service = record(name, 33, struct.pack("!3H", 0, 0, 5000) + host)
        address = record(host, 1, bytes([10, 77, 0, FIRST + number % VICTIMS]))
        pointer = record(labels("_cexec._udp.local"), 12, name)
        found.append(response([pointer, service, record(name, 16, b"\x03v=1"), address]))
    return found


def record(name: bytes, kind: int, data: bytes) -> bytes:
    return name + struct.pack("!HHIH", kind, 1, 4500, len(data)) + data


def response(records: Sequence[bytes]) -> bytes:
    return struct.pack("!6H", 0, 0x8400, 0, len(records), 0, 0) + b"".join(records)


def labels(text: str) -> bytes:
    return b"".join(bytes([len(part)]) + part.encode() for part in text.split(".")) + bytes(1)


def compare(title: str, seconds: Mapping[str, list[float]], reached: Mapping[str, list[float]]) -> None:
    """Prints the medians of the first case, which is the idle network, and of each other one, and their ratio."""
    sent = {name: f", {median(one):.0f} datagrams a second" for name, one in reached.items()}
    rows = {
        name: f"{1000 * median(one):.0f} ms, {1000 * max(one):.0f} ms{sent.get(name, '')}"
        for name, one in seconds.items()
    }
    table(f"{title}, median and longest", rows)
    idle, *flooded = seconds
    for name in flooded:
        goal(
            "13.1",
            f"{name} beside an idle network",
            median(seconds[name]) / median(seconds[idle]),
            FACTOR,
            unit=" times",
        )


if __name__ == "__main__":
    if os.geteuid() != 0:
        raise SystemExit("network namespaces need root: make bench")
    main()
