"""Reading many datagrams at once, and one by one: both do the same."""

from __future__ import annotations

import _socket
from collections.abc import Callable, Iterator

import pytest

from cexec.net import batches
from cexec.net.announcer import LINUX
from cexec.net.batches import Batches, SingleDatagrams, make_batches
from cexec.protocol.base.limits import MAXIMUM_FORWARDED

Receiver = Batches | SingleDatagrams
Open = Callable[[int, str], _socket.socket]
only_linux = pytest.mark.skipif(not LINUX, reason="recvmmsg")


@pytest.fixture(params=[pytest.param(Batches, marks=only_linux), SingleDatagrams])
def receiver(request: pytest.FixtureRequest) -> Receiver:
    result: Receiver = request.param()
    return result


@pytest.fixture
def bound() -> Iterator[Open]:
    """Opens non-blocking UDP sockets at an address."""
    opened: list[_socket.socket] = []

    def make(family: int, address: str) -> _socket.socket:
        opened.append(_socket.socket(family, _socket.SOCK_DGRAM))
        opened[-1].setblocking(False)
        opened[-1].bind((address, 0))
        return opened[-1]

    yield make
    for one in opened:
        one.close()


def received(
    receiver: Receiver, via: _socket.socket, *, limit: int = 1000, prefix: bytes = b"", unicast: bool | None = False
) -> list[tuple[bytes, tuple[object, ...], bool]]:
    heard: list[batches.Heard] = []
    receiver.receive(via, limit, prefix, unicast, heard)
    assert all(one[2] is via for one in heard)
    return [(data, source, alone) for data, source, _, alone in heard]


@pytest.mark.parametrize(("family", "address"), [(_socket.AF_INET, "127.0.0.1"), (_socket.AF_INET6, "::1")])
def test_data_and_source_are_as_python_has_them(receiver: Receiver, bound: Open, family: int, address: str) -> None:
    via, sender = bound(family, address), bound(family, address)
    expected = []
    for number in range(150):  # more than two batches
        data = bytes([number]) * number
        sender.sendto(data, via.getsockname())
        expected.append((data, sender.getsockname(), True))
    assert received(receiver, via, unicast=True) == expected
    assert received(receiver, via) == []


def test_senders_are_told_apart_however_many(receiver: Receiver, bound: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "MOST_SOURCES", 2)
    via, senders = bound(_socket.AF_INET, "127.0.0.1"), [bound(_socket.AF_INET, "127.0.0.1") for _ in range(5)]
    for sender in senders * 2:
        sender.sendto(b"x", via.getsockname())
    assert [source for _, source, _ in received(receiver, via)] == [one.getsockname() for one in senders] * 2


def test_no_more_than_the_limit_is_read(receiver: Receiver, bound: Open) -> None:
    via, sender = bound(_socket.AF_INET, "127.0.0.1"), bound(_socket.AF_INET, "127.0.0.1")
    for number in range(130):
        sender.sendto(bytes([number]), via.getsockname())
    numbers = [[data[0] for data, _, _ in received(receiver, via, limit=limit)] for limit in (1, 64, 66)]
    assert numbers == [[0], list(range(1, 65)), list(range(65, 130))]


def test_what_begins_otherwise_or_is_too_long_is_dropped(receiver: Receiver, bound: Open) -> None:
    via, sender = bound(_socket.AF_INET, "127.0.0.1"), bound(_socket.AF_INET, "127.0.0.1")
    longest = b"abc" + bytes(MAXIMUM_FORWARDED - 3)
    for data in (longest, longest + b"x", b"ab", b"", b"xabc", b"abd", b"abc", b"ab", b"c"):
        sender.sendto(data, via.getsockname())
    assert [data for data, _, _ in received(receiver, via, prefix=b"abc")] == [longest, b"abc"]


@only_linux
@pytest.mark.parametrize(("family", "at", "to", "alone"), [
    (_socket.AF_INET, "0.0.0.0", "127.0.0.1", True),
    (_socket.AF_INET, "0.0.0.0", "127.255.255.255", False),
    (_socket.AF_INET6, "::", "::1", True),
])  # fmt: skip
def test_the_kernel_tells_who_was_addressed(
    receiver: Receiver, bound: Open, family: int, at: str, to: str, alone: bool
) -> None:
    via, sender = bound(family, at), bound(family, at)
    if family == _socket.AF_INET:
        via.setsockopt(_socket.IPPROTO_IP, 8, 1)  # IP_PKTINFO
        sender.setsockopt(_socket.SOL_SOCKET, _socket.SO_BROADCAST, 1)
    else:
        via.setsockopt(_socket.IPPROTO_IPV6, _socket.IPV6_RECVPKTINFO, 1)
    sender.sendto(b"x", (to, via.getsockname()[1]))
    assert [told for _, _, told in received(receiver, via, unicast=None)] == [alone]


def test_a_closed_socket_has_nothing(receiver: Receiver, bound: Open) -> None:
    via = bound(_socket.AF_INET, "127.0.0.1")
    via.close()
    assert received(receiver, via) == []


def test_where_there_is_no_recvmmsg_datagrams_are_read_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Batches) -> None:
        raise AttributeError("recvmmsg")

    monkeypatch.setattr(Batches, "__init__", fail)
    assert isinstance(make_batches(), SingleDatagrams)
