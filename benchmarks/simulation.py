"""A model of a cluster that drives the real `Bidder` and `Race`: workers, clients and a network, in simulated time.

Contract: everything is drawn from one seed, so a run can be repeated.  The model follows docs/protocol.md section 3:
announcement and its copies, connection, two flights, confirmation, GO and CLAIM, CANCEL, RST once the listener is
closed, and the CPU time that a client needs for each connection, one after the other.  Times are seconds.
"""

from __future__ import annotations

import heapq
import sys
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from cexec.protocol.base import limits
from cexec.protocol.decisions.bid import Bidder, Connect, Forget, Load, Outcome, Queued, Withdraw
from cexec.protocol.decisions.race import TRANSMIT, Race
from cexec.protocol.decisions.remembered import Origin
from cexec.protocol.decisions.rivals import RivalWord

if TYPE_CHECKING:
    from collections.abc import Callable

LATENCY = (0.001, 0.003)  # one way, uniform: a busy LAN with jitter
CLIENT_HANDSHAKE = 0.0003  # CPU time of a client for one first flight
CLIENT_RECORD = 0.00005  # CPU time of a client for one confirmation
WORKER_HANDSHAKE = 0.0005  # CPU time of a worker for each of its two steps
BACKLOG = 128  # connections that the client's kernel keeps while the client is busy
WANTED_FOR = 3 * limits.ANNOUNCE_LONGEST_INTERVAL


class Network:
    """The clock and the order of events."""

    def __init__(self, seed: int, latency: tuple[float, float] = LATENCY, loss: float = 0.0) -> None:
        self.now = 0.0
        self.random = Random(seed)
        self.workers: list[Worker] = []
        self.latency = latency
        self.loss = loss  # fraction of datagrams
        self.alerts = True  # workers hear how the jobs of others end
        self.users = 1  # who announce jobs, unless a user is named
        self._queue: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._sequence = 0

    def at(self, when: float, action: Callable[..., None], *arguments: Any) -> None:
        self._sequence += 1
        heapq.heappush(self._queue, (max(when, self.now), self._sequence, action, arguments))

    def send(self, action: Callable[..., None], *arguments: Any, after: float = 0.0) -> None:
        """Sends something that arrives one latency later."""
        self.at(self.now + after + self.random.uniform(*self.latency), action, *arguments)

    def multicast(self, method: str, *arguments: Any) -> None:
        for worker in self.workers:
            if not self.loss or self.random.random() >= self.loss:
                self.send(getattr(worker, method), *arguments)

    def next_number(self) -> int:
        self._sequence += 1
        return self._sequence

    def wait(self, seconds: float) -> None:
        over: list[None] = []
        self.at(self.now + seconds, over.append, None)
        self.run(until=lambda: bool(over))

    def run(self, until: Callable[[], bool]) -> None:
        while not until():
            self.now, _, action, arguments = heapq.heappop(self._queue)
            action(*arguments)


