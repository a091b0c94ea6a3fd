"""The network laboratory does what tests rely on."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest

from tests.lab import HAS_IPV6, Host, Lab
from tests.needs import require_namespaces, require_tool

PORT = 4000
RECEIVE = """
import socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
receiver = socket.socket(family, socket.SOCK_DGRAM)
receiver.bind((sys.argv[1], int(sys.argv[2])))
print("ready", flush=True)
while True:
    data, sender = receiver.recvfrom(2000)
    print(sender[0], data.decode(), flush=True)
    if data == b"last":
        break
"""
SEND = """
import socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
sender = socket.socket(family, socket.SOCK_DGRAM)
sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
for text in sys.argv[3:]:
    sender.sendto(text.encode(), (sys.argv[1], int(sys.argv[2])))
"""


class Receiver:
    """Collects the datagrams that come to `address` on `host`, up to one that says "last"."""

    def __init__(self, host: Host, address: str) -> None:
        argv = [sys.executable, "-c", RECEIVE, address, str(PORT)]
        self._process = host.popen(argv, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def datagrams(self) -> list[str]:
        """Each as "SENDER TEXT"."""
        try:
            output, _ = self._process.communicate(timeout=20)
        finally:
            self._process.kill()
        return str(output).splitlines()


def send(host: Host, address: str, *texts: str) -> int:
    """Sends a datagram per text; the exit status is 1 where the network is unreachable."""
    return host.run([sys.executable, "-c", SEND, address, str(PORT), *texts], stderr=subprocess.DEVNULL).returncode


@pytest.fixture
def pair() -> Iterator[Lab]:
    require_namespaces()
    with Lab(2) as lab:
        yield lab


def test_a_broadcast_reaches_every_other_host_and_an_answer_comes_back() -> None:
    require_namespaces()
    with Lab(3) as lab:
        receivers = [Receiver(lab.host(2), "10.77.0.255"), Receiver(lab.host(3), "10.77.0.255")]
        assert send(lab.host(1), "10.77.0.255", "ping", "last") == 0
        for receiver in receivers:
            assert receiver.datagrams() == ["10.77.0.1 ping", "10.77.0.1 last"]
        back = Receiver(lab.host(1), lab.host(1).address)
        assert send(lab.host(3), lab.host(1).address, "last") == 0
        assert back.datagrams() == ["10.77.0.3 last"]


@pytest.mark.skipif(not HAS_IPV6, reason="this kernel has no IPv6")
def test_ipv6_works_at_once(pair: Lab) -> None:
    receiver = Receiver(pair.host(2), pair.host(2).address6)
    assert send(pair.host(1), pair.host(2).address6, "last") == 0
    assert receiver.datagrams() == ["fd77::1 last"]


def test_hosts_in_a_row_reach_their_neighbours_only() -> None:
    require_namespaces()
    with Lab.row(3) as lab:
        relay = lab.host(2)
        assert (relay.address_on(0), relay.address_on(1)) == ("10.77.0.2", "10.77.1.2")
        assert send(lab.host(1), lab.host(3).address, "last") != 0
        lab.host(1).ip("route add 10.77.1.0/24 via 10.77.0.2")
        lab.host(3).ip("route add 10.77.0.0/24 via 10.77.1.2")
        receiver = Receiver(lab.host(3), lab.host(3).address)
        assert send(lab.host(1), lab.host(3).address, "through the relay") == 0
        assert send(relay, lab.host(3).address, "last") == 0
        assert receiver.datagrams() == ["10.77.1.2 last"]


def test_a_rule_loses_all_or_none_of_the_datagrams(pair: Lab) -> None:
    require_tool("nft")
    first, second = pair.hosts
    receiver = Receiver(second, second.address)
    second.drop(100)
    send(first, second.address, "lost")
    second.clear_rules()
    second.drop(0)
    send(first, second.address, "arrives")
    second.clear_rules()
    first.drop(100, hook="output")
    send(first, second.address, "lost")
    first.clear_rules()
    send(first, second.address, "last")
    assert receiver.datagrams() == [f"{first.address} arrives", f"{first.address} last"]


def test_a_rule_loses_about_the_share_that_it_says(pair: Lab) -> None:
    require_tool("nft")
    first, second = pair.hosts
    receiver = Receiver(second, second.address)
    second.drop(30)
    send(first, second.address, *["word"] * 200)  # fits into the receive buffer
    second.clear_rules()
    send(first, second.address, "last")
    assert 100 < len(receiver.datagrams()) < 180


def test_the_rate_of_a_host_can_be_limited(pair: Lab) -> None:
    require_tool("tc")
    first, second = pair.hosts
    first.limit_rate("1mbit")
    shown = first.run(["tc", "qdisc", "show", "dev", "eth0"], capture_output=True, text=True).stdout
    assert "tbf" in shown and "rate 1Mbit" in shown
    receiver = Receiver(second, second.address)
    send(first, second.address, *["x" * 1000] * 200)
    first.unlimit_rate()
    send(first, second.address, "last")
    assert len(receiver.datagrams()) < 150  # the bucket and the queue hold about 80


def test_the_cable_can_be_pulled_and_put_in_again(pair: Lab) -> None:
    first, second = pair.hosts
    second.link(up=False)
    assert send(second, first.address, "lost") != 0
    second.link(up=True)
    receiver = Receiver(second, second.address6 if HAS_IPV6 else second.address)
    assert send(first, second.address6 if HAS_IPV6 else second.address, "last") == 0
    assert len(receiver.datagrams()) == 1


def test_nothing_is_left_when_a_test_fails() -> None:
    require_namespaces()
    before = _children()
    with pytest.raises(ZeroDivisionError), Lab(2) as lab:
        assert {host.pid for host in lab.hosts} < _children() - before
        raise ZeroDivisionError
    assert _children() <= before  # processes of earlier tests may go meanwhile


def test_the_environment_of_a_host_does_not_configure_cexec(pair: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CEXEC_GROUP", "192.0.2.1")
    monkeypatch.setenv("GROUP", "staff")
    shown = pair.host(1).run(["env"], capture_output=True, text=True).stdout.splitlines()
    assert shown and not any(line.startswith(("CEXEC_", "GROUP=")) for line in shown)


def _children() -> set[int]:
    return {process.pid for process in psutil.Process().children()}
