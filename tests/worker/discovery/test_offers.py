"""The connections of a worker to clients that cannot be reached: other ways are tried, and the client is told."""

from __future__ import annotations

import io
import os
import resource
import select
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from cexec.protocol.datagrams import datagram, hello
from cexec.protocol.datagrams.hello import Hello
from cexec.system.storage.eventlog import EventLog
from cexec.worker.discovery.heard import Copy, HeardAnnouncements, Known
from cexec.worker.discovery.offers import RACE_LASTS, Offers
from tests.protocol.wires import APPLICATION, hello_of
from tests.waiting import wait_until

NEAR, FAR = 8, 7  # hops that are left


class FakeAnswers:
    """What is needed of `Answers`."""

    def __init__(self) -> None:
        self.purposes: list[int] = []
        self.details: list[str] = []

    def hello(self, purpose: int) -> Hello:
        return hello_of(APPLICATION.worker, purpose=purpose)

    def send(self, known: Known, purpose: int, detail: str, *, now: float) -> None:
        self.purposes.append(purpose)
        self.details.append(detail)


class FakeBidder:
    def __init__(self) -> None:
        self.failures = 0

    def failed(self, identity: bytes, now: float) -> None:
        self.failures += 1

    def may_answer(self, identity: bytes, now: float) -> bool:
        return True


class Station:
    """A worker that has heard one announcement, at the time 0."""

    def __init__(self, *, proved: bool = True) -> None:
        """`proved`: the client receives by every way that it is heard by."""
        self.proved = proved
        self.sealed = APPLICATION.announce()
        self.heard = HeardAnnouncements()
        self.answers, self.bidder = FakeAnswers(), FakeBidder()
        served: Any = SimpleNamespace(key=APPLICATION.worker, answers=self.answers)
        self.offers = Offers(
            served=[served],
            heard=self.heard,
            bidder=self.bidder,  # type: ignore[arg-type]
            log=EventLog(io.StringIO(), as_json=True),
        )

    def hear(self, port: int, hops: int, now: float) -> None:
        """A copy comes from a client, or a relay, that waits at this port of the loopback."""
        parsed = datagram.parse(self.sealed.datagram(0, port, hops), [APPLICATION.client.mac1_key])
        assert parsed is not None
        via: Any = None
        copy = Copy(("127.0.0.1", 5000), via)
        known = self.heard.get(parsed.mac1)
        if known is None:
            self.heard.add(parsed, APPLICATION.hear(self.sealed), copy, now)
        else:
            known.hear(parsed, copy, now)
        if self.proved:
            self.heard.get(parsed.mac1).connected(("127.0.0.1", port), now)  # type: ignore[union-attr]

    def connect(self, now: float) -> None:
        self.offers.connect(self.sealed.mac1, now)

    def go_on(self, now: float) -> None:
        """Follows what has become of the connections."""
        poll = select.poll()
        for fd, mask in self.offers.masks().items():
            poll.register(fd, mask)
        self.offers.advance({fd for fd, _ in poll.poll(1000)}, now)


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    """Whoever opens something in this process finds that too many files are open."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def closed_port() -> int:
    """A port at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def test_a_worker_without_descriptors_blames_neither_firewall_nor_client() -> None:
    station = Station()
    with socket.create_server(("127.0.0.1", 0)) as client:
        station.hear(client.getsockname()[1], NEAR, 0.0)
        with no_descriptor_left():
            station.connect(0.0)
        assert (station.bidder.failures, station.answers.purposes) == (1, [hello.REFUSED])
        assert station.answers.details == ["it has no room for another connection: too many open files"]
        station.connect(1.0)  # by the same way, which is not worse for it
        station.go_on(1.0)
        wait_until(lambda: select.select([client], [], [], 0)[0])
        station.offers.close()


def test_a_client_that_waits_is_reached_by_another_way_when_the_nearest_one_has_failed() -> None:
    station = Station()
    with socket.create_server(("127.0.0.1", 0)) as relay:
        station.hear(closed_port(), NEAR, 0.0)
        station.hear(relay.getsockname()[1], FAR, 0.0)
        now = RACE_LASTS + 1.0
        station.connect(now)
        station.go_on(now)
        wait_until(lambda: select.select([relay], [], [], 0)[0])
        station.offers.close()
    assert (station.bidder.failures, station.answers.details) == (0, [])


def test_a_client_that_can_be_reached_by_no_way_is_told_of_the_last_one_and_the_bidder_once() -> None:
    station = Station()
    ports = [closed_port() for _ in range(3)]
    for hops, port in zip((NEAR, FAR, FAR), ports, strict=True):
        station.hear(port, hops, 0.0)
    now = RACE_LASTS + 1.0
    for failures in (1, 2):
        station.connect(now)
        for _ in ports:
            assert station.bidder.failures == failures - 1
            station.go_on(now)
        assert station.bidder.failures == failures
        for port in ports:
            station.hear(port, FAR, now)
    (detail,) = station.answers.details  # of the second time: the first time it may have chosen
    assert "refused" in detail


@pytest.mark.parametrize("age", [0.0, RACE_LASTS - 0.1])
def test_a_client_that_has_just_announced_and_refuses_has_likely_chosen_so_no_other_way_is_tried(age: float) -> None:
    station = Station()
    for hops in (NEAR, FAR):
        station.hear(closed_port(), hops, 0.0)
    station.connect(age)
    station.go_on(age)
    assert (station.bidder.failures, len(station.offers)) == (1, 0)


def test_no_connection_is_begun_by_ways_that_have_all_failed_since_their_last_copy() -> None:
    station = Station()
    station.hear(closed_port(), NEAR, 0.0)
    for failures in (1, 2):
        station.connect(2.0)
        if len(station.offers):
            station.go_on(2.0)
        assert (station.bidder.failures, len(station.offers)) == (failures, 0)


def test_a_client_that_has_not_proved_itself_is_tried_by_one_way_only() -> None:
    """An attacker adds ways to a recorded announcement: each would be another victim."""
    station = Station(proved=False)
    for hops in (NEAR, FAR, FAR):
        station.hear(closed_port(), hops, 0.0)
    now = RACE_LASTS + 1.0
    station.connect(now)
    assert len(station.offers) == 1
    station.go_on(now)
    assert (len(station.offers), station.bidder.failures) == (0, 1)


def test_nobody_is_connected_to_whose_source_is_only_what_another_process_says() -> None:
    station = Station(proved=False)
    parsed = datagram.parse(station.sealed.datagram(0, closed_port(), NEAR), [APPLICATION.client.mac1_key])
    assert parsed is not None
    parsed.doubted = True
    via: Any = None
    station.heard.add(parsed, APPLICATION.hear(station.sealed), Copy(("127.0.0.1", 5000), via), 0.0)
    station.connect(0.0)
    assert (len(station.offers), station.bidder.failures) == (0, 1)
