"""Groups with `mdns`, between hosts: real multicast DNS by python-zeroconf."""

from __future__ import annotations

import json
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest

from cexec.net.found_hosts import MOST_UNANSWERED
from cexec.net.mdns import SERVICE
from tests.conftest import MakeLab, StartService
from tests.environment import ROOT, clean_environment, command
from tests.lab import HAS_IPV6, Host
from tests.needs import require_tool
from tests.service import Application
from tests.waiting import PATIENCE, wait_until

MDNS = {"CEXEC_GROUP": "mdns"}
needs_ipv6 = pytest.mark.skipif(not HAS_IPV6, reason="this kernel has no IPv6")

# Everything that multicast DNS says on a host's link, one datagram per line: its bytes, and its records in words.
LISTEN = """
import json, socket, sys
from zeroconf import DNSIncoming
listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind(("224.0.0.251", 5353))
membership = socket.inet_aton("224.0.0.251") + socket.inet_aton(sys.argv[1])
listener.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
print(flush=True)
while True:
    data, (sender, _) = listener.recvfrom(9000)
    records = [[one.type, one.name, one.ttl, getattr(one, "text", b"").hex()] for one in DNSIncoming(data).answers()]
    print(json.dumps([data.hex(), sender, records]), flush=True)
"""
POINTER, TEXT, SERVER, IPV4, IPV6, NSEC = 12, 16, 33, 1, 28, 47  # <RFC 1035, 2782, 3596, 4034> types of records
Start = Callable[[Host], "Listener"]


