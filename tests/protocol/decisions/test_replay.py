"""What recorded announcements do to a victim and to an honest client, with many workers on a fake wire.

Each worker is the real bidder with the real ways, in simulated time: what it sends to whom is counted, packet by
packet.  A victim is silent, as an address where nobody is.  docs/security.md has the figures.
"""

from __future__ import annotations

from heapq import heappop, heappush
from itertools import count
from math import inf

import pytest

from cexec.protocol.base.limits import CONNECT_DEADLINE
from cexec.protocol.base.sodium import keyed_hash
from cexec.protocol.datagrams.proof import Prover
from cexec.protocol.decisions.bid import Connect, Forget, Outcome, Prove, Queued
from cexec.protocol.decisions.standing import Standing
from cexec.protocol.decisions.ways import Ways
from tests.protocol.decisions.bidders import WANTED, bidder, identity

SYNS = 3  # of one connection attempt that nobody answers
LATENCY = 0.0005  # seconds from one host to another
HOPS = 8
CLIENT = ("10.0.0.9", 40_000)
PORT = 41_000
HONEST = identity(1_000_000)

Address = tuple[str, int]


class Worker:
    """One worker, which is idle or has one job in its only slot."""

    def __init__(self, number: int, wire: Wire, *, busy: bool) -> None:
        self.wire = wire
        self.bidder = bidder(seed=number)
        self.bidder.competition.rival_heard(0.0)
        self.prover = Prover(keyed_hash(b"", b"worker", number.to_bytes(4, "big")))
        self.ways: dict[bytes, Ways[Address]] = {}
        self.next_look = inf
        if busy:
            self.bidder.consider(identity(2_000_000), 1, WANTED, 0.0, targeted=True)
            assert isinstance(self.bidder.next_event(), Connect)
            assert self.bidder.reserved(identity(2_000_000), 0.0)
            self.bidder.started(identity(2_000_000), 0.0)

    def hear(self, mac1: bytes, source: Address, port: int, *, proves: bool) -> None:
        now = self.wire.now
        ways = self.ways.setdefault(mac1, Ways())
        ways.hear((source[0], port), HOPS, source, now)
        self.bidder.consider(
            mac1, 1, WANTED, now, standing=ways.standing(now), source=ways.order(now)[0].origin[0], proves=proves
        )
        self.follow()

    def hear_proof(self, mac1: bytes, proof: bytes) -> None:
        for way in self.ways.get(mac1, Ways[Address]()).order(self.wire.now):
            if self.prover.proves([proof], mac1, way.origin, self.wire.now):
                self.ways[mac1].prove(way)
                self.bidder.proved(mac1, self.wire.now)
        self.follow()

    def follow(self) -> None:
        now = self.wire.now
        self.bidder.handle_timeout(now)
        while (event := self.bidder.next_event()) is not None:
            if isinstance(event, Connect):
                self._connect(event.identity)
            elif isinstance(event, Queued | Prove):
                to = self.ways[event.identity].order(now)[0].origin
                self.wire.answer(self, event.identity, to, self.prover.proof(event.identity, to, now))
            elif isinstance(event, Forget):
                self.ways.pop(event.identity, None)
        due = self.bidder.next_timeout()
        if due is not None and due < self.next_look:
            self.next_look = due
            self.wire.at(due, lambda: self._look(due))

    def _look(self, due: float) -> None:
        if due == self.next_look:  # else there was an earlier one
            self.next_look = inf
            self.follow()

    def _connect(self, mac1: bytes) -> None:
        way = self.ways[mac1].next_way(self.wire.now)
        if way is None:
            self.bidder.failed(mac1, self.wire.now)
            return
        self.wire.connect(self, mac1, (str(way.address[0]), int(way.address[1])))

    def refused(self, mac1: bytes, address: Address) -> None:
        if mac1 in self.ways:
            self.ways[mac1].failed(address)
            if self.bidder.may_answer(mac1, self.wire.now):  # UNREACHABLE
                self.wire.answer(self, mac1, self.ways[mac1].order(self.wire.now)[0].origin, b"")
        self.bidder.failed(mac1, self.wire.now)
        self.follow()


