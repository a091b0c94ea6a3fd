"""SELF and TARGET: which networks a relay joins."""

from __future__ import annotations

import pytest

from cexec.errors import CexecError, GroupError, LocalError, UsageError
from cexec.net.groups import GroupEntry, parse_groups
from cexec.net.interfaces import Interface
from cexec.relay.networks import parse_self, plan

UP = 0x1 | 0x2 | 0x40 | 0x1000  # up, broadcast, running, multicast
POINT_TO_POINT = 0x1 | 0x10 | 0x40
LOOPBACK = 0x1 | 0x8 | 0x40


def interface(name: str, index: int, ipv4: str = "", ipv6: str = "", flags: int = UP) -> Interface:
    made = Interface(name, index, flags)
    if ipv4:
        address, _, prefix = ipv4.partition("/")
        made.add_ipv4(address, int(prefix), None)
    made.ipv6 = ipv6.split()
    return made


LO = interface("lo", 1, "127.0.0.1/8", "::1", LOOPBACK)
ONE = interface("eth0", 2, "10.77.0.2/24", "fd77::2 fe80::2")
TWO = interface("eth1", 3, "10.77.1.2/24", "fe80::2")
VPN = interface("tun0", 4, "10.8.0.2/32", "", POINT_TO_POINT)
ALL = [LO, ONE, TWO, VPN]


def towards(entry: GroupEntry) -> str:
    """As the routes of this host would have it."""
    for start, address in (("10.77.0.", "10.77.0.2"), ("10.77.1.", "10.77.1.2"), ("fe80", "fe80::2")):
        if entry.address.startswith(start):
            return address
    return ""


def planned(own: str, *targets: str, group: str = "", found: list[Interface] = ALL) -> tuple[str, str, str]:
    """What is sent to near, what more is heard near, what is sent to far."""
    near, far = plan(parse_self(own), parse_groups(group) if group else None, targets, found, towards)
    texts = [entry.text for entry in near.sent_to]
    more = [entry.text for entry in near.heard if entry.text not in texts]
    return ",".join(texts), ",".join(more), ",".join(far.labels)


MULTICAST = "ff02::6365:7865"


def test_the_default_group_is_that_of_selfs_interface_and_the_target_those_of_the_others() -> None:
    near = f"10.77.0.255,{MULTICAST}%eth0"
    assert planned("10.77.0.2") == (near, "10.77.0.2", f"10.77.1.255,{MULTICAST}%eth1")
    assert planned("10.77.0.2", "10.77.1.255") == (near, "10.77.0.2", "10.77.1.255")
    assert planned("10.77.1.2") == (f"10.77.1.255,{MULTICAST}%eth1", "10.77.1.2", near)


def test_self_may_name_its_device_and_may_be_ipv6() -> None:
    expected = planned("10.77.0.2")
    assert planned("eth0:10.77.0.2") == expected == planned("2:10.77.0.2")
    assert planned("fd77:0::2") == (expected[0], "fd77::2", expected[2])
    assert planned("eth1:fe80::2")[:2] == (f"10.77.1.255,{MULTICAST}%eth1", "fe80::2%eth1")
    assert planned("eth1:[fe80::2]")[1] == "fe80::2%eth1"


def test_a_group_of_ones_own_is_heard_at_self() -> None:
    assert planned("10.77.0.2", "10.77.1.255", group="10.77.0.255") == ("10.77.0.255", "10.77.0.2", "10.77.1.255")
    assert planned("10.77.0.2", "mdns", group="239.1.2.3,255.255.255.255:4000")[0] == (
        "239.1.2.3%eth0/31,255.255.255.255%eth0:4000"
    )
    assert planned("10.77.0.2", "mdns", group="239.1.2.3%eth1/4")[0] == "239.1.2.3%eth1/4"
    assert planned("10.77.0.2", "mdns", group="[ff05::77]:4000/8")[0] == "[ff05::77%eth0]:4000/8"


def test_several_targets_may_be_lists_and_count_once() -> None:
    far = planned("10.77.0.2", "10.77.1.255,10.9.0.1:4000", "host.example", "10.77.1.255")[2]
    assert far == "10.77.1.255,10.9.0.1:4000,host.example"


def test_a_host_with_one_network_joins_its_group_and_its_broadcast() -> None:
    found = [LO, ONE]
    assert planned("10.77.0.2", group="239.1.2.3", found=found)[2] == f"10.77.0.255,{MULTICAST}%eth0"
    with pytest.raises(LocalError, match="no other network"):
        planned("10.77.0.2", found=found)


def test_a_host_on_a_network_without_broadcast_is_heard_by_its_address() -> None:
    assert planned("10.8.0.2", "10.77.0.255") == ("", "10.8.0.2", "10.77.0.255")


