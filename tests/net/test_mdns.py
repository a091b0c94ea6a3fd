"""What is made of the lines of the process that speaks multicast DNS; tests/network/test_mdns.py has the process."""

from __future__ import annotations

import _socket
import os
import select
import sys
from time import monotonic

import pytest

from cexec.net import announcer as net_announcer
from cexec.net import mdns
from cexec.net.announcer import Announcer
from cexec.net.groups import parse_groups
from cexec.net.mdns import Browser, Registration


class FakeProcess:
    """Says what the test tells it to."""

    started: list[FakeProcess] = []  # noqa: RUF012 - emptied by the fixture

    def __init__(self, *arguments: str) -> None:
        self.arguments = arguments
        self.said: list[str] = []
        self.ended = False
        self.killed = False
        self.started.append(self)

    def fileno(self) -> int:
        return -1 if self.ended else 99

    def lines(self) -> list[str]:
        said, self.said = self.said, []
        return said

    def let_go(self) -> None:
        self.ended = True

    def kill(self) -> None:
        self.ended = self.killed = True


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> list[FakeProcess]:
    """Those that have been started."""
    monkeypatch.setattr(mdns, "HelperProcess", FakeProcess)
    monkeypatch.setattr(FakeProcess, "started", [])
    return FakeProcess.started


def test_what_is_found_is_told_once(processes: list[FakeProcess]) -> None:
    browser = Browser()
    (process,) = processes
    assert process.arguments == ("browse",) and browser.fileno() == 99
    process.said = ["found 10.0.0.7 0 3010", "found fe80::7 3 4000", "found 10.0.0.7 0 3010"]
    assert browser.finds() == ([(_socket.AF_INET, ("10.0.0.7", 3010)), (_socket.AF_INET6, ("fe80::7", 4000, 0, 3))], [])
    process.said = ["found fe80::7 3 4000"]
    assert browser.finds() == ([], [])


def test_what_is_lost_is_told_and_may_come_back(processes: list[FakeProcess]) -> None:
    browser = Browser(idly=True)
    (process,) = processes
    assert process.arguments == ("browse-idly",)
    process.said = ["found 10.0.0.7 0 3010", "lost 10.0.0.8 0 3010"]
    assert browser.finds() == ([(_socket.AF_INET, ("10.0.0.7", 3010))], [])
    process.said = ["lost 10.0.0.7 0 3010"]
    assert browser.finds() == ([], [("10.0.0.7", 3010)])
    process.said = ["found 10.0.0.7 0 3010"]
    assert browser.finds() == ([(_socket.AF_INET, ("10.0.0.7", 3010))], [])


@pytest.mark.parametrize("line", [
    "found 224.0.0.1 0 3010", "found ff02::1 2 3010", "found 0.0.0.0 0 3010", "found 255.255.255.255 0 3010",
    "found :: 0 3010", "found ::ffff:10.0.0.7 0 3010", "found 10.0.0.7 0 53", "found 10.0.0.7 0 123",
])  # fmt: skip
def test_nobody_can_make_us_send_to_what_is_no_worker(line: str, processes: list[FakeProcess]) -> None:
    browser = Browser()
    processes[0].said = [line, "found 10.0.0.8 0 3010"]
    assert browser.finds() == ([(_socket.AF_INET, ("10.0.0.8", 3010))], [])


@pytest.mark.parametrize("line", ["found", "found 10.0.0.7", "found 10.0.0.7 0 a", "found fe80::7 x 1", "lost a b c d"])
def test_a_line_of_another_form_is_passed_over(line: str, processes: list[FakeProcess]) -> None:
    """Regression, found while a fuzz target was written: `finds` promises to raise nothing, and raised a ValueError."""
    browser = Browser()
    processes[0].said = [line, "found 10.0.0.8 0 3010"]
    assert browser.finds() == ([(_socket.AF_INET, ("10.0.0.8", 3010))], [])


def test_only_so_many_are_believed(processes: list[FakeProcess], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mdns, "MAXIMUM_FOUND", 2)
    browser = Browser()
    processes[0].said = [f"found 10.0.0.{number} 0 3010" for number in range(1, 9)]
    assert len(browser.finds()[0]) == 2


def test_a_browser_tells_why_it_finds_nothing(processes: list[FakeProcess]) -> None:
    browser = Browser()
    assert browser.failure is None
    processes[0].said = ["failed permission denied"]
    assert browser.finds() == ([], []) and browser.failure == "permission denied"
    processes[0].ended = True
    assert browser.finds() == ([], []) and browser.failure == "permission denied"
    browser.close()
    assert processes[0].killed


def test_a_failed_registration_is_news_once_and_so_is_its_recovery(processes: list[FakeProcess]) -> None:
    registration = Registration(3010, 0.0)
    (process,) = processes
    assert process.arguments == ("register", "3010")
    process.said = ["registered"]
    registration.receive()
    assert registration.news() is None
    process.said = ["failed no such device", "failed no such device"]
    registration.receive()
    assert registration.news() == "cannot register with multicast DNS: no such device"
    assert registration.news() is None
    process.said = ["registered"]
    registration.receive()
    assert registration.news() == "registered with multicast DNS again"