class Wire:
    """Carries packets, and counts those to each address."""

    def __init__(self, workers: int, end: float, *, busy: bool = False) -> None:
        self.now = 0.0
        self.end = end
        self.syns: dict[str, int] = {}
        self.datagrams: dict[str, int] = {}
        self.started: float | None = None  # when the honest client's job began
        self._events: list[tuple[float, int, object]] = []
        self._number = count()
        self.workers = [Worker(number, self, busy=busy) for number in range(workers)]

    def at(self, when: float, what: object) -> None:
        heappush(self._events, (max(when, self.now), next(self._number), what))

    def run(self) -> None:
        while self._events and self._events[0][0] <= self.end:
            self.now, _, what = heappop(self._events)
            assert callable(what)
            what()

    def announce(self, when: float, mac1: bytes, source: Address, port: int = PORT, *, proves: bool = True) -> None:
        def deliver() -> None:
            for worker in self.workers:
                worker.hear(mac1, source, port, proves=proves)

        self.at(when + LATENCY, deliver)

    def answer(self, worker: Worker, mac1: bytes, to: Address, proof: bytes) -> None:
        self.datagrams[to[0]] = self.datagrams.get(to[0], 0) + 1
        if (mac1, to) == (HONEST, CLIENT) and proof:
            self.at(self.now + 2 * LATENCY, lambda: worker.hear_proof(mac1, proof))

    def connect(self, worker: Worker, mac1: bytes, address: Address) -> None:
        if address[0] != CLIENT[0]:
            self.syns[address[0]] = self.syns.get(address[0], 0) + SYNS
            self.at(self.now + CONNECT_DEADLINE, lambda: worker.refused(mac1, address))
            return

        def arrived() -> None:
            if not worker.bidder.reserved(mac1, self.now):
                worker.bidder.withdrawn(mac1, self.now)
            elif self.started is None:
                self.started = self.now
                worker.bidder.started(mac1, self.now)
                self.at(self.now + 0.1, lambda: worker.bidder.finished(mac1, Outcome.SUCCEEDED, 0.1, self.now))
            else:
                worker.bidder.released(mac1, self.now)
            worker.follow()

        self.at(self.now + 4 * LATENCY, arrived)


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
@pytest.mark.parametrize("workers", [1, 100])
def test_one_recorded_datagram_causes_one_connection_and_one_datagram_per_worker(workers: int, busy: bool) -> None:
    """It comes 120 times in 10 minutes, each time from another address.  0.1.0: one connection each time."""
    wire = Wire(workers, 700.0, busy=busy)
    for number in range(120):
        wire.announce(5.0 * number, HONEST, (f"10.1.0.{number}", 5000))
    wire.run()
    assert sum(wire.syns.values()) <= SYNS * workers
    assert sum(wire.datagrams.values()) <= workers
    assert max([*wire.syns.values(), 0]) <= SYNS * workers
    assert bool(wire.syns) != busy


@pytest.mark.parametrize("recorded", [40, 400])
@pytest.mark.parametrize("workers", [1, pytest.param(100, marks=pytest.mark.campaign)])
def test_many_recorded_datagrams_that_name_one_victim(workers: int, recorded: int) -> None:
    """Together they cause no more than one connection and one datagram each, at no more than the rate of a source."""
    wire = Wire(workers, 100.0)
    for number in range(recorded):
        wire.announce(0.01 * number, identity(number), ("10.1.0.1", 5000 + number))
    wire.run()
    assert wire.syns.get("10.1.0.1", 0) <= SYNS * workers * min(recorded, 8 + 2 * 4 + 4)
    assert wire.datagrams.get("10.1.0.1", 0) <= workers * recorded


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("recorded", [40, 400])
def test_an_honest_job_waits_at_most_three_times_as_long_as_on_an_idle_network(workers: int, recorded: int) -> None:
    """Regression: 40 replays took 15 s from it, and 400 killed it."""
    idle = Wire(workers, 60.0)
    idle.announce(1.0, HONEST, CLIENT)
    idle.run()
    flooded = Wire(workers, 60.0)
    for number in range(recorded):
        flooded.announce(0.99 + 0.00005 * number, identity(number), (f"10.1.{number // 250}.{number % 250}", 5000))
    flooded.announce(1.0, HONEST, CLIENT)
    flooded.run()
    assert idle.started is not None and flooded.started is not None
    assert flooded.started - 1.0 <= 3.0 * (idle.started - 1.0)


def test_a_recorded_proof_proves_nothing_elsewhere_or_later() -> None:
    prover = Prover(b"s" * 32)
    proof = prover.proof(HONEST, CLIENT, 100.0)
    assert prover.proves([b"x" * 16, proof], HONEST, CLIENT, 100.0)
    assert prover.proves([proof], HONEST, CLIENT, 119.9)
    for mac1, source, now in (
        (identity(1), CLIENT, 100.0),
        (HONEST, ("10.0.0.66", CLIENT[1]), 100.0),
        (HONEST, (CLIENT[0], CLIENT[1] + 1), 100.0),
        (HONEST, CLIENT, 160.0),
    ):
        assert not prover.proves([proof], mac1, source, now)
    assert not Prover(b"t" * 32).proves([proof], HONEST, CLIENT, 100.0)
    assert Ways[Address]().next_way(0.0) is None and Standing.PROVED > Standing.UNPROVED > Standing.DOUBTED
