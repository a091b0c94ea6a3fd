"""What a group list means for sending, on machines with made-up interfaces."""

from __future__ import annotations

import _socket

import pytest

from cexec.net import destinations as module
from cexec.net.destinations import default_broadcasts, destinations
from cexec.net.groups import parse_groups
from cexec.net.interfaces import Interface

UP, DOWN = 0x41, 0x1
BROADCAST, LOOPBACK, MULTICAST = 0x2, 0x8, 0x1000
ETHERNET = UP | BROADCAST | MULTICAST


def interface(name: str, index: int, flags: int, *addresses: str, port: bool = False) -> Interface:
    made = Interface(name, index, flags, port)
    for address in addresses:
        host, _, prefix = address.partition("/")
        if ":" in host:
            made.add_ipv6(host, 64)
        else:
            made.add_ipv4(host, int(prefix), None)
    return made


LO = interface("lo", 1, UP | LOOPBACK, "127.0.0.1/8", "::1/128")
LAPTOP = [
    LO,
    interface("eth0", 2, ETHERNET & ~0x40, "10.9.0.5/24"),  # up, but no cable
    interface("wlan0", 3, ETHERNET, "192.168.1.7/24", "fe80::7/64"),
    interface("docker0", 4, ETHERNET, "172.17.0.1/16"),
    interface("veth1", 5, ETHERNET, "fe80::9/64", port=True),  # of docker0
    interface("tun0", 6, UP | MULTICAST, "10.8.0.2/24", "fe80::8/64"),
]


@pytest.fixture(autouse=True)
def _laptop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "interfaces", lambda: LAPTOP)


def labels(text: str | None) -> list[str]:
    chosen, failures = destinations(None if text is None else parse_groups(text), 3010)
    assert not failures
    return [one.label for one in chosen]


def test_the_default_group_is_every_broadcast_the_loopback_and_link_local_multicast() -> None:
    assert labels(None) == [
        "192.168.1.255", "172.17.255.255", "127.255.255.255", "ff02::6365:7865%wlan0", "ff02::6365:7865%tun0",
    ]  # fmt: skip


def test_the_default_multicast_stays_on_its_link() -> None:
    chosen, _ = destinations(None, 3010)
    assert [(one.sockaddr, one.interface, one.hops) for one in chosen if one.family == _socket.AF_INET6] == [
        (("ff02::6365:7865", 3010, 0, 3), 3, 1),
        (("ff02::6365:7865", 3010, 0, 6), 6, 1),
    ]


def test_a_machine_without_a_network_sends_to_its_loopback() -> None:
    assert default_broadcasts([LO]) == ["127.255.255.255"]


def test_a_machine_whose_interfaces_are_unknown_sends_to_its_loopback() -> None:
    assert default_broadcasts([]) == ["127.255.255.255"]


def test_a_loopback_that_is_down_is_not_sent_to() -> None:
    assert default_broadcasts([interface("lo", 1, LOOPBACK, "127.0.0.1/8")]) == []


def test_two_addresses_in_one_network_are_one_broadcast() -> None:
    both = interface("eth0", 2, ETHERNET, "10.0.0.5/24", "10.0.0.6/24", "10.1.0.6/24")
    assert default_broadcasts([LO, both]) == ["10.0.0.255", "10.1.0.255", "127.255.255.255"]


@pytest.mark.parametrize(("text", "expected"), [
    ("10.0.0.7", ["10.0.0.7"]),
    ("10.0.0.7:4000,2001:db8::1", ["10.0.0.7:4000", "2001:db8::1"]),
    ("[2001:db8::1]:4000", ["[2001:db8::1]:4000"]),
    ("10.0.0.7:3010", ["10.0.0.7"]),
    ("239.1.2.3", ["239.1.2.3%lo", "239.1.2.3%wlan0", "239.1.2.3%docker0", "239.1.2.3%tun0"]),
    ("239.1.2.3%docker0:4000/5", ["239.1.2.3%docker0:4000"]),
    ("239.1.2.3%3", ["239.1.2.3%wlan0"]),
    ("ff02::77", ["ff02::77%wlan0", "ff02::77%tun0"]),
    ("[ff05::77%tun0]:4000", ["[ff05::77%tun0]:4000"]),
    ("255.255.255.255", ["255.255.255.255%wlan0", "255.255.255.255%docker0"]),
    ("255.255.255.255%docker0", ["255.255.255.255%docker0"]),
    ("node7,mdns", []),
])  # fmt: skip
def test_an_entry_becomes_its_destinations(text: str, expected: list[str]) -> None:
    assert labels(text) == expected


def test_multicast_has_its_hop_limit_and_other_destinations_have_none() -> None:
    chosen, _ = destinations(parse_groups("239.1.2.3%wlan0,ff05::7%wlan0/0,10.0.0.7,255.255.255.255%wlan0"), 3010)
    assert [(one.hops, one.interface) for one in chosen] == [(31, 3), (0, 3), (None, 0), (None, 3)]


@pytest.mark.parametrize(("text", "reason"), [
    ("239.1.2.3%eth9", "no interface eth9"),
    ("255.255.255.255%eth9", "no interface eth9"),
    ("[ff02::7%99]:4000", "no interface 99"),
])  # fmt: skip
def test_an_entry_that_has_nowhere_to_go_says_why(text: str, reason: str) -> None:
    chosen, failures = destinations(parse_groups(text + ",10.0.0.7"), 3010)
    assert [one.label for one in chosen] == ["10.0.0.7"]
    assert failures == {text: reason}


def test_multicast_without_any_interface_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "interfaces", lambda: [LO])
    assert destinations(parse_groups("ff02::7"), 3010) == ([], {"ff02::7": "no interface that can"})


def test_addresses_alone_need_no_look_at_the_interfaces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(module, "interfaces")
    assert labels("127.255.255.255,10.0.0.7:4000,::1") == ["127.255.255.255", "10.0.0.7:4000", "::1"]


def test_a_link_local_address_carries_its_interface() -> None:
    [one], _ = destinations(parse_groups("[fe80::1%lo]:4000"), 3010)
    assert one.sockaddr == ("fe80::1", 4000, 0, _socket.if_nametoindex("lo"))
