"""The worker's loop, one turn at a time: a group that the test speaks for, and a client that only listens."""

from __future__ import annotations

import io
import json
import os
import select
import signal
import socket
from collections.abc import Iterator
from time import monotonic
from typing import Any

import pytest

from cexec.protocol.decisions.bid import Bidder
from cexec.system.process import process, process_tree
from cexec.system.process.strays import Strays
from cexec.system.storage.eventlog import EventLog
from cexec.system.storage.series import Series
from cexec.worker.discovery.answers import Profile
from cexec.worker.discovery.load_watch import LoadWatch
from cexec.worker.jobs.program import Program
from cexec.worker.jobs.supervisor_link import SupervisorLink
from cexec.worker.worker import Role, Worker, WorkerNetwork
from tests.protocol.wires import APPLICATION, Application
from tests.worker.discovery.test_listener import FakeAnnouncer, FakeGroups

DEADLINE = 20.0  # seconds
pytestmark = pytest.mark.usefixtures("process_end")

TURNS = 200  # of the loop until something must have happened


class Group(FakeGroups):
    """A group whose descriptor is readable as soon as something has come."""

    def __init__(self) -> None:
        super().__init__()
        self.closed = False
        self._reading, self._writing = os.pipe()
        self._registration, self._registering = os.pipe()

    def filenos(self) -> list[int]:
        return [*self.datagram_filenos(), self._registration]

    def datagram_filenos(self) -> list[int]:
        return [self._reading]

    def say(self, data: bytes, source: tuple[str, int]) -> None:
        self.coming.append((data, source, "lo", False))
        os.write(self._writing, b"x")

    def register(self) -> None:
        """The process for multicast DNS says something."""
        os.write(self._registering, b"x")

    def receive(self, *, prefix: bytes) -> list[tuple[bytes, tuple[Any, ...], str, bool]]:
        for fd in select.select([self._reading, self._registration], [], [], 0)[0]:
            os.read(fd, 1)
        return super().receive(prefix=prefix)

    def close(self) -> None:
        self.closed = True


class Announcer(FakeAnnouncer):
    def filenos(self) -> list[int]:
        return []

    def close(self) -> None:
        pass


class Station:
    """A worker that serves `true`, and its surroundings."""

    def __init__(self) -> None:
        self.group, self.log = Group(), io.StringIO()
        log = EventLog(self.log, as_json=True)
        program = Program(process.resolve("true", os.environ["PATH"]), [], {}, allow_arguments=False)
        self.supervisor = SupervisorLink.fork(program)
        profile = Profile(host="host-1", slots=1, speed=1.0, attributes={})
        self.worker = Worker(
            roles=[Role(APPLICATION.worker, Series(None, ""))],
            profile=profile,
            network=WorkerNetwork(self.group, Announcer()),  # type: ignore[arg-type]
            supervisor=self.supervisor,
            bidder=Bidder(slots=1, random=lambda: 0.0),
            log=log,
            load=LoadWatch(log),
            strays=Strays(lambda: process_tree.children(os.getpid())),  # all children are those of tests
            random=lambda: 0.0,
        )

    def events(self) -> list[str]:
        return [json.loads(line)["event"] for line in self.log.getvalue().splitlines()]

    def announce_from(self, client: socket.socket) -> None:
        """The group hears an announcement whose client listens at this socket."""
        address, port = client.getsockname()
        self.group.say(APPLICATION.announce().datagram(0, port, 8), (address, 5000))

    def turn_until_connected(self, client: socket.socket) -> socket.socket:
        for _ in range(TURNS):
            self.worker.step(0.05)
            if select.select([client], [], [], 0)[0]:
                return client.accept()[0]
        raise AssertionError("no connection has come")


@pytest.fixture
def station() -> Iterator[Station]:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)}
    station = Station()
    yield station
    station.worker.close()
    signal.set_wakeup_fd(-1)
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def client() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def test_an_announcement_is_answered_by_a_connection(station: Station, client: socket.socket) -> None:
    station.announce_from(client)
    with station.turn_until_connected(client) as connection:
        connection.settimeout(DEADLINE)
        station.worker.step(0.05)
        assert connection.recv(1)  # the handshake's first flight


def test_a_worker_that_stops_drops_its_offers_leaves_the_group_and_hears_nothing_more(
    station: Station, client: socket.socket
) -> None:
    station.announce_from(client)
    with station.turn_until_connected(client) as connection:
        connection.settimeout(DEADLINE)
        station.worker.stop()
        while connection.recv(4096):
            pass
    assert station.group.left
    station.announce_from(client)
    for _ in range(5):
        station.worker.step(0.01)
    assert select.select([client], [], [], 0)[0] == []
    assert station.events() == ["stopping"]


def test_the_first_signal_stops_the_worker_and_the_second_one_its_jobs(station: Station) -> None:
    for _ in range(2):
        os.kill(os.getpid(), signal.SIGTERM)
    station.worker.run()
    assert station.events() == ["stopping", "ending"]
    assert station.group.left and station.group.closed


def test_a_turn_takes_no_longer_than_it_is_told_and_does_not_need_an_event(station: Station) -> None:
    for _ in range(3):
        station.worker.step(0.0)
    assert station.events() == []


@pytest.fixture
def calm(station: Station, monkeypatch: pytest.MonkeyPatch) -> Station:
    """A worker of which no timer is due for long."""
    monkeypatch.setattr("cexec.worker.discovery.load_watch.SAMPLE_INTERVAL", 1000.0)
    station.worker.step(0.0)
    return station


def test_ignored_datagrams_end_no_wait(calm: Station) -> None:
    for _ in range(3):
        calm.group.say(Application(b"\x02" * 32).announce().datagram(0, 5001, 8), ("192.0.2.1", 5000))
    began = monotonic()
    calm.worker.step(0.1)
    assert monotonic() - began >= 0.1
    assert not calm.group.coming
    assert calm.events() == ["another-key"]


def test_an_announcement_among_ignored_datagrams_ends_the_wait(calm: Station, client: socket.socket) -> None:
    calm.group.say(b"\xcexec\x01 noise that is longer than the head of a datagram", ("192.0.2.1", 5000))
    calm.announce_from(client)
    began = monotonic()
    calm.worker.step(DEADLINE)
    assert monotonic() - began < DEADLINE
    with calm.turn_until_connected(client) as connection:
        assert connection.fileno() >= 0


def test_news_of_multicast_dns_end_the_wait(calm: Station) -> None:
    """They come at a descriptor of the group, and say where loggers are; the descriptor may go with its process."""
    calm.group.register()
    began = monotonic()
    calm.worker.step(DEADLINE)
    assert monotonic() - began < DEADLINE
