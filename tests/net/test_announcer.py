"""A sender on the loopback: what goes out, what is said of what does not, and what comes back."""

from __future__ import annotations

import _socket
import _thread
import errno
import select
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cexec.net import announcer as module
from cexec.net import resolver
from cexec.net.announcer import Announcer
from cexec.net.destinations import destinations
from cexec.net.groups import parse_groups
from cexec.net.resolver import resolve
from cexec.protocol.base.limits import MAXIMUM_DATAGRAM
from tests.waiting import PATIENCE, wait_until

_IP_RECVTTL, _IP_TTL = 12, 2  # <linux/in.h>
needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="Linux's socket options")

OpenAnnouncer = Callable[[str], Announcer]


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that looks a name up may be slow."""
    monkeypatch.setattr(resolver, "RESOLVE_PATIENCE", PATIENCE)


@pytest.fixture
def hearer() -> Iterator[_socket.socket]:
    """A socket on a free port of the loopback's broadcast address."""
    made = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM)
    made.bind(("127.255.255.255", 0))
    made.settimeout(PATIENCE)
    yield made
    made.close()


@pytest.fixture
def announcer(hearer: _socket.socket) -> Iterator[OpenAnnouncer]:
    """Opens announcers whose usual port is the hearer's."""
    opened: list[Announcer] = []

    def make(text: str) -> Announcer:
        opened.append(Announcer(parse_groups(text), hearer.getsockname()[1]))
        return opened[-1]

    yield make
    for one in opened:
        one.close()


def test_a_broadcast_arrives_and_its_answer_comes_back(hearer: _socket.socket, announcer: OpenAnnouncer) -> None:
    sender = announcer("127.255.255.255")
    assert sender.send(b"question") == ["127.255.255.255"]
    data, source = hearer.recvfrom(2000)
    assert data == b"question"
    hearer.sendto(b"answer", source)
    select.select(sender.filenos(), [], [], PATIENCE)
    assert sender.receive() == [(b"answer", ("127.0.0.1", hearer.getsockname()[1]))]


def test_receiving_never_blocks(announcer: OpenAnnouncer) -> None:
    sender = announcer("127.255.255.255")
    assert sender.receive() == []
    sender.send(b"question")
    assert sender.receive() == []


def test_an_answer_that_is_too_long_is_dropped(hearer: _socket.socket, announcer: OpenAnnouncer) -> None:
    sender = announcer("127.255.255.255")
    sender.send(b"question")
    _, source = hearer.recvfrom(2000)
    for size in (MAXIMUM_DATAGRAM + 1, MAXIMUM_DATAGRAM, 5000, 0):
        hearer.sendto(bytes(size), source)
    received: list[int] = []

    def last_came() -> bool:
        received.extend(len(data) for data, _ in sender.receive())
        return 0 in received

    wait_until(last_came)
    assert received == [MAXIMUM_DATAGRAM, 0]


def test_with_a_loopback_group_only_the_loopback_is_bound(hearer: _socket.socket, announcer: OpenAnnouncer) -> None:
    sender = announcer("127.255.255.255")
    assert sender.loopback and not sender.ipv6
    sender.send(b"question")
    [number] = sender.filenos()
    bound = _socket.socket(fileno=number)
    assert bound.getsockname()[0] == "127.0.0.1"
    bound.detach()


