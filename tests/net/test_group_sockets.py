"""Hearing a group on the loopback: several processes at once, unicast passed on, drops counted."""

from __future__ import annotations

import _socket
import errno
import select
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cexec.errors import LocalError
from cexec.net import group_sockets as module
from cexec.net import mdns
from cexec.net.announcer import Announcer, open_datagram_socket
from cexec.net.destinations import Destination
from cexec.net.group_sockets import GroupSockets
from cexec.net.groups import GroupEntry, parse_groups
from cexec.net.interfaces import Interface
from cexec.net.resolver import resolve
from cexec.protocol.base.limits import MAXIMUM_FORWARDED
from tests.environment import ABSENT_NAME
from tests.waiting import wait_until

Hear = Callable[[str | None], GroupSockets]
needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="Linux's socket options")


@pytest.fixture
def port() -> int:
    """A UDP port that nobody has."""
    free = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM)
    free.bind(("0.0.0.0", 0))
    number = int(free.getsockname()[1])
    free.close()
    return number


@pytest.fixture
def hear(port: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hear]:
    """Opens group sockets on `port`; `mdns` is heard, but starts no process."""
    monkeypatch.setattr(mdns.Registration, "refresh", lambda self, now: None)
    opened: list[GroupSockets] = []

    def make(text: str | None) -> GroupSockets:
        opened.append(GroupSockets(None if text is None else parse_groups(text), port))
        return opened[-1]

    yield make
    for one in opened:
        one.close()


def say(text: str, port: int, data: bytes = b"hello") -> list[str]:
    sender = Announcer(parse_groups(text), port)
    sent = sender.send(data)
    sender.close()
    return sent


def heard(sockets: GroupSockets, wait: float = 5) -> list[tuple[bytes, bool]]:
    """What has come: the data, and whether it was sent to this machine alone."""
    select.select(sockets.filenos(), [], [], wait)
    return [(data, unicast) for data, _, _, unicast in sockets.receive()]


@pytest.mark.parametrize("group", [None, "127.255.255.255"])
def test_a_broadcast_reaches_every_one_that_listens_once(group: str | None, hear: Hear, port: int) -> None:
    all_sockets = [hear(group) for _ in range(3)]
    assert say("127.255.255.255", port) == ["127.255.255.255"]
    for sockets in all_sockets:
        assert heard(sockets) == [(b"hello", False)]
        assert heard(sockets, wait=0) == []


def test_a_socket_on_one_broadcast_address_hears_nothing_else(hear: Hear, port: int) -> None:
    sockets = hear("127.255.255.255")
    assert sockets.addresses() == ["127.255.255.255"]
    say("127.0.0.1", port)
    say("127.255.255.255", port, b"broadcast")
    assert heard(sockets) == [(b"broadcast", False)]


@pytest.mark.parametrize(("group", "to"), [
    (None, "127.0.0.1"),
    (None, "::1"),
    ("127.0.0.1", "127.0.0.1"),
    ("127.0.0.1,::1", "::1"),
    ("localhost", "127.0.0.1"),
    ("mdns", "127.0.0.7"),
])  # fmt: skip
def test_a_unicast_datagram_reaches_one_which_passes_it_on_to_all(
    group: str | None, to: str, hear: Hear, port: int
) -> None:
    all_sockets = [hear(group) for _ in range(3)]
    say(to, port)
    select.select([number for sockets in all_sockets for number in sockets.filenos()], [], [], 5)
    [(one, (data, source, via, unicast))] = [(one, heard) for one in all_sockets for heard in one.receive()]
    assert (data, unicast) == (b"hello", True)
    told = b"passed on " + repr(source).encode()
    assert one.forward([told], via) is None
    for sockets in all_sockets:
        assert heard(sockets) == [(told, False)]
        passed = [(data, via.getsockname()[1], believed) for data, via, believed in sockets.receive_forwarded()]
        assert passed == ([] if sockets is one else [(told, port, True)])


def test_what_is_passed_on_comes_from_the_loopback(hear: Hear, port: int) -> None:
    sockets = hear("127.0.0.1")
    say("127.0.0.1", port)
    assert select.select(sockets.filenos(), [], [], 5)[0]
    heard_first = sockets.receive()
    sockets.forward([b"x"], heard_first[0][2])
    select.select(sockets.filenos(), [], [], 5)
    [(_, source, _, _)] = sockets.receive()
    assert source[0] == "127.0.0.1"