def test_a_process_that_ends_is_started_again_later(processes: list[FakeProcess]) -> None:
    registration = Registration(3010, 0.0)
    processes[0].lines = lambda: setattr(processes[0], "ended", True) or []  # type: ignore[method-assign,func-returns-value]
    registration.receive()
    assert registration.news() == "cannot register with multicast DNS: its process has ended"
    assert registration.fileno() == -1
    registration.refresh(59.9)
    assert len(processes) == 1
    registration.refresh(60.0)
    assert len(processes) == 2 and registration.fileno() == 99


def test_a_registration_that_was_taken_back_stays_so(processes: list[FakeProcess]) -> None:
    registration = Registration(3010, 0.0)
    registration.close()
    registration.receive()
    registration.refresh(1000.0)
    assert len(processes) == 1 and not processes[0].killed and registration.news() is None


def test_a_process_that_cannot_be_started_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nonexistent")
    before = len(os.listdir("/proc/self/fd"))
    registration = Registration(3010, 0.0)
    assert (
        registration.news() == "cannot register with multicast DNS: cannot start its process: no such file or directory"
    )
    assert Browser().failure == "cannot start its process: no such file or directory"
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_registration_finds_others_too(processes: list[FakeProcess]) -> None:
    registration = Registration(3010, 0.0)
    processes[0].said = ["registered", "found 10.0.0.7 0 3010"]
    registration.receive()
    assert registration.news() is None
    assert registration.finds() == ([(_socket.AF_INET, ("10.0.0.7", 3010))], [])
    processes[0].said = ["lost 10.0.0.7 0 3010"]
    registration.receive()
    assert registration.finds() == ([], [("10.0.0.7", 3010)])


def test_a_sender_can_share_a_registration(processes: list[FakeProcess]) -> None:
    receiver = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM)
    receiver.bind(("127.0.0.1", 0))
    receiver.settimeout(5)
    port = receiver.getsockname()[1]
    announcer = Announcer(parse_groups("mdns"), 3010)
    registration = Registration(3010, 0.0)
    announcer.share(registration)
    announcer.send(b"hello")
    announcer.settle()
    assert len(processes) == 1  # it starts none of its own
    processes[0].said = [f"found 127.0.0.1 0 {port}"]
    registration.receive()
    announcer.receive()
    assert receiver.recv(10) == b"hello"
    processes[0].said = [f"lost 127.0.0.1 0 {port}"]
    registration.receive()
    announcer.receive()
    assert announcer.send(b"bye") == []
    announcer.close()
    receiver.close()


def test_what_is_found_gets_the_last_datagram_at_once_and_every_later_one(processes: list[FakeProcess]) -> None:
    receiver = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM)
    receiver.bind(("127.0.0.1", 0))
    receiver.settimeout(5)
    port = receiver.getsockname()[1]
    announcer = Announcer(parse_groups("127.0.0.9:9"), 3010)
    announcer.send(b"first")
    assert not processes
    announcer.browse()
    announcer.browse()
    (process,) = processes
    assert 99 in announcer.filenos()
    process.said = [f"found 127.0.0.1 0 {port}", "found ::1 0 4000"]
    assert announcer.receive() == []
    assert receiver.recv(10) == b"first"
    label = f"127.0.0.1:{port}"
    assert announcer.send(b"second") == ["127.0.0.9:9", label]  # not to ::1: no worker could connect to us by IPv6
    assert receiver.recv(10) == b"second"
    announcer.close()
    assert process.killed
    receiver.close()


def test_settling_waits_for_the_first_find_and_a_little_longer(
    processes: list[FakeProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, writing = os.pipe()
    monkeypatch.setattr(FakeProcess, "fileno", lambda self: reading)
    monkeypatch.setattr(net_announcer, "LONGEST_SEARCH", 0.3)
    announcer = Announcer(parse_groups("mdns"), 3010)
    before = monotonic()
    announcer.settle()
    assert monotonic() - before >= 0.3
    monkeypatch.setattr(net_announcer, "LONGEST_SEARCH", 60.0)
    before = monotonic()
    announcer.settle()  # once is enough
    assert monotonic() - before < 30
    announcer.close()

    os.write(writing, b"x")
    announcer = Announcer(parse_groups("mdns"), 3010)
    monkeypatch.setattr(FakeProcess, "lines", lambda self: [f"found 10.0.0.7 0 {3010 + os.read(reading, 1)[0]}"] * 2
                        if select.select([reading], [], [], 0)[0] else [])  # fmt: skip
    before = monotonic()
    announcer.settle()
    assert 0.2 <= monotonic() - before < 30
    announcer.close()
    Announcer(parse_groups("127.0.0.1"), 3010).settle()  # where there is nothing to wait for
    assert len(processes) == 2
    os.close(reading)
    os.close(writing)


def test_a_group_with_mdns_browses_from_the_first_datagram(processes: list[FakeProcess]) -> None:
    announcer = Announcer(parse_groups("mdns"), 3010)
    assert not processes
    assert announcer.send(b"x") == []
    processes[0].said = ["failed permission denied"]
    announcer.receive()
    assert announcer.send(b"x") == [] and announcer.failures == {"mdns": "permission denied"}
    announcer.close()