class Client:
    """Announces one job of a user and takes the first worker that confirms.

    `wanted`: the only worker that may do the job, or None.  `resets`: it resets the connection as soon as the job runs,
    and complains.
    """

    def __init__(
        self,
        network: Network,
        number: int,
        length: float,
        weight: int = 1,
        *,
        user: bytes = b"",
        wanted: Worker | None = None,
        resets: bool = False,
    ) -> None:
        self.network = network
        self.identity = number.to_bytes(16, "big")
        self.length = length
        self.weight = weight
        self.user = user or b"user %d" % (number % network.users)
        self.wanted = wanted
        self.resets = resets
        self.attempts = 1
        self.listening = False
        self.knocks = 0  # connections that came while the listener was open
        self.late_knocks = 0  # and after it had been closed
        self.dropped = 0  # by its kernel, because of the backlog
        self.queued = 0
        self.announced = self.confirmed = self.ended = -1.0
        self.winner: Worker | None = None
        self.outcome: Outcome | None = None
        self.when_ended: Callable[[Client], None] | None = None
        self._race = Race(accept_timeout=0.0, now=network.now)
        self._backlog = 0
        self._busy_until = 0.0
        self._open: dict[Worker, None] = {}  # a dict keeps the order, unlike a set, so that a seed means one run

    def announce(self) -> None:
        self.announced = self.network.now
        self.listening = True
        self._race = Race(accept_timeout=0.0, now=self.network.now)
        self.winner = None
        self._follow(self._race)

    def _follow(self, race: Race) -> None:
        """Sends copies as the race says, until it is over."""
        if not self.listening or race is not self._race:
            return
        race.handle_timeout(self.network.now)
        while (event := race.next_event()) is not None:
            if event == TRANSMIT and self.wanted is not None:
                self.network.send(self.wanted.hear, self)
            elif event == TRANSMIT:
                self.network.multicast("hear", self)
        self.network.at(race.next_timeout(), self._follow, race)

    def _work(self, seconds: float, action: Callable[..., None], *arguments: Any) -> None:
        """Uses this client's CPU, for one thing after the other."""
        self._busy_until = max(self._busy_until, self.network.now) + seconds
        self.network.at(self._busy_until, action, *arguments)

    def syn(self, worker: Worker) -> None:
        if not self.listening:
            self.late_knocks += 1
            self.network.send(worker.connection_failed, self)
        elif self._backlog >= BACKLOG + limits.MAXIMUM_UNAUTHENTICATED:
            self.dropped += 1
            self.network.at(self.network.now + 1.0, worker.connection_failed, self)
        else:
            self.knocks += 1
            self._backlog += 1
            self._open[worker] = None
            self.network.send(worker.connected, self)

    def first_flight(self, worker: Worker) -> None:
        if self.listening:
            self._work(CLIENT_HANDSHAKE, self._answer, worker)

    def _answer(self, worker: Worker) -> None:
        if self.listening and worker in self._open:
            self._backlog -= 1
            offer: Any = SimpleNamespace(instance=id(worker).to_bytes(8, "big"))
            self._race.offered(offer)
            self.network.send(worker.second_flight, self)

    def confirmation(self, worker: Worker) -> None:
        self._work(CLIENT_RECORD, self._take, worker)

    def withdrawal(self, worker: Worker) -> None:
        self._open.pop(worker, None)

    def _take(self, worker: Worker) -> None:
        if not self.listening:
            return
        self.listening = False
        self.confirmed = self.network.now
        self.winner = worker
        self.network.send(worker.go, self)
        for other in self._open:
            if other is not worker:
                self.network.send(other.cancel, self)
        self.network.multicast("claim", self, self._race.connected)

    def has_ended(self) -> bool:
        return self.ended >= 0.0

    def disconnected(self, worker: Worker) -> None:
        """The worker went away: complains to all, and announces the job again, as another attempt."""
        self.network.multicast("complaint", worker, self.identity)
        self.attempts += 1
        self.identity = self.attempts.to_bytes(8, "big") + self.identity[8:]
        self._open.clear()
        self._backlog = 0
        self.announce()

    def exit(self, worker: Worker, outcome: Outcome) -> None:
        self.network.send(worker.release, self.identity)
        self.outcome = outcome
        self.ended = self.network.now
        if self.when_ended is not None:
            self.when_ended(self)