def test_an_answer_comes_from_the_port_that_was_asked(hear: Hear, port: int) -> None:
    sockets = hear(None)
    asking = Announcer(parse_groups("127.255.255.255,::1"), port)
    asking.send(b"question")
    questions: list[Any] = []

    def asked() -> bool:
        questions.extend(sockets.receive())
        return len(questions) == 2

    wait_until(asked)
    assert [source[0] for _, source, _, _ in questions] == ["127.0.0.1", "::1"]
    for _, source, via, _ in questions:
        assert sockets.send_to(b"answer", source, via) is None
    answers: list[Any] = []

    def answered() -> bool:
        answers.extend(asking.receive())
        return len(answers) == 2

    wait_until(answered)
    assert [(data, source[:2]) for data, source in answers] == [
        (b"answer", ("127.0.0.1", port)),
        (b"answer", ("::1", port)),
    ]
    asking.close()


def test_an_answer_finds_another_socket_when_its_own_is_gone(hear: Hear, port: int) -> None:
    sockets = hear(None)
    gone = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM)
    gone.close()
    receiver = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM)
    receiver.bind(("127.0.0.1", 0))
    receiver.settimeout(5)
    assert sockets.send_to(b"answer", receiver.getsockname(), gone) is None
    assert receiver.recvfrom(10) == (b"answer", ("127.0.0.1", port))
    receiver.close()


def test_an_answer_that_cannot_be_sent_says_why(hear: Hear) -> None:
    sockets = hear("127.255.255.255")
    [number] = sockets.filenos()
    via = _socket.socket(fileno=number)
    assert sockets.send_to(bytes(70000), ("127.0.0.1", 4000), via) == "message too long"
    assert sockets.send_to(b"x", ("::1", 4000, 0, 0), via) == "address family not supported by protocol"
    via.detach()


@pytest.mark.parametrize(
    "address",
    [("127.255.255.255", 4000), ("255.255.255.255", 4000), ("239.1.2.3", 4000), ("0.0.0.0", 4000), ("127.0.0.1", 53),
     ("127.0.0.1", 0), ("ff02::1", 4000, 0, 1), ("::", 4000, 0, 0), ("::ffff:10.0.0.1", 4000, 0, 0)],
)  # fmt: skip
def test_nothing_is_answered_to_what_is_no_host(address: tuple[Any, ...], hear: Hear) -> None:
    """The source of a datagram may be anything: 0.1.0 answered to broadcast addresses."""
    sockets = hear("127.255.255.255")
    sent: list[Any] = []

    class Recorder(_socket.socket):
        def sendto(self, *told: Any) -> int:
            sent.append(told)
            return 0

    with_ipv6 = Recorder(_socket.AF_INET6 if len(address) == 4 else _socket.AF_INET, _socket.SOCK_DGRAM)
    assert sockets.send_to(b"x", address, with_ipv6) is not None
    assert sent == []
    with_ipv6.close()


def test_a_datagram_that_is_too_long_is_dropped(hear: Hear, port: int) -> None:
    sockets = [hear(None), hear("127.255.255.255")]
    say("127.255.255.255", port, bytes(MAXIMUM_FORWARDED + 1))
    say("127.255.255.255", port, bytes(MAXIMUM_FORWARDED))
    for one in sockets:
        assert [len(data) for data, _ in heard(one)] == [MAXIMUM_FORWARDED]


def test_receive_keeps_to_its_limit(hear: Hear, port: int) -> None:
    sockets = [hear(None), hear("127.255.255.255")]
    for number in range(5):
        say("127.255.255.255", port, bytes([number]))
    for one in sockets:
        assert [data[0] for data, _, _, _ in one.receive(3)] == [0, 1, 2]
        assert [data[0] for data, _, _, _ in one.receive(3)] == [3, 4]


def test_another_machines_address_is_not_heard_and_named(hear: Hear, port: int) -> None:
    sockets = hear(f"127.255.255.255,198.51.100.7,{ABSENT_NAME}")
    assert sockets.addresses() == ["127.255.255.255"]
    assert sockets.unheard == {"198.51.100.7": "no address of this machine", ABSENT_NAME: "no such name"}
    assert sockets.description() == "127.255.255.255"