class Listener:
    """Hears what multicast DNS says on a host's link."""

    def __init__(self, host: Host) -> None:
        self._process = host.popen([sys.executable, "-c", LISTEN, host.address], stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self._process.stdout.readline()

    def until(self, wanted: Callable[[list[Any]], bool]) -> list[tuple[bytes, str, list[list[Any]]]]:
        """All datagrams up to the first with a record that is wanted, type, name, time to live and text."""
        heard = []
        assert self._process.stdout is not None
        for line in self._process.stdout:
            data, sender, records = json.loads(line)
            heard.append((bytes.fromhex(data), sender, records))
            if any(map(wanted, records)):
                break
        return heard

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def listen() -> Iterator[Start]:
    """Starts a `Listener`; no test waits for ever, by pytest's timeout."""
    with ExitStack() as stack:

        def start(host: Host) -> Listener:
            listener = Listener(host)
            stack.callback(listener.close)
            return listener

        yield start


def close_to_groups(host: Host) -> None:
    """Broadcast and multicast announcements do not come through to this host."""
    require_tool("nft")
    host.drop(100, "meta pkttype { broadcast, multicast } udp dport 3010")


def is_goodbye(record: list[Any]) -> bool:
    kind, name, ttl, _ = record
    return bool(kind == POINTER and name == SERVICE and ttl == 0)


def is_entry(record: list[Any]) -> bool:
    kind, name, ttl, _ = record
    return bool(kind == POINTER and name == SERVICE and ttl > 0)


def test_a_job_finds_its_worker_by_mdns_alone(lab: MakeLab, service: StartService, application: Application) -> None:
    client, worker = lab(2).hosts
    close_to_groups(worker)
    service("cat", host=worker, environment=MDNS)
    result = application.run(input=b"hello", host=client, environment=MDNS)
    assert (result.returncode, result.stdout, result.stderr) == (0, b"hello", b"")


def test_who_asks_but_once_finds_everybody_too(lab: MakeLab, service: StartService, application: Application) -> None:
    client, *workers = lab(4).hosts
    for number, worker in enumerate(workers):
        close_to_groups(worker)
        service("cat", host=worker, environment=MDNS, options=["--name", f"worker{number}"])
    result = application.run("--all", "--tag", "--expect", "3", input=b"x", host=client, environment=MDNS)
    assert sorted(result.stdout.split(b"\n")) == [b"", b"worker0: x", b"worker1: x", b"worker2: x"], result.stderr
    shown = client.run(command("cps", application.public), env=clean_environment(MDNS), capture_output=True, text=True)
    assert [line.split()[0] for line in shown.stdout.splitlines()] == ["NAME", "worker0", "worker1", "worker2"]


def test_a_client_without_an_answer_tries_mdns_by_itself(
    lab: MakeLab, service: StartService, application: Application
) -> None:
    client, worker = lab(2).hosts
    close_to_groups(worker)
    service("cat", host=worker, environment=MDNS)
    started = time.monotonic()
    result = application.run(input=b"hello", host=client)
    assert (result.returncode, result.stdout, result.stderr) == (0, b"hello", b"")
    assert time.monotonic() - started > 1


@needs_ipv6
@pytest.mark.parametrize("gone", ["fd77:0::", "fe80::"])
def test_hosts_without_ipv4_find_each_other(
    gone: str, lab: MakeLab, service: StartService, application: Application
) -> None:
    hosts = lab(2).hosts
    for host in hosts:
        host.ip(f"address del {host.address}/24 dev eth0", f"address del {gone}{host.number}/64 dev eth0")
    service("sh", "-c", "echo $REMOTE_ADDR; cat", host=hosts[1], environment=MDNS)
    result = application.run(input=b"hello", host=hosts[0], environment=MDNS)
    assert (result.returncode, result.stderr) == (0, b"")
    assert result.stdout.endswith(b"hello") and b":" in result.stdout


def test_the_entry_tells_the_port_and_the_version_and_nothing_else(
    lab: MakeLab, service: StartService, application: Application, listen: Start
) -> None:
    client, worker, third = lab(3).hosts
    close_to_groups(worker)
    listener = listen(third)
    environment = {**MDNS, "CEXEC_UDP_PORT": "4321"}
    options = ["--name", "secretname"]
    running = service("cat", host=worker, environment=environment, options=options)
    assert application.run(input=b"hello", host=client, environment=environment).returncode == 0
    running.close()
    heard = listener.until(is_goodbye)
    records = [record for _, _, records in heard for record in records]
    ((entry, text),) = {(name, text) for kind, name, _, text in records if kind == TEXT}
    assert bytes.fromhex(text) == b"\x03v=1"
    instance = entry.partition(".")[0]
    assert len(instance) == 16 and int(instance, 16)  # random
    assert {name for _, name, _, _ in records} == {SERVICE, f"{instance}.{SERVICE}", f"{instance}.local."}
    kinds = {kind for kind, _, _, _ in records}
    assert {POINTER, TEXT, SERVER, IPV4} <= kinds <= {POINTER, TEXT, SERVER, IPV4, IPV6, NSEC}
    everything = b"".join(data for data, _, _ in heard)
    assert (4321).to_bytes(2, "big") + bytes([16]) + instance.encode() in everything  # port and host of the SRV record
    fingerprint = running.lines[0].split()[2]
    secrets = ["secretname", "app", "cat", platform.node(), fingerprint, *application.public.read_text().splitlines()]
    assert not [secret for secret in secrets if secret.encode() in everything]


def test_another_protocol_version_is_left_alone(lab: MakeLab, application: Application) -> None:
    client, other = lab(2).hosts
    register = """
import socket, sys, zeroconf
zc = zeroconf.Zeroconf()
for number, properties in enumerate(({}, {"v": "2"}, {"v": "1"})):
    info = zeroconf.ServiceInfo("_cexec._udp.local.", f"x{number}._cexec._udp.local.", port=5000 + number,
        properties=properties, server=f"x{number}.local.", parsed_addresses=["10.77.0.2"])
    zc.register_service(info, cooperating_responders=True)
print(flush=True)
sys.stdin.read()
"""
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process = other.popen([sys.executable, "-c", register], **pipes)
    assert process.stdout is not None
    process.stdout.readline()
    result = application.run(host=client, environment={**MDNS, "CEXEC_TIMEOUT_ACCEPT": "5"})
    assert result.returncode == 111
    assert b"to 10.77.0.2:5002;" in result.stderr
    process.communicate()


def test_a_strangers_instances_make_a_client_send_little_to_a_victim(lab: MakeLab, application: Application) -> None:
    """119 KB from one client of 0.1.0.  Now at most 6 datagrams in 15 s, and none to what is not on the link."""
    require_tool("nft")
    client, _, stranger = lab(3).hosts
    register = """
import sys, zeroconf
zc = zeroconf.Zeroconf()
for number in range(20):
    info = zeroconf.ServiceInfo("_cexec._udp.local.", f"x{number}._cexec._udp.local.", port=5000 + number,
        properties={"v": "1"}, server=f"x{number}.local.", parsed_addresses=["10.77.0.2", "10.99.0.2", "10.77.0.255"])
    zc.register_service(info, cooperating_responders=True)
print(flush=True)
sys.stdin.read()
"""
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process = stranger.popen([sys.executable, "-c", register], **pipes)
    assert process.stdout is not None
    process.stdout.readline()
    client.ip("route add 10.99.0.0/24 via 10.77.0.2")
    client.nft(
        "add table inet count",
        "add counter inet count victim",
        "add counter inet count others",
        "add chain inet count output { type filter hook output priority 0; }",
        "add rule inet count output ip daddr 10.77.0.2 udp dport 5000-5100 counter name victim",
        "add rule inet count output ip daddr { 10.99.0.2, 10.77.0.255 } udp dport 5000-5100 counter name others",
    )
    result = application.run(host=client, environment={**MDNS, "CEXEC_TIMEOUT_ACCEPT": "6"})
    process.communicate()
    assert result.returncode == 111
    listed = client.run(["nft", "list", "counters"], stdout=subprocess.PIPE, text=True).stdout
    packets = dict(re.findall(r"counter (\w+) \{\s*packets (\d+)", listed))
    assert 1 <= int(packets["victim"]) <= MOST_UNANSWERED
    assert packets["others"] == "0"


def test_instances_that_never_answer_do_not_hide_a_worker(
    lab: MakeLab, service: StartService, application: Application
) -> None:
    """Each was waited for, three seconds long, and later for a twentieth of a second: 400 of them took 20 s.

    The records of a worker of ours come with its name, so none of them has to be waited for.
    """
    client, worker, stranger = lab(3).hosts
    close_to_groups(worker)
    name_them = """
import socket, struct, sys
def labels(text):
    return b"".join(bytes([len(part)]) + part.encode() for part in text.split(".")) + bytes(1)
service = labels("_cexec._udp.local")
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(sys.argv[1]))
for line in sys.stdin:
    for first in range(0, 400, 20):
        answers = b""
        for number in range(first, first + 20):
            name = labels(f"a{number}._cexec._udp.local")
            answers += service + struct.pack("!HHIH", 12, 1, 4500, len(name)) + name
        sender.sendto(struct.pack("!HHHHHH", 0, 0x8400, 0, 20, 0, 0) + answers, ("224.0.0.251", 5353))
    print(flush=True)
"""
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process = stranger.popen([sys.executable, "-c", name_them, stranger.address], **pipes)
    service("cat", host=worker, environment=MDNS)
    argv = command("cexec", application.public)
    started = time.monotonic()
    waiting = client.popen(argv, env=clean_environment(MDNS), stdin=subprocess.DEVNULL)

    def ended() -> bool:
        """Names them again, because the client may have begun to look only now."""
        assert process.stdin is not None and process.stdout is not None
        print(file=process.stdin, flush=True)
        process.stdout.readline()
        return waiting.poll() is not None

    try:
        wait_until(ended, 60)
        assert waiting.returncode == 0
        assert time.monotonic() - started < 10.0
    finally:
        waiting.kill()
        waiting.wait()
        process.communicate()


@pytest.mark.parametrize("killed", [False, True])
def test_the_entry_goes_with_the_cservice(killed: bool, lab: MakeLab, service: StartService, listen: Start) -> None:
    worker, third = lab(2).hosts
    listener = listen(third)
    running = service("cat", host=worker, environment=MDNS)
    listener.until(is_entry)
    (helper,) = running.started()
    if killed:
        running.process.kill()
    else:
        running.process.terminate()
    assert listener.until(is_goodbye)
    psutil.wait_procs([helper], timeout=PATIENCE)
    assert not helper.is_running()


def test_a_network_that_comes_later_is_told_too(lab: MakeLab, service: StartService, application: Application) -> None:
    client, worker = lab(2).hosts
    worker.link(up=False)
    service("cat", host=worker, environment=MDNS)
    worker.link(up=True)
    close_to_groups(worker)
    result = application.run(input=b"hello", host=client, environment={**MDNS, "CEXEC_TIMEOUT_ACCEPT": "15"})
    assert (result.returncode, result.stdout) == (0, b"hello"), result.stderr


def test_without_zeroconf_that_is_told_and_the_rest_works(
    lab: MakeLab, service: StartService, application: Application, tmp_path: Path
) -> None:
    (host,) = lab([(1,)]).hosts
    (tmp_path / "zeroconf.py").write_text("raise ModuleNotFoundError(\"no module named 'zeroconf'\", name='zeroconf')")
    without = {**MDNS, "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    running = service("cat", host=host, environment=without)
    running.wait_for("cannot register with multicast DNS: the Python package zeroconf is not installed")
    assert application.run(input=b"hello", host=host).stdout == b"hello"
    result = application.run(host=host, environment={**without, "CEXEC_TIMEOUT_ACCEPT": "1.5"})
    assert result.returncode == 111
    for line in result.stderr.decode().splitlines():  # while it waits, and at the end
        assert "mdns: the Python package zeroconf is not installed" in line
    assert len([line for line in running.lines if "multicast DNS" in line]) == 1


def test_a_helper_that_dies_is_told_and_does_no_harm(
    lab: MakeLab, service: StartService, application: Application
) -> None:
    (host,) = lab([(1,)]).hosts
    running = service("cat", host=host, environment=MDNS)
    (helper,) = running.started()
    helper.kill()
    running.wait_for("cannot register with multicast DNS: its process has ended")
    assert application.run(input=b"hello", host=host).stdout == b"hello"


def test_hellos_and_alerts_go_to_what_mdns_finds(
    lab: MakeLab, service: StartService, application: Application, tmp_path: Path
) -> None:
    client, worker, logger_host = lab(3).hosts
    for host in (worker, logger_host):
        close_to_groups(host)
    service("cat", host=worker, environment=MDNS)
    path = tmp_path / "log"
    argv = command("crat", "--output", path, application.public)
    logger = logger_host.popen(argv, env=clean_environment(MDNS), stderr=subprocess.PIPE)
    assert logger.stderr is not None and b"logging" in logger.stderr.readline()
    assert application.run(input=b"x", host=client, environment=MDNS).returncode == 0
    wait_until(lambda: path.exists() and "completed by" in path.read_text())
    logger.terminate()
    logger.communicate(timeout=PATIENCE)


def test_a_client_leaves_no_helper(lab: MakeLab, service: StartService, application: Application) -> None:
    client, worker = lab(2).hosts
    service("cat", host=worker, environment=MDNS)
    mark = {**MDNS, "TEST_OF_MDNS": str(time.monotonic_ns())}
    assert application.run(input=b"hello", host=client, environment=mark).returncode == 0
    wait_until(lambda: not [one for one in psutil.process_iter() if _has(one, mark["TEST_OF_MDNS"])])


def _has(process: psutil.Process, value: str) -> bool:
    try:
        return process.environ().get("TEST_OF_MDNS") == value
    except (psutil.Error, OSError):
        return False
