"""A worker's answers by datagram, and the description of itself that they carry.

Contract: `Answers` makes every hello, sends answers to announcements, and answers censuses after a random time, so that
a thousand workers do not answer in the same moment (`next_timeout`, `handle_timeout`).  An answer to an address at
which the client has not proved that it receives carries what it has to return.  docs/protocol.md sections 2.4, 2.6 and
2.8.
"""

from __future__ import annotations

from heapq import heappop, heappush
from time import monotonic, time
from typing import TYPE_CHECKING

from cexec import __version__
from cexec.protocol.base import bloom, sodium
from cexec.protocol.base.limits import IDENTITY_SIZE
from cexec.protocol.base.wire import Writer
from cexec.protocol.datagrams import hello
from cexec.protocol.datagrams.announcement import CENSUS
from cexec.protocol.datagrams.client_jobs import encode_jobs
from cexec.protocol.datagrams.hello import MAXIMUM_ATTRIBUTES, MAXIMUM_DETAIL, Hello, encode_answer, seal_hello
from cexec.protocol.datagrams.proof import Prover
from cexec.protocol.datagrams.requirements import HOST, INSTANCE, JOBS, NAME, ONCE, PROOF, instance_text
from cexec.protocol.decisions.census import spread
from cexec.protocol.decisions.standing import Standing
from cexec.worker.discovery.machine import own_addresses

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from cexec.net.group_sockets import GroupSockets
    from cexec.protocol.base.keys import WorkerKey
    from cexec.protocol.datagrams.client_jobs import ClientJob
    from cexec.protocol.decisions.bid import Bidder
    from cexec.worker.discovery.heard import Known
    from cexec.worker.discovery.load_watch import LoadWatch

MAXIMUM_CENSUSES = 100  # (ours) that wait for their answer at once; the client of another one asks again


class Profile:
    """The properties of a worker that do not change.  `attributes`: os, arch, cpus, mem and the labels.

    `once`: its jobs must never be repeated; a client has to know that before it gives the worker a job.
    `gives_terminal`: a job may have a terminal; `suggests_terminal`: that of a client at one should.
    """

    __slots__ = ("attributes", "gives_terminal", "host", "once", "slots", "speed", "suggests_terminal")

    def __init__(
        self,
        *,
        host: str,
        slots: int,
        speed: float,
        attributes: Mapping[str, str],
        once: bool = False,
        gives_terminal: bool = False,
        suggests_terminal: bool = False,
    ) -> None:
        self.host = host
        self.slots = slots
        self.speed = speed
        self.attributes = dict(attributes)
        self.once = once
        self.gives_terminal = gives_terminal
        self.suggests_terminal = suggests_terminal


