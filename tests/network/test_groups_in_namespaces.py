"""Groups between real hosts: every kind of entry, interfaces that come and change, users side by side."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.conftest import MakeLab
from tests.lab import Namespace
from tests.needs import NOBODY, require_namespaces, require_second_user, require_tool
from tests.waiting import wait_until

# What a cservice does with its group, on commands of the test; the group "" is the default.
HEAR = """
import json, os, select, sys
from cexec.net.group_sockets import GroupSockets
from cexec.net.groups import parse_groups
if sys.argv[2]:  # not earlier, since other users may not read the modules
    os.setgroups([]), os.setgid(int(sys.argv[2])), os.setuid(int(sys.argv[2]))
sockets = GroupSockets(parse_groups(sys.argv[1]) if sys.argv[1] else None, 3010)
print(json.dumps(sockets.addresses()), flush=True)
for command in map(str.strip, iter(sys.stdin.readline, "")):
    if command == "refresh":
        answer = sockets.refresh()
    elif command == "state":
        answer = [sockets.addresses(), sockets.unheard]
    elif command == "pass on":
        answer = [sockets.forward([b"passed on"], via) for _, _, via, unicast in sockets.receive() if unicast]
    else:
        answer = []
        while select.select(sockets.filenos(), [], [], 0.1)[0]:
            answer += [[data.decode(), source[0], unicast] for data, source, _, unicast in sockets.receive()]
            answer += [[data.decode(), "", believed] for data, _, believed in sockets.receive_forwarded()]
    print(json.dumps(answer), flush=True)
"""
SAY = """
import json, sys
from cexec.net.announcer import Announcer
from cexec.net.groups import parse_groups
announcer = Announcer(parse_groups(sys.argv[1]) if sys.argv[1] else None, 3010)
print(json.dumps([announcer.send(sys.argv[2].encode()), announcer.failures]))
"""
# A client's listener, and a worker that connects to a scoped IPv6 address
LISTEN = """
import select, sys
from cexec.net.sockets import open_listener
listener = open_listener()
print(listener.port, flush=True)
select.select(listener.filenos(), [], [], 20)
print(listener.accept()[1][0], flush=True)
"""
CONNECT = """
import _socket, select, sys
from cexec.errors import CexecError
from cexec.net.connecting import connect_result, start_connect
host, port, interface = sys.argv[1:]
address = (host, int(port), 0, _socket.if_nametoindex(interface)) if ":" in host else (host, int(port))
try:
    connecting = start_connect(address)
    select.select([], [connecting], [], 20)
    print(connect_result(connecting))
except CexecError as error:
    print(type(error).__name__, error)