def test_interfaces_are_asked_for_once_in_a_second(
    hearer: _socket.socket, announcer: OpenAnnouncer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: that was a third of what a worker did for many short jobs, each of which it tells the loggers of."""
    asked: list[float] = []
    clock = [100.0]
    monkeypatch.setattr(module, "monotonic", lambda: clock[0])

    def look(*arguments: Any) -> Any:
        asked.append(clock[0])
        return destinations(*arguments)

    monkeypatch.setattr(module, "destinations", look)
    sender = announcer("127.255.255.255,[ff02::1%nowhere]")
    for now in (100.0, 100.1, 100.9, 101.0, 101.5):
        clock[0] = now
        assert sender.send(b"x") == ["127.255.255.255"]
        assert list(sender.failures) == ["[ff02::1%nowhere]"]
        assert hearer.recvfrom(2000)[0] == b"x"
    assert asked == [100.0, 101.0]


def test_all_destinations_of_a_family_share_a_socket(announcer: OpenAnnouncer) -> None:
    sender = announcer("127.255.255.255,127.0.0.1,127.0.0.2")
    assert sender.send(b"x") == ["127.255.255.255", "127.0.0.1", "127.0.0.2"]
    assert len(sender.filenos()) == 1


def test_what_cannot_be_sent_is_told_and_does_not_stop_the_rest(announcer: OpenAnnouncer) -> None:
    sender = announcer("239.1.1.1%nonexistent,fe80::1%nonexistent,127.255.255.255")
    assert sender.send(b"x") == ["127.255.255.255"]
    assert sender.failures["239.1.1.1%nonexistent"] == "no interface nonexistent"
    assert sender.failures.keys() == {"239.1.1.1%nonexistent", "fe80::1%nonexistent"}


def test_a_firewall_is_suspected_when_sending_is_forbidden(
    announcer: OpenAnnouncer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbid(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    sender = announcer("127.255.255.255")
    with monkeypatch.context() as patch:
        patch.setattr(module, "send_datagram", forbid)
        assert sender.send(b"x") == []
    assert sender.failures == {"127.255.255.255": "operation not permitted (a firewall rule?)"}
    assert sender.send(b"x") == ["127.255.255.255"]
    assert sender.failures == {}


@needs_linux
@pytest.mark.parametrize(("text", "ttl"), [("239.1.2.3%lo", 31), ("239.1.2.3%lo/7", 7), ("239.1.2.3%lo/0", 0)])
def test_multicast_goes_out_with_its_hop_limit(text: str, ttl: int, announcer: OpenAnnouncer) -> None:
    with_port = text.partition("/")
    member = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM)
    member.bind(("239.1.2.3", 0))
    member.settimeout(PATIENCE)
    request = _socket.inet_aton("239.1.2.3") + bytes(4) + _socket.if_nametoindex("lo").to_bytes(4, sys.byteorder)
    member.setsockopt(_socket.IPPROTO_IP, _socket.IP_ADD_MEMBERSHIP, request)
    member.setsockopt(_socket.IPPROTO_IP, _IP_RECVTTL, 1)
    port = member.getsockname()[1]
    sender = announcer(f"{with_port[0]}:{port}{with_port[1]}{with_port[2]}")
    assert sender.send(b"x") == [f"239.1.2.3%lo:{port}"]
    _, [(_, kind, value)], _, _ = member.recvmsg(10, 64)
    assert (kind, int.from_bytes(value, sys.byteorder)) == (_IP_TTL, ttl)
    member.close()


def test_a_name_is_looked_up_and_sent_to(hearer: _socket.socket, announcer: OpenAnnouncer) -> None:
    unicast = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM)
    unicast.bind(("127.0.0.1", 0))
    unicast.settimeout(PATIENCE)
    port = unicast.getsockname()[1]
    assert announcer(f"localhost:{port}").send(b"x") == [f"localhost:{port}"]
    assert unicast.recv(10) == b"x"
    unicast.close()


def test_a_name_that_nobody_knows_is_told_and_asked_again(
    announcer: OpenAnnouncer, monkeypatch: pytest.MonkeyPatch
) -> None:
    known: list[object] = []

    def getaddrinfo(host: bytes, port: int, *_: int) -> list[object]:
        assert host == b"node7"
        if not known:
            raise _socket.gaierror(_socket.EAI_NONAME, "Name or service not known")
        return known

    monkeypatch.setattr(_socket, "getaddrinfo", getaddrinfo)
    sender = announcer("node7:9,127.255.255.255")
    assert sender.send(b"x") == ["127.255.255.255"]
    assert sender.failures == {"node7:9": "no such name"}
    assert sender.hopeless == ""
    known.append((_socket.AF_INET, _socket.SOCK_DGRAM, 17, "", ("127.0.0.9", 9)))
    assert sender.send(b"x") == ["127.255.255.255", "node7:9"]
    assert sender.failures == {}


@pytest.mark.parametrize(
    ("group", "hopeless"),
    [
        ("gone", "gone: no such name"),
        ("gone,gone:9", "gone: no such name; gone:9: no such name"),
        ("gone,away", ""),  # its name server may come back
        ("gone,printer.local", ""),  # it may be switched on
        ("gone,239.1.2.3%no-such0", ""),  # so may the interface
        ("gone,127.255.255.255", ""),
        ("gone,mdns", ""),
    ],
)
def test_waiting_is_in_vain_where_no_name_exists_and_nothing_else_is_there(
    announcer: OpenAnnouncer, monkeypatch: pytest.MonkeyPatch, group: str, hopeless: str
) -> None:
    def getaddrinfo(host: bytes, *_: object) -> list[object]:
        raise _socket.gaierror(_socket.EAI_AGAIN if host == b"away" else _socket.EAI_NONAME, "Not found")

    monkeypatch.setattr(_socket, "getaddrinfo", getaddrinfo)
    sender = announcer(group)
    assert sender.hopeless == ""
    sender.send(b"x")
    assert sender.hopeless == hopeless


def test_a_name_server_that_does_not_answer_holds_nobody_up(
    announcer: OpenAnnouncer, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered = threading.Event()

    def getaddrinfo(*_: object) -> list[object]:
        answered.wait(PATIENCE)
        return [(_socket.AF_INET, _socket.SOCK_DGRAM, 17, "", ("127.0.0.9", 9))]

    monkeypatch.setattr(_socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(resolver, "RESOLVE_PATIENCE", 0.01)
    sender = announcer("node7:9,127.255.255.255")
    assert sender.send(b"x") == ["127.255.255.255"]
    assert sender.failures == {"node7:9": "this name is still being looked up"}
    answered.set()
    monkeypatch.setattr(resolver, "RESOLVE_PATIENCE", PATIENCE)
    assert sender.send(b"x") == ["127.255.255.255", "node7:9"]


def test_a_name_of_which_one_address_works_is_no_failure(
    announcer: OpenAnnouncer, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [
        (_socket.AF_INET6, _socket.SOCK_DGRAM, 17, "", ("ff02::1", 9, 0, 12345)),
        (_socket.AF_INET, _socket.SOCK_DGRAM, 17, "", ("127.0.0.9", 9)),
    ]
    monkeypatch.setattr(_socket, "getaddrinfo", lambda *_: answers)
    sender = announcer("node7:9")
    assert (sender.send(b"x"), sender.failures) == (["node7:9"], {})


def test_without_a_thread_the_name_is_looked_up_all_the_same(
    announcer: OpenAnnouncer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(_thread, "start_new_thread", refuse)
    assert announcer("localhost:9").send(b"x") == ["localhost:9"]


def test_a_part_of_a_name_that_is_too_long_is_no_such_name() -> None:
    [entry] = parse_groups("a" * 64 + ".example")
    found, reason = resolve(entry, 3010)
    assert (found, reason) == ([], "no such name")


def test_closing_twice_is_no_error(announcer: OpenAnnouncer) -> None:
    sender = announcer("127.255.255.255")
    sender.send(b"x")
    sender.close()
    sender.close()
    assert sender.filenos() == []


def test_parting_words_go_to_what_is_known_and_wait_for_no_name(
    announcer: OpenAnnouncer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client's alert must not delay its exit, and its search is over by then."""
    answered = threading.Event()

    def getaddrinfo(host: bytes, *_: object) -> list[object]:
        if host != b"node7":
            answered.wait(PATIENCE)
        return [(_socket.AF_INET, _socket.SOCK_DGRAM, 17, "", listening.getsockname())]

    monkeypatch.setattr(_socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(resolver, "RESOLVE_PATIENCE", 2.0)
    listening = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM)
    listening.bind(("127.0.0.1", 0))
    listening.settimeout(PATIENCE)
    sender = announcer("node7,slow:9")
    assert sender.send(b"before") == ["node7"]
    sender.close()
    monkeypatch.setattr(resolver, "RESOLVE_PATIENCE", 1000.0)  # pytest's timeout would notice
    sender.send_parting(b"after")
    assert (listening.recv(10), listening.recv(10)) == (b"before", b"after")
    assert sender.filenos() == []
    answered.set()
    listening.close()
