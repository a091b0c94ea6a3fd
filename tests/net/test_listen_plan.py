"""Which sockets a group list wants, on machines with made-up interfaces."""

from __future__ import annotations

import _socket
from collections.abc import Mapping, Sequence

import pytest

from cexec.net.groups import DEFAULT_IPV6_GROUP, parse_groups
from cexec.net.listen_plan import ListenPlan
from tests.net.test_destinations import LAPTOP, LO

IPV4, IPV6 = _socket.AF_INET, _socket.AF_INET6
FORWARDING = (IPV4, "127.255.255.255", 3010, 0)


def plan(text: str | None, resolved: Mapping[str, Sequence[tuple[int, str]]] | None = None) -> ListenPlan:
    return ListenPlan(None if text is None else parse_groups(text), 3010, LAPTOP, resolved or {})


def test_the_default_group_is_heard_at_every_address() -> None:
    ipv4, ipv6 = plan(None).hearings
    assert (ipv4.key, ipv4.unicast) == ((IPV4, "0.0.0.0", 3010, 0), None)
    assert ipv4.labels == ["192.168.1.255", "172.17.255.255", "127.255.255.255"]
    assert (ipv6.key, ipv6.unicast) == ((IPV6, "::", 3010, 0), None)
    assert ipv6.memberships == {
        (DEFAULT_IPV6_GROUP, 3): "ff02::6365:7865%wlan0",
        (DEFAULT_IPV6_GROUP, 6): "ff02::6365:7865%tun0",
    }


@pytest.mark.parametrize("address", ["192.168.1.255", "127.255.255.255", "255.255.255.255"])
def test_a_broadcast_address_is_heard_alone(address: str) -> None:
    [hearing] = plan(address).hearings
    assert (hearing.key, hearing.unicast, hearing.labels) == ((IPV4, address, 3010, 0), False, [address])


@pytest.mark.parametrize(("text", "key"), [
    ("192.168.1.7", (IPV4, "192.168.1.7", 3010, 0)),
    ("2001:db8::1", (IPV6, "2001:db8::1", 3010, 0)),
])  # fmt: skip
def test_with_a_unicast_address_goes_the_place_where_others_pass_its_datagrams_on(
    text: str, key: tuple[int, str, int, int]
) -> None:
    own, forwarding = plan(text).hearings
    assert (own.key, own.unicast, own.labels) == (key, True, [text])
    assert (forwarding.key, forwarding.unicast, forwarding.labels) == (FORWARDING, False, [])


def test_the_ports_of_entries_are_kept_apart() -> None:
    hearings = plan("192.168.1.7,192.168.1.7:4000,192.168.1.255:4000").hearings
    assert [hearing.key[1:3] for hearing in hearings] == [
        ("192.168.1.7", 3010), ("127.255.255.255", 3010),
        ("192.168.1.7", 4000), ("127.255.255.255", 4000),
        ("192.168.1.255", 4000),
    ]  # fmt: skip


def test_one_socket_hears_an_ipv4_group_on_all_its_interfaces() -> None:
    [hearing] = plan("239.1.2.3%wlan0,239.1.2.3%docker0").hearings
    assert hearing.key == (IPV4, "239.1.2.3", 3010, 0)
    assert hearing.memberships == {("239.1.2.3", 3): "239.1.2.3%wlan0", ("239.1.2.3", 4): "239.1.2.3%docker0"}


def test_a_link_local_group_needs_a_socket_for_each_interface() -> None:
    hearings = plan("ff02::77").hearings
    assert [hearing.key for hearing in hearings] == [(IPV6, "ff02::77", 3010, 3), (IPV6, "ff02::77", 3010, 6)]
    assert [list(hearing.memberships) for hearing in hearings] == [[("ff02::77", 3)], [("ff02::77", 6)]]


def test_a_wider_group_needs_one_socket() -> None:
    [hearing] = plan("ff05::77").hearings
    assert hearing.key == (IPV6, "ff05::77", 3010, 0)
    assert list(hearing.memberships) == [("ff05::77", 3), ("ff05::77", 6)]


def test_a_wider_group_of_one_interface_is_bound_to_it() -> None:
    hearings = plan("ff05::77%wlan0,ff05::77").hearings
    assert [hearing.key for hearing in hearings] == [(IPV6, "ff05::77", 3010, 3), (IPV6, "ff05::77", 3010, 0)]
    assert [list(hearing.memberships) for hearing in hearings] == [
        [("ff05::77", 3)],
        [("ff05::77", 3), ("ff05::77", 6)],
    ]


def test_a_name_is_heard_at_each_of_its_addresses() -> None:
    hearings = plan("box", {"box": [(IPV4, "192.168.1.7"), (IPV6, "2001:db8::1")]}).hearings
    assert [hearing.key[1] for hearing in hearings] == ["192.168.1.7", "127.255.255.255", "2001:db8::1"]
    assert [hearing.labels for hearing in hearings] == [["box"], [], ["box"]]


def test_mdns_is_heard_at_every_address_and_covers_the_others_of_its_port() -> None:
    hearings = plan("192.168.1.7,mdns,192.168.1.255:4000,239.1.2.3%lo").hearings
    assert [hearing.key[1:3] for hearing in hearings] == [
        ("0.0.0.0", 3010), ("::", 3010), ("192.168.1.255", 4000), ("239.1.2.3", 3010),
    ]  # fmt: skip
    assert hearings[0].labels == ["every address of this machine", "192.168.1.7"]


@pytest.mark.parametrize(("text", "reason"), [
    ("239.1.2.3%eth9", "no interface eth9"),
    ("ff02::77%eth9", "no interface eth9"),
    ("box", "no such name"),
])  # fmt: skip
def test_what_cannot_be_heard_says_why(text: str, reason: str) -> None:
    made = plan(text)
    assert (made.hearings, made.unheard) == ([], {text: reason})


def test_a_machine_without_a_network_hears_its_loopback() -> None:
    ipv4, ipv6 = ListenPlan(None, 3010, [LO], {}).hearings
    assert (ipv4.labels, ipv6.memberships) == (["127.255.255.255"], {})