"""
Heard = list[tuple[str, str, bool]]
StartHearer = Callable[..., "Hearer"]


class Hearer:
    """A process on a host that hears a group."""

    def __init__(self, host: Namespace, group: str = "", user: int | None = None) -> None:
        argv = [sys.executable, "-c", HEAR, group, "" if user is None else str(user)]
        self._process = host.popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.addresses: list[str] = self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())

    def ask(self, command: str) -> Any:
        """The answer to one of the commands above."""
        assert self._process.stdin is not None
        print(command, file=self._process.stdin, flush=True)
        return self._answer()

    def heard(self) -> Heard:
        """What has come since the last call: text, sender, whether it was sent to the host alone."""
        return [(text, sender, unicast) for text, sender, unicast in self.ask("heard")]

    def close(self) -> None:
        self._process.communicate(timeout=10)


@pytest.fixture
def hearer() -> Iterator[StartHearer]:
    """Starts a `Hearer`."""
    with ExitStack() as stack:

        def start(host: Namespace, group: str = "", user: int | None = None) -> Hearer:
            made = Hearer(host, group, user)
            stack.callback(made.close)
            return made

        yield start


@pytest.fixture
def lonely() -> Iterator[Namespace]:
    """A machine with nothing but its loopback."""
    require_namespaces()
    made = Namespace("lonely")
    yield made
    made.close()


def say(host: Namespace, group: str = "", text: str = "hello") -> tuple[list[str], dict[str, str]]:
    """Send one datagram to a group; where it went, and why it did not go elsewhere."""
    result = host.run([sys.executable, "-c", SAY, group, text], capture_output=True, text=True, check=True)
    sent, failures = json.loads(result.stdout)
    return sent, failures


def test_a_machine_without_a_network_hears_itself(lonely: Namespace, hearer: StartHearer) -> None:
    listening = hearer(lonely)
    assert listening.addresses == ["127.255.255.255"]
    assert say(lonely) == (["127.255.255.255"], {})
    assert listening.heard() == [("hello", "127.0.0.1", False)]


def test_the_default_group_goes_out_of_every_interface(lab: MakeLab, hearer: StartHearer) -> None:
    left, middle, right = lab([(1, 2), (2, 3)]).hosts
    listening = [hearer(left), hearer(right)]
    sent, failures = say(middle)
    assert sent == [
        "10.77.0.255", "10.77.1.255", "127.255.255.255", "ff02::6365:7865%eth0", "ff02::6365:7865%eth1",
    ]  # fmt: skip
    assert failures == {}
    assert sorted(listening[0].heard()) == [("hello", "10.77.0.2", False), ("hello", "fe80::2", False)]
    assert sorted(listening[1].heard()) == [("hello", "10.77.1.2", False), ("hello", "fe80::2", False)]


def test_a_host_in_two_networks_hears_both(lab: MakeLab, hearer: StartHearer) -> None:
    left, middle, right = lab([(1, 2), (2, 3)]).hosts
    listening = hearer(middle)
    assert listening.addresses[:2] == ["10.77.0.255", "10.77.1.255"]
    say(left, "10.77.0.255", "left")
    say(right, "10.77.1.255", "right")
    assert listening.heard() == [("left", "10.77.0.1", False), ("right", "10.77.1.3", False)]


def test_hosts_without_ipv4_meet_in_the_default_group(lab: MakeLab, hearer: StartHearer) -> None:
    one, two = lab(2).hosts
    for host in (one, two):
        host.ip(f"address delete {host.address}/24 dev eth0")
    listening = hearer(two)
    assert say(one)[0] == ["127.255.255.255", "ff02::6365:7865%eth0"]
    assert listening.heard() == [("hello", "fe80::1", False)]


@pytest.mark.parametrize(("group", "label", "sender"), [
    ("10.77.0.255", "10.77.0.255", "10.77.0.1"),
    ("10.77.0.255:4000", "10.77.0.255:4000", "10.77.0.1"),
    ("255.255.255.255", "255.255.255.255%eth0", "10.77.0.1"),
    ("239.1.2.3", "239.1.2.3%eth0", "10.77.0.1"),
    ("239.1.2.3%eth0:4000/1", "239.1.2.3%eth0:4000", "10.77.0.1"),
    ("ff02::77", "ff02::77%eth0", "fe80::1"),
    ("[ff02::77%eth0]:4000/1", "[ff02::77%eth0]:4000", "fe80::1"),
    ("ff05::77%eth0/4", "ff05::77%eth0", "fd77::1"),
])  # fmt: skip
def test_every_kind_of_group_joins_two_hosts(
    group: str, label: str, sender: str, lab: MakeLab, hearer: StartHearer
) -> None:
    one, two = lab(2).hosts
    listening = [hearer(two, group), hearer(two, group)]
    sent, failures = say(one, group)
    assert label in sent and failures == {}
    for each in listening:
        assert [(text, unicast) for text, _, unicast in each.heard()] == [("hello", False)]


def test_the_source_of_multicast_is_an_address_to_connect_to(lab: MakeLab, hearer: StartHearer) -> None:
    one, two = lab(2).hosts
    listening = hearer(two, "239.1.2.3,ff02::77")
    say(one, "239.1.2.3%eth0,ff02::77%eth0")
    assert listening.heard() == [("hello", "10.77.0.1", False), ("hello", "fe80::1", False)]


@pytest.mark.parametrize("group", ["239.1.2.3", "ff02::77", "ff05::77"])
def test_an_interface_can_be_picked_by_both_sides(group: str, lab: MakeLab, hearer: StartHearer) -> None:
    left, middle, right = lab([(1, 2), (2, 3)]).hosts
    listening_left, listening_right = hearer(left, group), hearer(right, group)
    assert say(middle, f"{group}%eth1") == ([f"{group}%eth1"], {})
    assert [text for text, _, _ in listening_right.heard()] == ["hello"]
    assert listening_left.heard() == []
    choosy, open_to_all = hearer(middle, f"{group}%eth0"), hearer(middle, group)
    say(left, f"{group}%eth0", "left")
    say(right, f"{group}%eth1", "right")
    assert [text for text, _, _ in choosy.heard()] == ["left"]  # although another one here has joined on eth1
    assert [text for text, _, _ in open_to_all.heard()] == ["left", "right"]


def test_a_unicast_list_reaches_each_host_and_is_told_apart(lab: MakeLab, hearer: StartHearer) -> None:
    one, two, three = lab(3).hosts
    listening = [hearer(two), hearer(three)]
    assert say(one, f"{two.address},[fd77::3]:3010") == ([two.address, "fd77::3"], {})
    assert listening[0].heard() == [("hello", one.address, True)]
    assert listening[1].heard() == [("hello", "fd77::1", True)]


def test_one_list_serves_all_hosts_of_it(lab: MakeLab, hearer: StartHearer) -> None:
    one, two = lab(2).hosts
    group = f"{one.address},{two.address}"
    listening = hearer(two, group)
    assert listening.addresses == [two.address]
    assert listening.ask("state")[1] == {one.address: "no address of this machine"}
    assert say(one, group)[0] == [one.address, two.address]
    assert listening.heard() == [("hello", one.address, True)]


@pytest.mark.parametrize("user", [None, NOBODY])
def test_a_unicast_datagram_is_passed_on_to_all_on_its_host(
    user: int | None, lab: MakeLab, hearer: StartHearer
) -> None:
    """Root and the same user believe each other; nobody believes another user, and anybody believes root."""
    if user is not None:
        require_second_user()
    one, two = lab(2).hosts
    listening = [hearer(two, two.address), hearer(two), hearer(two, two.address, user)]
    say(one, two.address)
    answers: list[list[None]] = [[], [], []]

    def passed_on() -> bool:
        for each, answer in zip(listening, answers, strict=True):
            answer += each.ask("pass on")
        return any(answers)

    wait_until(passed_on)
    assert sorted(answers) == [[], [], [None]]
    sender = answers.index([None])
    for number, each in enumerate(listening):
        over_udp = ("passed on", "127.0.0.1", False)
        believed = user is None or sender != 2
        assert sorted(each.heard()) == ([over_udp] if number == sender else [("passed on", "", believed), over_udp])


def test_a_name_of_this_machine_is_heard_and_reached(lonely: Namespace, hearer: StartHearer) -> None:
    listening = hearer(lonely, "localhost")
    assert listening.addresses == ["localhost"]
    assert say(lonely, "localhost")[0] == ["localhost"]
    assert {(text, unicast) for text, _, unicast in listening.heard()} == {("hello", True)}


def test_users_side_by_side_hear_a_broadcast_once_each(lab: MakeLab, hearer: StartHearer) -> None:
    one, two = lab(2).hosts
    listening = [hearer(two), hearer(two), hearer(two, "10.77.0.255")]
    say(one, "10.77.0.255,127.255.255.255")
    for each in listening:
        assert each.heard() == [("hello", one.address, False)]


def test_another_user_hears_the_same_broadcast(lab: MakeLab, hearer: StartHearer) -> None:
    require_second_user()
    one, two = lab(2).hosts
    for order in ((None, NOBODY, 12345), (NOBODY, None, None)):
        listening = [hearer(two, "10.77.0.255,239.1.2.3,ff02::77", user) for user in order]
        say(one, "10.77.0.255,239.1.2.3%eth0,ff02::77%eth0")
        for each in listening:
            assert [text for text, _, _ in each.heard()] == ["hello"] * 3
            each.close()


def plug_in_later(host: Namespace, name: str, network: int) -> None:
    """A new interface of a host, whose cable ends in the same host."""
    host.ip(
        f"link add {name} type veth peer name {name}end",
        f"link set {name} addrgenmode none",
        f"link set {name}end addrgenmode none up",
        f"address add 10.88.{network}.1/24 broadcast 10.88.{network}.255 dev {name}",
        f"link set {name} up",
        f"address add fe80::88/64 dev {name} nodad",
    )


@pytest.mark.parametrize(("group", "label"), [
    ("", "10.88.5.255"),
    ("", "ff02::6365:7865%late0"),
    ("10.88.5.255", "10.88.5.255"),
    ("10.88.5.1", "10.88.5.1"),
    ("239.1.2.3", "239.1.2.3%late0"),
    ("239.1.2.3%late0", "239.1.2.3%late0"),
    ("ff02::77", "ff02::77%late0"),
    ("[ff02::77%late0]:4000", "[ff02::77%late0]:4000"),
    ("ff05::77", "ff05::77%late0"),
])  # fmt: skip
def test_an_interface_that_comes_later_is_heard_after_a_refresh(
    group: str, label: str, lonely: Namespace, hearer: StartHearer
) -> None:
    listening = hearer(lonely, group)
    assert label not in listening.addresses
    plug_in_later(lonely, "late0", 5)
    assert listening.ask("refresh") is True
    addresses, unheard = listening.ask("state")
    assert label in addresses and unheard == {}
    sent, failures = say(lonely, group)
    assert label in sent and failures == {}
    assert "hello" in [text for text, _, _ in listening.heard()]
    assert listening.ask("refresh") is False


def test_an_interface_that_goes_is_given_up_and_its_successor_joined(lab: MakeLab, hearer: StartHearer) -> None:
    one, two = lab(2).hosts
    groups = "239.1.2.3,ff02::77,ff05::77"
    listening, ordinary = hearer(two, groups), hearer(two)
    two.link(up=False)
    assert listening.ask("refresh") and ordinary.ask("refresh")
    assert listening.ask("state")[0] == ["239.1.2.3%lo"]
    assert ordinary.ask("state")[0] == ["127.255.255.255"]
    two.link(up=True)
    assert listening.ask("refresh") and ordinary.ask("refresh")
    say(one, "239.1.2.3%eth0,ff02::77%eth0,ff05::77%eth0")
    assert [text for text, _, _ in listening.heard()] == ["hello"] * 3
    say(one)
    assert [text for text, _, _ in ordinary.heard()] == ["hello"] * 2


def test_an_interface_that_is_replaced_is_joined_again(lab: MakeLab, hearer: StartHearer) -> None:
    _, two = lab(2).hosts
    listening = hearer(two, "239.1.2.3,ff02::77")
    two.ip("link delete eth0")
    listening.ask("refresh")
    plug_in_later(two, "eth0", 0)
    assert listening.ask("refresh")
    assert listening.ask("state")[0] == ["239.1.2.3%lo", "239.1.2.3%eth0", "ff02::77%eth0"]
    say(two, "239.1.2.3%eth0,ff02::77")
    assert [text for text, _, _ in listening.heard()] == ["hello"] * 2


def test_an_interface_that_changes_its_address_is_still_heard(lab: MakeLab, hearer: StartHearer) -> None:
    one, two = lab(2).hosts
    listening = hearer(two)
    for host in (one, two):
        host.ip(
            f"address delete {host.address}/24 dev eth0",
            f"address add 10.99.0.{host.number}/16 broadcast 10.99.255.255 dev eth0",
        )
    assert listening.ask("refresh")
    assert listening.ask("state")[0] == ["10.99.255.255", "127.255.255.255", "ff02::6365:7865%eth0"]
    assert say(one)[0][0] == "10.99.255.255"
    assert ("hello", "10.99.0.1", False) in listening.heard()


@pytest.mark.parametrize("noticed", [True, False])
def test_memberships_that_the_kernel_has_dropped_are_made_again(
    noticed: bool, lab: MakeLab, hearer: StartHearer
) -> None:
    one, two = lab(2).hosts
    listening = hearer(two, "ff05::77")
    two.mtu(1000)  # below IPv6's smallest: the interface loses its addresses and its groups
    assert not noticed or listening.ask("refresh")
    two.mtu(1500)
    two.ip("address replace fe80::22/64 dev eth0 nodad")
    listening.ask("refresh")
    say(one, "ff05::77%eth0")
    assert [text for text, _, _ in listening.heard()] == ["hello"]


def test_a_firewall_that_forbids_sending_is_suspected(lab: MakeLab) -> None:
    require_tool("nft")
    [host] = lab(1).hosts
    host.drop(100, "udp dport 3010 ip daddr 10.77.0.255", hook="output")
    sent, failures = say(host)
    assert "127.255.255.255" in sent and "10.77.0.255" not in sent
    assert failures == {"10.77.0.255": "operation not permitted (a firewall rule?)"}


def test_a_network_that_cannot_be_reached_is_told(lonely: Namespace) -> None:
    assert say(lonely, "10.1.1.1,127.255.255.255,239.1.1.1%eth7") == (
        ["127.255.255.255"],
        {"10.1.1.1": "network is unreachable", "239.1.1.1%eth7": "no interface eth7"},
    )


def test_full_datagrams_pass_a_network_with_small_packets(lab: MakeLab, hearer: StartHearer) -> None:
    one, two = lab(2).hosts
    listening = hearer(two)
    one.mtu(600)
    assert "10.77.0.255" in say(one, text="x" * 1232)[0]
    assert listening.heard() == [("x" * 1232, one.address, False)]


@pytest.mark.parametrize("host", ["10.77.0.1", "fd77::1", "fe80::1"])
def test_a_worker_connects_to_each_address_that_a_datagram_can_come_from(host: str, lab: MakeLab) -> None:
    one, two = lab(2).hosts
    listening = one.popen([sys.executable, "-c", LISTEN], stdout=subprocess.PIPE, text=True)
    assert listening.stdout is not None
    port = listening.stdout.readline().strip()
    result = two.run([sys.executable, "-c", CONNECT, host, port, "eth0"], capture_output=True, text=True)
    assert result.stdout == "None\n"
    assert listening.communicate(timeout=20)[0] == host[:-1] + "2\n"


@pytest.mark.parametrize(("host", "expected"), [
    ("10.77.0.255", "ProtocolError asked to connect to 10.77.0.255, a broadcast address\n"),
    ("10.77.0.2", "connection refused\n"),
    ("10.1.1.1", "LocalError network is unreachable\n"),
])  # fmt: skip
def test_a_worker_that_cannot_connect_says_why(host: str, expected: str, lab: MakeLab) -> None:
    one, _ = lab(2).hosts
    result = one.run([sys.executable, "-c", CONNECT, host, "4000", "eth0"], capture_output=True, text=True)
    assert result.stdout == expected
