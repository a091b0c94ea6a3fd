"""The interfaces are read as the kernel has them, quickly, and never with an error."""

from __future__ import annotations

import _socket
import sys
import time

import psutil
import pytest

from cexec.net import interfaces as module
from cexec.net.interfaces import Interface, interfaces

BROADCAST, LOOPBACK, UP = 0x2, 0x8, 0x41
needs_netlink = pytest.mark.skipif(sys.platform != "linux", reason="netlink is Linux's")


def table(found: list[Interface]) -> dict[str, tuple[set[str], bool, bool]]:
    return {one.name: ({*one.addresses()}, one.up, one.loopback) for one in found}


def test_the_loopback_is_there() -> None:
    [loopback] = [one for one in interfaces() if one.loopback]
    assert loopback.up and loopback.index == _socket.if_nametoindex(loopback.name)
    assert [(one.address, one.prefix, one.broadcast) for one in loopback.ipv4][:1] == [
        ("127.0.0.1", 8, "127.255.255.255")
    ]


@needs_netlink
def test_netlink_and_psutil_tell_the_same_addresses() -> None:
    found = {name: addresses for name, (addresses, _, _) in table(interfaces()).items()}
    families = (_socket.AF_INET, _socket.AF_INET6)
    other = {
        name: {one.address.partition("%")[0] for one in addresses if one.family in families}
        for name, addresses in psutil.net_if_addrs().items()
    }
    assert {name: addresses for name, addresses in found.items() if addresses} == {
        name: addresses for name, addresses in other.items() if addresses
    }


@needs_netlink
def test_reading_takes_well_under_a_millisecond_for_each_few_interfaces() -> None:
    def duration() -> float:
        start = time.perf_counter()
        interfaces()
        return time.perf_counter() - start

    count = len(interfaces())
    assert min(duration() for _ in range(50)) < 0.0005 * max(1, count / 4)


def test_without_netlink_psutil_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = {
        name: (addresses, loopback) for name, (addresses, _, loopback) in table(interfaces()).items() if addresses
    }
    monkeypatch.delattr(_socket, "AF_NETLINK", raising=False)
    found = {name: (addresses, loopback) for name, (addresses, _, loopback) in table(interfaces()).items() if addresses}
    assert found == expected


def test_a_kernel_that_refuses_to_tell_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> dict[int, Interface]:
        raise PermissionError("not for you")

    monkeypatch.setattr(module, "from_netlink", refuse)
    monkeypatch.setattr(module, "from_psutil", refuse)
    assert interfaces() == []


@pytest.mark.parametrize(("flags", "address", "prefix", "given", "broadcast"), [
    (BROADCAST, "10.1.2.3", 24, "10.1.2.255", "10.1.2.255"),
    (BROADCAST, "10.1.2.3", 24, None, "10.1.2.255"),
    (BROADCAST, "10.1.2.3", 12, "0.0.0.0", "10.15.255.255"),
    (BROADCAST, "10.1.2.3", 31, None, None),
    (BROADCAST, "10.1.2.3", 32, "10.1.2.3", None),
    (BROADCAST, "10.1.2.3", 32, "10.1.2.255", "10.1.2.255"),
    (LOOPBACK, "127.0.0.1", 8, None, "127.255.255.255"),
    (0, "10.8.0.2", 24, None, None),
])  # fmt: skip
def test_a_broadcast_address_is_computed_where_the_link_has_one(
    flags: int, address: str, prefix: int, given: str | None, broadcast: str | None
) -> None:
    interface = Interface("x0", 7, flags)
    interface.add_ipv4(address, prefix, given)
    assert interface.ipv4[0].broadcast == broadcast


@pytest.mark.parametrize(("flags", "up"), [(0x1, False), (0x40, False), (UP, True)])
def test_up_means_with_a_carrier(flags: int, up: bool) -> None:
    assert Interface("x0", 7, flags).up is up


class ChangingTable:
    """A netlink channel whose first answer says that the table changed while it was read."""

    def __init__(self) -> None:
        self.requests = 0

    def send(self, data: bytes) -> int:
        self.requests += 1
        return len(data)

    def recv(self, size: int) -> bytes:
        flags = module.DUMP_INTERRUPTED if self.requests == 1 else 0
        body = self.requests.to_bytes(4, sys.byteorder)
        answers = ((16 + len(body), module.RTM_NEWADDR, flags, body), (16, module.NLMSG_DONE, 0, b""))
        return b"".join(
            length.to_bytes(4, sys.byteorder)
            + kind.to_bytes(2, sys.byteorder)
            + flags.to_bytes(2, sys.byteorder)
            + bytes(8)
            + body
            for length, kind, flags, body in answers
        )


def test_a_table_that_changed_while_it_was_read_is_read_again() -> None:
    channel = ChangingTable()
    [body] = module.read_table(channel, module.RTM_GETADDR, module.RTM_NEWADDR, bytes(8))  # type: ignore[arg-type]
    assert (channel.requests, body) == (2, (2).to_bytes(4, sys.byteorder))


@pytest.mark.parametrize("size", range(9))
def test_truncated_attributes_end_the_walk(size: int) -> None:
    attribute = (8).to_bytes(2, sys.byteorder) + (3).to_bytes(2, sys.byteorder) + b"eth0"
    assert module.parse_attributes(attribute[:size], 0) == ({} if size < 4 else {3: b"eth0"[: size - 4]})


def test_attributes_of_no_size_end_too() -> None:
    assert module.parse_attributes(bytes(40), 0) == {0: b""}