class Worker:
    """A host whose bids come from the real `Bidder`."""

    def __init__(self, network: Network, name: str, slots: int = 1, speed: float = 1.0, load: float = 0.0) -> None:
        self.network = network
        self.name = name
        self.speed = speed
        self.bidder = Bidder(slots=slots, speed=speed, random=network.random.random)
        self.bidder.load_sampled(Load(external=load) if load else Load(), network.now)
        self.broken = False  # its jobs exit 1 at once
        self.drops = False  # it takes jobs and goes away
        self.slots = slots
        self.jobs = 0
        self.most_jobs = 0
        self._running: dict[bytes, Client] = {}
        self._clients: dict[bytes, Client] = {}
        self._flown: dict[bytes, float] = {}  # when the first flight left, by announcement
        self._confirmed: set[bytes] = set()  # slots that are reserved
        self._wake_at = float("inf")
        network.workers.append(self)

    def _pump(self) -> None:
        while (event := self.bidder.next_event()) is not None:
            if isinstance(event, Connect):
                self.network.send(self._clients[event.identity].syn, self)
            elif isinstance(event, Withdraw):
                self.take_back(event.identity)
            elif isinstance(event, Queued):
                self._clients[event.identity].queued += 1
            elif isinstance(event, Forget):
                self._clients.pop(event.identity, None)
        due = self.bidder.next_timeout()
        if due is not None and due < self._wake_at:
            self._wake_at = due
            self.network.at(due, self._wake, due)

    def _wake(self, due: float) -> None:
        if due == self._wake_at:
            self._wake_at = float("inf")
            self.bidder.handle_timeout(self.network.now)
            self._pump()

    def hear(self, client: Client) -> None:
        self._clients.setdefault(client.identity, client)
        self.bidder.consider(
            client.identity,
            client.weight,
            WANTED_FOR,
            self.network.now,
            targeted=client.wanted is self,
            origin=Origin(client.user, client.identity),
        )
        self._pump()

    def claim(self, client: Client, connected: int) -> None:
        self.bidder.claimed(client.identity, connected, self.network.now)
        self._pump()

    def complaint(self, about: Worker, identity: bytes) -> None:
        if about is self:
            self.bidder.complained(identity, self.network.now)
            self._pump()
        else:
            now = self.network.now
            self.bidder.competition.rivals.blamed(about.name.encode(), job=identity, said_at=now, now=now)

    def alert(self, about: Worker, word: RivalWord) -> None:
        if about is not self:
            self.bidder.competition.rival_told(word, self.network.now)
            self._pump()

    def _tell(self, job: bytes, *, completed: bool) -> None:
        """Sends the alert of a job."""
        if self.network.alerts:
            now = self.network.now
            word = RivalWord(self.name.encode(), job=job, completed=completed, clock=now, said_at=now)
            self.network.multicast("alert", self, word)

    def release(self, identity: bytes) -> None:
        """The client has the result."""
        self.bidder.acknowledged(identity, self.network.now)
        self._pump()

    def connection_failed(self, client: Client) -> None:
        self.bidder.failed(client.identity, self.network.now)
        self._pump()

    def connected(self, client: Client) -> None:
        self._flown[client.identity] = self.network.now
        self.network.send(client.first_flight, self, after=WORKER_HANDSHAKE)

    def second_flight(self, client: Client) -> None:
        latency = self.network.now - self._flown.pop(client.identity, self.network.now)
        if self.bidder.reserved(client.identity, self.network.now, latency=latency):
            self._confirmed.add(client.identity)
            self.network.send(client.confirmation, self, after=WORKER_HANDSHAKE)
            self.network.at(self.network.now + limits.GO_DEADLINE, self._no_go, client, client.identity)
        else:
            self.network.send(client.withdrawal, self)
            self.bidder.withdrawn(client.identity, self.network.now)
        self._pump()

    def _no_go(self, client: Client, identity: bytes) -> None:
        if client.identity == identity and client.winner is not self:
            self.cancel(client)

    def take_back(self, identity: bytes) -> None:
        """Another client waits for the slot."""
        client = self._clients[identity]
        self.network.send(client.withdrawal, self)
        self.cancel(client)

    def cancel(self, client: Client) -> None:
        self._confirmed.discard(client.identity)
        self.bidder.released(client.identity, self.network.now)
        self.bidder.failed(client.identity, self.network.now)
        self._pump()

    def go(self, client: Client) -> None:
        if client.identity not in self._confirmed:
            self.network.send(client.disconnected, self)  # GO has crossed WITHDRAW
            return
        self._confirmed.discard(client.identity)
        self.bidder.started(client.identity, self.network.now)
        self.jobs += 1
        self._running[client.identity] = client
        self.most_jobs = max(self.most_jobs, len(self._running))
        if self.drops or client.resets:
            self.network.at(self.network.now + 0.005, self._drop, client.identity)
        else:
            duration = 0.005 if self.broken else client.length / self.speed
            self.network.at(self.network.now + duration, self._end, client.identity, duration)
        self._pump()

    def _end(self, identity: bytes, duration: float) -> None:
        client = self._running.pop(identity, None)
        if client is None:
            return
        outcome = Outcome.FAILED if self.broken else Outcome.SUCCEEDED
        self.bidder.finished(identity, outcome, duration, self.network.now)
        self.network.send(client.exit, self, outcome)
        self._tell(identity, completed=True)
        self._pump()

    def _drop(self, identity: bytes) -> None:
        client = self._running.pop(identity, None)
        if client is None:
            return
        self.bidder.finished(identity, Outcome.BROKEN, 0.005, self.network.now)
        self.network.send(client.disconnected, self)
        self._tell(identity, completed=False)
        self._pump()

    def reset(self) -> None:
        """All its connections are reset."""
        for identity in list(self._running):
            self._drop(identity)


def one_after_another(network: Network, jobs: int, length: float, pause: float) -> list[Client]:
    """Announces each job `pause` seconds after the last has ended."""
    clients = []
    for _ in range(jobs):
        client = Client(network, network.next_number(), length)
        clients.append(client)
        network.at(network.now + pause, client.announce)
        network.run(until=client.has_ended)
    return clients


def side_by_side(network: Network, jobs: int, at_a_time: int, length: Callable[[], float]) -> list[Client]:
    """Runs this many clients; each announces another job within 10 ms after its last one, until all jobs are done."""
    ended: list[Client] = []
    left = jobs

    def following(client: Client | None = None) -> None:
        nonlocal left
        if client is not None:
            ended.append(client)
        if left:
            left -= 1
            new = Client(network, network.next_number(), length())
            new.when_ended = following
            network.at(network.now + network.random.uniform(0.0, 0.01), new.announce)

    for _ in range(at_a_time):
        following()
    network.run(until=lambda: len(ended) == jobs)
    return ended


def jobs_by_worker(clients: list[Client]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for client in clients:
        assert client.winner is not None
        counts[client.winner.name] = counts.get(client.winner.name, 0) + 1
    return counts