class Answers:
    """The worker's voice."""

    def __init__(
        self,
        *,
        key: WorkerKey,
        profile: Profile,
        groups: GroupSockets,
        bidder: Bidder,
        load: LoadWatch,
        random: Callable[[], float],
    ) -> None:
        self.instance = sodium.random_bytes(IDENTITY_SIZE)
        self.dropped = 0  # datagrams that came faster than this worker looks at them
        self.jobs: Callable[[float], Iterable[ClientJob]] = lambda now: ()  # that run for this application's clients
        self._key = key
        self._profile = profile
        self._groups = groups
        self._bidder = bidder
        self._load = load
        self._random = random
        self._ciphers = sodium.aead_names()
        self.prover = Prover(sodium.random_bytes(sodium.KEY_SIZE))
        self._started = monotonic()
        self._censuses: dict[bytes, Known] = {}  # by job id, those that wait for their answer
        self._due: list[tuple[float, bytes]] = []

    def fits(self, known: Known) -> bool:
        """Returns True if this worker has all that an announcement asks for."""
        requirements = known.opened.announcement.requirements
        if not requirements:
            return True
        named = requirements.wanted or requirements.unwanted
        addresses = own_addresses(known.best_ways(known.heard)[0].origin.source[0]) if named else ()
        names = {
            NAME: self._key.identity.certificate.name,
            HOST: self._profile.host,
            INSTANCE: instance_text(self.instance),
        }
        return not requirements.lacking({**self._profile.attributes, **names}, addresses)

    def hello(self, purpose: int, detail: str = "", proof: bytes = b"") -> Hello:
        """Describes this worker as it is now; `proof` is what the client has to return."""
        profile, bidder = self._profile, self._bidder
        asked = {PROOF: proof.hex()} if proof else {}
        once = {ONCE: ""} if profile.once else {}
        attributes = self._census_attributes() if purpose == hello.CENSUS else once
        return Hello(
            purpose=purpose,
            instance=self.instance,
            certificate=self._key.identity.certificate,
            host=profile.host,
            ciphers=self._ciphers,
            gives_terminal=profile.gives_terminal,
            suggests_terminal=profile.suggests_terminal,
            version=__version__,
            load=self._load.load.level,
            speed=profile.speed,
            slots=profile.slots,
            running=bidder.slots.running,
            waiting=bidder.waiting,
            uptime=int(monotonic() - self._started),
            clock=int(time() * 1000),
            detail=detail.encode("utf-8", "replace")[:MAXIMUM_DETAIL].decode("utf-8", "ignore"),
            attributes={**attributes, **asked},
        )

    def _census_attributes(self) -> dict[str, str]:
        attributes = self._profile.attributes
        room = MAXIMUM_ATTRIBUTES - len(bytes(Writer().mapping({**attributes, JOBS: ""})))
        jobs = encode_jobs(self.jobs(monotonic()), room)
        return {**attributes, JOBS: jobs} if jobs else attributes

    def send(self, known: Known, purpose: int, detail: str = "", *, now: float, number: int = 0) -> None:
        """Sends one sealed datagram to the client of an announcement, by the best way, or the `number`-th next one."""
        ways = known.best_ways(now)
        way = ways[number % len(ways)]
        ask = way.standing != Standing.PROVED and known.opened.announcement.kind != CENSUS and purpose != hello.REFUSED
        proof = self.prover.proof(known.mac1, way.origin.source, now) if ask else b""
        message = seal_hello(known.opened.handshake(), self._key.identity, self.hello(purpose, detail, proof))
        data = encode_answer(self._key.mac1_key, known.mac1, message, way.hops)
        self._groups.send_to(data, way.origin.source, way.origin.via)

    def send_word(self, known: Known, now: float, *, prove: bool) -> None:
        """Tells a client that it has to wait, and which limit it has met; or asks it to `prove` where it is."""
        bidder, weight = self._bidder, known.opened.announcement.weight
        others = bidder.waiting_clients > 1
        reason = "" if prove else bidder.accounts.reason(known.origin.client, weight, others=others)
        self.send(known, hello.PROVE if prove else hello.QUEUED, reason, now=now)

    # censuses

    def asked(self, known: Known) -> bool:
        """Returns False if the client of a census knows this worker, or an answer to it is due already."""
        asked = known.opened.announcement
        if bloom.contains(asked.known, asked.reply_key, self.instance):
            return False
        return asked.job_id not in self._censuses

    def take_part(self, known: Known, now: float) -> bool:
        """Answers a census in a while, if it `asked` this worker.  Returns False if too many wait for their answer."""
        if not self.asked(known) or len(self._censuses) >= MAXIMUM_CENSUSES:
            return False
        asked = known.opened.announcement
        expected = asked.weight if asked.weight > 1 else self._bidder.competition.count
        self._censuses[asked.job_id] = known
        heappush(self._due, (now + self._random() * spread(expected), asked.job_id))
        return True

    def next_timeout(self) -> float:
        return self._due[0][0] if self._due else float("inf")

    def handle_timeout(self, now: float) -> list[bytes]:
        """Sends the answers that are due; returns the mac1 of the announcements that have been answered."""
        answered = []
        while self._due and self._due[0][0] <= now:
            known = self._censuses.pop(heappop(self._due)[1])
            # A second question means that an answer was lost; perhaps the nearest way does not lead back.
            number = known.opened.announcement.attempt - 1
            self.send(known, hello.CENSUS, self._health(now), now=now, number=number)
            answered.append(known.mac1)
        return answered

    def _health(self, now: float) -> str:
        dropped = f"{self.dropped} datagrams dropped" if self.dropped else ""
        wasteful = self._bidder.accounts.wasteful(now)
        words = f"{wasteful} {'client goes' if wasteful == 1 else 'clients go'} last because of slots kept without jobs"
        return ", ".join(filter(None, (self._bidder.health, words if wasteful else "", dropped)))
