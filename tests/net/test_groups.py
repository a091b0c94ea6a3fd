"""Group lists: what is allowed, what is refused and how, and which variable counts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cexec.errors import EXIT_USAGE, GroupError, UsageError
from cexec.net.groups import (
    ADDRESS,
    DEFAULT_HOPS,
    MDNS,
    MULTICAST,
    NAME,
    GroupEntry,
    all_literal,
    all_loopback,
    groups_from_environment,
    parse_groups,
    udp_port_from_environment,
    uses_ipv6,
)
from cexec.protocol.base.limits import UDP_PORT

ALLOWED = [
    # text, kind, address, interface, hops, port
    ("192.168.1.255", ADDRESS, "192.168.1.255", "", 0, None),
    ("10.0.0.7:4000", ADDRESS, "10.0.0.7", "", 0, 4000),
    ("255.255.255.255%eth0", ADDRESS, "255.255.255.255", "eth0", 0, None),
    ("239.1.2.3", MULTICAST, "239.1.2.3", "", DEFAULT_HOPS, None),
    ("239.1.2.3/1", MULTICAST, "239.1.2.3", "", 1, None),
    ("239.1.2.3%eth0.7:65535/255", MULTICAST, "239.1.2.3", "eth0.7", 255, 65535),
    ("224.0.0.1/0", MULTICAST, "224.0.0.1", "", 0, None),
    ("ff05::77", MULTICAST, "ff05::77", "", DEFAULT_HOPS, None),
    ("FF02:0::77%wlan0/3", MULTICAST, "ff02::77", "wlan0", 3, None),
    ("[ff02::77%2]:3011/3", MULTICAST, "ff02::77", "2", 3, 3011),
    ("[2001:db8::1]", ADDRESS, "2001:db8::1", "", 0, None),
    ("2001:db8::1", ADDRESS, "2001:db8::1", "", 0, None),
    ("[2001:db8::1]:1", ADDRESS, "2001:db8::1", "", 0, 1),
    ("fe80::1%eth0", ADDRESS, "fe80::1", "eth0", 0, None),
    ("node7", NAME, "node7", "", 0, None),
    ("node-7.lab.example.:4000", NAME, "node-7.lab.example.", "", 0, 4000),
    ("my_container", NAME, "my_container", "", 0, None),
    ("mdns", MDNS, "", "", 0, None),
    ("mDNS", MDNS, "", "", 0, None),
]  # fmt: skip


def parse_one(text: str) -> GroupEntry:
    [entry] = parse_groups(text)
    return entry


@pytest.mark.parametrize(("text", "kind", "address", "interface", "hops", "port"), ALLOWED)
def test_an_entry_is_understood(
    text: str, kind: str, address: str, interface: str, hops: int, port: int | None
) -> None:
    entry = parse_one(text)
    assert (entry.kind, entry.address, entry.interface, entry.hops, entry.port) == (
        kind, address, interface, hops, port,
    )  # fmt: skip
    assert entry.text == text


@pytest.mark.parametrize(("text", "reason"), [
    ("", "it is empty"),
    (":4000", "it is empty"),
    ("10.0.0.1:0", "port must be"),
    ("10.0.0.1:65536", "port must be"),
    ("10.0.0.1:", "port must be"),
    ("10.0.0.1:+5", "port must be"),
    ("10.0.0.1:٣", "port must be"),
    ("[ff02::1]:x", "port must be"),
    ("[ff02::1", "brackets"),
    ("[ff02::1]4000", "brackets"),
    ("[10.0.0.1]:4000", "brackets"),
    ("192.168.1.0/24", "only a multicast group has a hop limit"),
    ("node7/3", "only a multicast group has a hop limit"),
    ("239.1.2.3/", "hop limit must be"),
    ("239.1.2.3/256", "hop limit must be"),
    ("239.1.2.3/31:4000", "hop limit must be"),
    ("239.1.2.3%", "no interface"),
    ("10.0.0.1%eth0", "%interface"),
    ("node7%eth0", "%interface"),
    ("fe80::1", "needs an %interface"),
    ("2001:db8::1%eth0", "no other host's address takes one"),
    ("0.0.0.0", "nothing can be sent"),
    ("240.0.0.1", "nothing can be sent"),
    ("::", "nothing can be sent"),
    ("::ffff:10.0.0.1", "write IPv4"),
    ("10.0.0", "not a complete IPv4 address"),
    ("300.1.1.1", "not a complete IPv4 address"),
    ("1000", "not a complete IPv4 address"),
    ("a..b", "neither an address nor a host name"),
    ("two words", "neither an address nor a host name"),
    ("rechner.städte.example", "neither an address nor a host name"),
    ("a" * 254, "neither an address nor a host name"),
    ("ff02::g", "neither an address nor a host name"),
    ("mdns:3010", "mdns takes no port"),
])  # fmt: skip
def test_a_bad_entry_is_named_with_what_is_allowed(text: str, reason: str) -> None:
    with pytest.raises(GroupError) as caught:
        parse_groups(text)
    message = str(caught.value)
    assert repr(text) in message and reason in message
    assert "multicast with %interface and /hops" in message and "mdns" in message
    assert caught.value.exit_status == EXIT_USAGE


def test_a_list_keeps_its_order_and_may_have_spaces() -> None:
    entries = parse_groups(" 10.0.0.255 ,mdns, node7:4000 ")
    assert [entry.text for entry in entries] == ["10.0.0.255", "mdns", "node7:4000"]


@pytest.mark.parametrize("text", ["10.0.0.1,", ",10.0.0.1", "10.0.0.1,,10.0.0.2"])
def test_an_empty_entry_is_refused(text: str) -> None:
    with pytest.raises(GroupError, match="bad group entry ''"):
        parse_groups(text)


def test_the_error_names_the_bad_entry_and_not_the_good_ones() -> None:
    with pytest.raises(GroupError) as caught:
        parse_groups("10.0.0.255,bad entry,239.1.1.1")
    assert "'bad entry'" in str(caught.value) and "239.1.1.1" not in str(caught.value)


@given(st.text(alphabet="0123456789abcdef.:[]%/,- mdns\0é", max_size=40))
def test_any_text_is_either_understood_or_a_group_error(text: str) -> None:
    try:
        entries = parse_groups(text)
    except GroupError:
        assert not all_literal(text)
        return
    assert len(entries) == text.count(",") + 1
    for entry in entries:
        assert entry.kind in (ADDRESS, MULTICAST, NAME, MDNS)
        again = parse_one(entry.text)
        assert (again.kind, again.address, again.port) == (entry.kind, entry.address, entry.port)


@pytest.mark.parametrize(("text", "literal"), [
    ("10.0.0.255", True),
    ("10.0.0.255:4000,[ff02::77%eth0]:3010/3", True),
    ("users", False),
    ("1000", False),
    ("10.0.0.255,users", False),
    ("mdns", False),
    ("10.0.0.255:99999", False),
    ("", False),
])  # fmt: skip
def test_only_literal_addresses_make_a_literal_list(text: str, literal: bool) -> None:
    assert all_literal(text) is literal


@pytest.mark.parametrize(("text", "loopback"), [
    ("127.255.255.255", True),
    ("127.0.0.1:4000,::1,localhost", True),
    ("239.1.1.1%lo,ff01::1", True),
    ("127.255.255.255,10.0.0.255", False),
    ("ff02::1", False),
    ("node7", False),
    ("mdns", False),
])  # fmt: skip
def test_a_list_is_loopback_when_nothing_can_leave_the_machine(text: str, loopback: bool) -> None:
    assert all_loopback(parse_groups(text)) is loopback


def test_the_default_group_is_not_loopback() -> None:
    assert not all_loopback(None)


@pytest.mark.parametrize(("text", "ipv6"), [
    ("127.255.255.255,239.1.1.1", False),
    ("127.255.255.255,ff02::1", True),
    ("node7", True),
    ("mdns", True),
])  # fmt: skip
def test_answers_come_by_ipv6_only_where_something_is_sent_by_it(text: str, ipv6: bool) -> None:
    assert uses_ipv6(parse_groups(text)) is ipv6
    assert uses_ipv6(None)


@pytest.mark.parametrize(("environ", "texts"), [
    ({}, None),
    ({"CEXEC_GROUP": ""}, None),
    ({"CEXEC_GROUP": "node7,mdns"}, ["node7", "mdns"]),
    ({"CEXEC_GROUP": "10.0.0.1", "GROUP": "10.0.0.2"}, ["10.0.0.1"]),
    ({"CEXEC_GROUP": " ", "GROUP": "10.0.0.2"}, ["10.0.0.2"]),
    ({"GROUP": "10.0.0.2,ff02::1"}, ["10.0.0.2", "ff02::1"]),
    ({"GROUP": "users"}, None),
    ({"GROUP": "10.0.0.2,users"}, None),
    ({"GROUP": "100"}, None),
])  # fmt: skip
def test_group_counts_only_when_it_can_be_nothing_else(environ: dict[str, str], texts: list[str] | None) -> None:
    entries = groups_from_environment(environ)
    assert (None if entries is None else [entry.text for entry in entries]) == texts


def test_a_bad_cexec_group_is_an_error_and_not_the_default() -> None:
    with pytest.raises(GroupError):
        groups_from_environment({"CEXEC_GROUP": "10.0.0", "GROUP": "10.0.0.2"})


def test_the_udp_port_is_the_protocols_unless_set() -> None:
    assert udp_port_from_environment({}) == udp_port_from_environment({"CEXEC_UDP_PORT": " "}) == UDP_PORT
    assert udp_port_from_environment({"CEXEC_UDP_PORT": "4444"}) == 4444


@pytest.mark.parametrize("text", ["0", "65536", "-1", "http", "3010,3011", "1e3", "99999999999999999999"])
def test_a_udp_port_that_is_none_is_wrong_use(text: str) -> None:
    with pytest.raises(UsageError, match="CEXEC_UDP_PORT") as caught:
        udp_port_from_environment({"CEXEC_UDP_PORT": text})
    assert repr(text) in str(caught.value)