def test_each_side_hears_what_is_sent_to_the_address_by_which_it_knows_us() -> None:
    def heard_far(own: str, *targets: str) -> list[str]:
        return [entry.text for entry in plan(parse_self(own), None, targets, ALL, towards)[1].heard]

    assert heard_far("10.77.0.2", "10.77.1.255") == ["10.77.1.255", "10.77.1.2"]
    assert heard_far("10.77.0.2", "10.77.1.7,10.77.1.8") == ["10.77.1.7", "10.77.1.8", "10.77.1.2"]
    assert heard_far("10.77.1.2", "10.77.1.7") == ["10.77.1.7"]  # that is SELF
    assert heard_far("10.77.0.2", "fe80::7%eth1") == ["fe80::7%eth1", "fe80::2%eth1"]
    assert heard_far("10.77.0.2", "192.0.2.1") == ["192.0.2.1"]  # there is no route


@pytest.mark.parametrize(
    "own, group",
    [("127.0.0.1", ""), ("127.0.0.5", ""), ("lo:127.0.0.1", ""), ("::1", ""), ("127.0.0.1", "10.77.0.255"),
     ("10.77.0.2", "127.255.255.255"), ("10.77.0.2", "10.77.0.255,127.255.255.255")],
)  # fmt: skip
def test_the_loopback_is_joined_to_a_network_only_if_that_is_named(own: str, group: str) -> None:
    """Jobs of this machine would go to the neighbours, and theirs would come here."""
    lo = interface("lo", 1, "127.0.0.1/8", "::1", LOOPBACK)
    lo.add_ipv4("127.0.0.5", 8, None)
    found = [lo, ONE, TWO, VPN]
    with pytest.raises(UsageError, match="this host would become one network with others; name a TARGET"):
        planned(own, group=group, found=found)
    assert planned(own, "10.77.1.255", group=group, found=found)[2] == "10.77.1.255"


def test_the_loopback_is_heard_only_if_it_is_asked_for() -> None:
    assert not plan(parse_self("10.77.0.2"), None, [], ALL, towards)[0].loopback
    assert planned("127.0.0.1", "10.77.0.255")[0] == "127.255.255.255"
    assert plan(parse_self("127.0.0.1"), None, ["10.77.0.255"], ALL, towards)[0].loopback


def test_multicast_dns_finds_this_host_and_is_not_heard_as_every_address() -> None:
    near, far = plan(parse_self("10.77.0.2"), parse_groups("mdns"), ["mdns"], ALL, towards)
    assert (near.registered, far.registered) == (True, False)
    assert [entry.text for entry in near.heard] == ["10.77.0.2"] and far.heard == []


@pytest.mark.parametrize("text", ["", "eth0", "eth0:", ":10.0.0.1", "10.0.0", "host.example", "10.0.0.1:3010", "[::1"])
def test_self_that_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="DEVICE:ADDRESS"):
        parse_self(text)


def test_an_address_of_another_host_is_refused_with_ones_own() -> None:
    with pytest.raises(LocalError, match=r"9\.9 is no address of this host, whose addresses are: .*10\.77\.0\.2"):
        planned("10.77.9.9")
    with pytest.raises(LocalError, match=r"10\.77\.0\.2 is no address of eth1"):
        planned("eth1:10.77.0.2")
    with pytest.raises(LocalError, match="no interface eth9"):
        planned("eth9:10.77.0.2")


def test_a_target_that_is_the_group_itself_is_refused() -> None:
    for own, target in (("10.77.0.2", "10.77.0.255"), ("10.77.0.2", f"{MULTICAST}%eth0")):
        with pytest.raises(UsageError, match="is the group itself"):
            planned(own, target)


def test_a_target_that_is_no_group_is_refused() -> None:
    with pytest.raises(GroupError, match="bad group entry"):
        planned("10.77.0.2", "10.77.1.0/24")
    assert issubclass(GroupError, CexecError)


def test_a_network_has_the_hosts_of_its_own_links_only() -> None:
    near, far = plan(parse_self("10.77.0.2"), None, (), ALL, towards)
    assert [near.has_link(one.index) for one in (ONE, TWO, VPN)] == [True, False, False]
    assert [far.has_link(one.index) for one in (ONE, TWO, VPN)] == [False, True, True]


def test_a_target_may_be_on_the_link_of_self() -> None:
    for target in ("10.77.0.7", f"{MULTICAST}%eth0"):
        near, far = plan(parse_self("10.77.0.2"), parse_groups("239.1.2.3"), (target,), ALL, towards)
        assert near.has_link(ONE.index) and far.has_link(ONE.index)