def test_who_hears_nothing_says_why(hear: Hear, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> list[object]:
        raise _socket.gaierror(_socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(_socket, "getaddrinfo", fail)
    sockets = hear("239.1.2.3%no-such0,198.51.100.7,node7")
    assert sockets.description() == (
        "nothing (239.1.2.3%no-such0: no interface no-such0; node7: temporary failure in name resolution; "
        "198.51.100.7: no address of this machine)"
    )


def test_a_name_that_was_unknown_at_the_start_is_heard_once_it_is_known(
    hear: Hear, monkeypatch: pytest.MonkeyPatch, port: int
) -> None:
    """Regression: where workers start before their name server they were deaf until an interface changed."""
    known: list[object] = []
    asked = threading.Event()

    def getaddrinfo(*_: object) -> list[object]:
        asked.set()
        if not known:
            raise _socket.gaierror(_socket.EAI_AGAIN, "Temporary failure in name resolution")
        return known

    monkeypatch.setattr(_socket, "getaddrinfo", getaddrinfo)
    sockets = hear("node7")
    assert not sockets.refresh()
    known.append((_socket.AF_INET, _socket.SOCK_DGRAM, 17, "", ("127.0.0.9", port)))
    wait_until(sockets.refresh)
    assert (sockets.addresses(), sockets.unheard) == (["node7"], {})
    asked.clear()
    assert not sockets.refresh() and not asked.is_set()


def test_a_port_that_another_program_keeps_for_itself_is_told(port: int) -> None:
    taken = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM)
    taken.bind(("0.0.0.0", port))
    with pytest.raises(LocalError, match=rf"UDP port {port} .*address already in use; set CEXEC_UDP_PORT"):
        GroupSockets(None, port)
    taken.close()
    GroupSockets(None, port).close()


def test_without_ipv6_the_default_group_is_heard_by_ipv4(
    hear: Hear, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def only_ipv4(family: int) -> _socket.socket:
        if family == _socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
        return open_datagram_socket(family)

    monkeypatch.setattr(module, "open_datagram_socket", only_ipv4)
    sockets = hear(None)
    say("127.255.255.255", port)
    assert heard(sockets) == [(b"hello", False)]
    assert len(sockets.filenos()) == 2  # and the link to the processes of this host


def test_refreshing_without_a_change_changes_nothing(hear: Hear) -> None:
    sockets = hear("127.255.255.255,127.0.0.1,239.1.1.1,ff02::1")
    before = sockets.filenos(), sockets.addresses()
    assert not sockets.refresh()
    assert (sockets.filenos(), sockets.addresses()) == before


def test_names_are_looked_up_again_only_when_the_interfaces_have_changed(
    hear: Hear, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def look_up(entry: GroupEntry, port: int) -> tuple[list[Destination], str]:
        asked.append(entry.text)
        return resolve(entry, port)

    monkeypatch.setattr(module, "resolve", look_up)
    sockets = hear("localhost")
    sockets.refresh()
    assert asked == ["localhost"]
    monkeypatch.setattr(module, "interfaces", lambda: [Interface("lo", 1, 0)])
    sockets.refresh()
    assert asked == ["localhost"] * 2


def test_a_refresh_that_cannot_see_the_interfaces_keeps_what_there_is(
    hear: Hear, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sockets = hear("239.1.2.3%lo")
    monkeypatch.setattr(module, "interfaces", lambda: [])
    assert not sockets.refresh()
    say("239.1.2.3%lo", port)
    assert heard(sockets) == [(b"hello", False)]


@needs_linux
def test_datagrams_that_the_kernel_drops_are_counted(hear: Hear, port: int) -> None:
    sockets = hear("127.255.255.255")
    assert sockets.drops() == 0
    sender = Announcer(parse_groups("127.255.255.255"), port)
    for _ in range(12000):
        sender.send(bytes(1200))
    sender.close()
    received = 0

    def all_known() -> bool:
        nonlocal received
        while batch := sockets.receive():
            received += len(batch)
        return sockets.drops() == 12000 - received

    wait_until(all_known)
    assert 0 < received < 12000
    dropped = sockets.drops()
    sockets.close()
    assert sockets.drops() == dropped


@needs_linux
def test_the_receive_buffer_is_large(hear: Hear) -> None:
    with open("/proc/sys/net/core/rmem_max") as maximum:
        allowed = int(maximum.read())
    [number] = hear("127.255.255.255").filenos()
    opened = _socket.socket(fileno=number)
    size = opened.getsockopt(_socket.SOL_SOCKET, _socket.SO_RCVBUF)
    opened.detach()
    assert size >= 2 * min(allowed, 4 * 1024 * 1024)


def test_a_multicast_group_of_another_program_is_not_heard(hear: Hear, port: int) -> None:
    sockets = hear("239.1.2.3%lo")
    others = hear(None)  # at every address, so the kernel would give it what any program here has joined
    say("239.1.2.3%lo", port)
    assert heard(sockets) == [(b"hello", False)]
    assert heard(others, wait=0.05) == []


def test_closing_twice_is_no_error(hear: Hear) -> None:
    sockets = hear(None)
    sockets.close()
    sockets.close()
    assert sockets.filenos() == [] and sockets.receive() == []
