"""The worker: hears announcements, bids, connects back, and gives each job to a process of its own.

Contract: `Worker(...).run()` is one poll loop without threads; it returns when it has been told to stop (SIGTERM or
Ctrl-C: no new work, running jobs finish; a second one ends them) and no job is left.  The parent knows a job by its
announcement's mac1; it forks at GO and forgets the connection.  docs/protocol.md sections 2 and 3.
"""

from __future__ import annotations

import os
import select
import signal
from time import monotonic, time

from cexec import __version__
from cexec.errors import CertificateError, CexecError, DisconnectedError, ProtocolError
from cexec.protocol import datagram, hello, sodium
from cexec.protocol.announcement import CENSUS, Claim, open_announcement
from cexec.protocol.bid import Bidder
from cexec.protocol.bid_events import Connect, Forget, Penalized, Queued, Recovered
from cexec.protocol.datagram import Datagram
from cexec.protocol.hello import Hello, encode_answer, seal_hello
from cexec.system import process
from cexec.system.group_sockets import REFRESH_INTERVAL, GroupSockets
from cexec.worker_heard import HeardAnnouncements, Known, Way
from cexec.worker_offer import CANCELLED, PROVED, TAKEN, Offer, UnreachableError
from cexec.worker_running import RunningJob

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket

    from cexec.protocol.keys import WorkerKey
    from cexec.system.eventlog import EventLog
    from cexec.system.groups import Sockaddr
    from cexec.worker_job import Program
    from cexec.worker_load import LoadWatch

HOP_DELAY = 0.1  # seconds (protocol) that a job waits longer for each relay between, so that near workers come first
MAXIMUM_OFFERS = 256  # (ours) connections that are being made at once, to all clients together
MAXIMUM_OPENED = 4000  # announcements a second (ours) that are worth their Diffie-Hellman: a third of one core


class Worker:
    """One cservice."""

    def __init__(
        self,
        *,
        key: WorkerKey,
        program: Program,
        groups: GroupSockets,
        bidder: Bidder,
        slots: int,
        host: str,
        log: EventLog,
        load: LoadWatch,
        speed: float = 1.0,
    ) -> None:
        self._key = key
        self._program = program
        self._groups = groups
        self._bidder = bidder
        self._slots = slots
        self._host = host
        self._log = log
        self._speed = speed
        self._load = load
        self._instance = sodium.random_bytes(hello.INSTANCE_SIZE)
        self._ciphers = sodium.aead_names()
        self._started = monotonic()
        self._heard = HeardAnnouncements()
        self._offers: dict[int, Offer] = {}  # by descriptor
        self._jobs: dict[int, RunningJob] = {}  # by descriptor
        self._stopping = 0  # how often we have been told to stop
        self._next_refresh = monotonic() + REFRESH_INTERVAL
        self._budget_second, self._opened = 0, 0
        process.load_prctl()
        self._wakeup = self._catch_signals()

    def run(self) -> None:
        """Serves until told to stop."""
        wakeup = self._wakeup
        while not (self._stopping and not self._jobs):
            ready = self._wait(wakeup)
            now = monotonic()
            if wakeup in ready:
                self._read_signals(wakeup)
            for fd in [fd for fd in ready if fd in self._jobs]:
                self._hear_job(self._jobs[fd], now)
            for fd in [fd for fd in ready if fd in self._offers]:
                self._advance(self._offers[fd], now)
            if not self._stopping:
                for heard in self._groups.receive():
                    self._hear(*heard, now)
            load = self._load.look(now, ready)
            if load is not None:
                self._bidder.load_sampled(load, now)
            self._handle_timeouts(now)
            self._follow_bids(now)
        for offer in list(self._offers.values()):
            self._drop(offer)
        self._groups.close()
        self._load.close()

    # waiting

    def _wait(self, wakeup: int) -> set[int]:
        poll = select.poll()
        poll.register(wakeup, select.POLLIN)
        for fd in self._jobs:
            poll.register(fd, select.POLLIN)
        for fd, offer in self._offers.items():
            poll.register(fd, offer.mask)
        if not self._stopping:
            for fd in self._groups.filenos():
                poll.register(fd, select.POLLIN)
        for fd in self._load.filenos():
            poll.register(fd, select.POLLIN)
        timeouts = [
            self._next_refresh,
            self._load.next_timeout(),
            *(offer.next_timeout() for offer in self._offers.values()),
        ]
        due = self._bidder.next_timeout()
        if due is not None and not self._stopping:
            timeouts.append(due)
        seconds = max(0.0, min(timeouts) - monotonic())
        return {fd for fd, _ in poll.poll(seconds * 1000 + (0.999 if seconds else 0))}

    def _handle_timeouts(self, now: float) -> None:
        for offer in list(self._offers.values()):
            try:
                offer.handle_timeout(now)
            except CexecError as error:
                self._failed(offer, error, now)
        self._bidder.handle_timeout(now)
        news = self._groups.news()
        if news is not None:
            self._log.event("mdns", reason=news)
        if now >= self._next_refresh:
            self._next_refresh = now + REFRESH_INTERVAL
            self._heard.expire(now)
            if self._groups.refresh():
                self._log.event("listening", addresses=", ".join(self._groups.addresses()))

    def _catch_signals(self) -> int:
        reading, writing = os.pipe()
        os.set_blocking(reading, False)
        os.set_blocking(writing, False)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, stack: None)
        return reading

    def _read_signals(self, wakeup: int) -> None:
        for _ in os.read(wakeup, 64):
            self._stopping += 1
            self._log.event("stopping" if self._stopping == 1 else "ending", jobs=len(self._jobs))
            self._groups.leave()
            for offer in list(self._offers.values()):
                offer.withdraw("worker is stopping")
                self._drop(offer)
            if self._stopping > 1:
                for job in self._jobs.values():
                    job.terminate()

    # datagrams

    def _hear(self, data: bytes, source: Sockaddr, via: _socket.socket, unicast: bool, now: float) -> None:
        parsed = datagram.parse(data, (self._key.mac1_key,))
        if parsed is None:
            return
        if parsed.kind == datagram.ANNOUNCEMENT:
            self._hear_announcement(parsed, Way(parsed, source, via), now)
        elif parsed.kind == datagram.CLAIM:
            self._hear_claim(parsed, now)

    def _hear_announcement(self, parsed: Datagram, way: Way, now: float) -> None:
        known = self._heard.get(parsed.mac1)
        if known is None:
            if self._heard.done(parsed.mac1) or not self._may_open(now):
                return
            try:
                opened = open_announcement(self._key, parsed.inner)
            except ProtocolError:
                return
            known = self._heard.add(parsed.mac1, opened, now)
            known.refusal = self._refusal(known)
            if known.refusal:
                self._log.event("refused", **known.fields(), reason=known.refusal)
        known.hear(way, now)
        early = self._heard.take_claim(parsed.mac1)
        if early is not None and early.proves(known.opened.announcement.claim_hash):
            self._bidder.claimed(parsed.mac1, early.connected, now)
        if known.refusal:
            if known.refusals < parsed.counter + 2:
                known.refusals += 1
                self._answer(known, hello.REFUSED, known.refusal)
            return
        announcement = known.opened.announcement
        if announcement.kind != CENSUS:
            delay = HOP_DELAY * known.relays
            self._bidder.consider(parsed.mac1, announcement.weight, announcement.wanted_for, now, extra_delay=delay)

    def _refusal(self, known: Known) -> str:
        """Why this worker will never do the job, or nothing."""
        try:
            known.opened.announcement.certificate.check_dates(time())
        except CertificateError as error:
            return str(error)
        return ""

    def _may_open(self, now: float) -> bool:
        if int(now) != self._budget_second:
            self._budget_second, self._opened = int(now), 0
        self._opened += 1
        return self._opened <= MAXIMUM_OPENED

    def _hear_claim(self, parsed: Datagram, now: float) -> None:
        try:
            claim = Claim.decode(parsed.inner)
        except ProtocolError:
            return
        known = self._heard.get(claim.announced)
        if known is None:
            self._heard.claim_first(claim, now)
        elif claim.proves(known.opened.announcement.claim_hash):
            self._bidder.claimed(claim.announced, claim.connected, now)

    # bids

    def _follow_bids(self, now: float) -> None:
        while (event := self._bidder.next_event()) is not None:
            if isinstance(event, Penalized):
                self._log.event("slowed", seconds=event.seconds, reason=event.reason)
            elif isinstance(event, Recovered):
                self._log.event("recovered")
            elif isinstance(event, Forget):
                self._heard.forget(event.identity, now, over=event.over)
                for offer in [o for o in self._offers.values() if o.identity == event.identity]:
                    self._drop(offer)
            elif self._stopping:
                self._bidder.forget(event.identity, now)
            elif isinstance(event, Queued):
                known = self._heard.get(event.identity)
                if known is not None:
                    self._answer(known, hello.QUEUED)
            elif isinstance(event, Connect):
                self._connect(event.identity, now)

    def _hello(self, purpose: int, detail: str = "") -> Hello:
        return Hello(
            purpose=purpose,
            instance=self._instance,
            certificate=self._key.identity.certificate,
            host=self._host,
            ciphers=self._ciphers,
            version=__version__,
            load=self._load.load.level,
            speed=self._speed,
            slots=self._slots,
            running=self._bidder.running,
            waiting=self._bidder.waiting,
            uptime=int(monotonic() - self._started),
            clock=int(time()),
            detail=detail,
        )

    def _answer(self, known: Known, purpose: int, detail: str = "") -> None:
        """One sealed datagram to the asking client."""
        message = seal_hello(known.opened.handshake(), self._key.identity, self._hello(purpose, detail[:200]))
        way = known.ways[0]
        data = encode_answer(self._key.mac1_key, known.mac1, message, way.hops)
        self._groups.send_to(data, way.source, way.via)

    def _connect(self, identity: bytes, now: float) -> None:
        known = self._heard.get(identity)
        if known is None or len(self._offers) >= MAXIMUM_OFFERS:
            self._bidder.failed(identity, now)
            return
        address = known.next_way().address
        try:
            offer = Offer(identity, address, known.opened, self._key.identity, self._hello(hello.CONNECT), now)
        except CexecError as error:
            self._unreachable(identity, address, error, now)
            return
        self._offers[offer.connection.fileno()] = offer

    # offers

    def _advance(self, offer: Offer, now: float) -> None:
        try:
            offer.advance(now)
            if offer.state == PROVED:
                if not self._bidder.reserved(offer.identity, now):
                    self._drop(offer)
                    self._bidder.withdrawn(offer.identity, now)
                    return
                offer.confirm(now)
        except CexecError as error:
            self._failed(offer, error, now)
            return
        if offer.state == CANCELLED:
            self._drop(offer)
            self._bidder.released(offer.identity, now)
        elif offer.state == TAKEN:
            self._start(offer, now)

    def _failed(self, offer: Offer, error: CexecError, now: float) -> None:
        self._drop(offer)
        if isinstance(error, UnreachableError):
            self._unreachable(offer.identity, offer.client, error, now)
            return
        if not isinstance(error, DisconnectedError):  # a client that closes has chosen another worker, or gone
            self._log.event("lost", client=offer.client[0], reason=str(error))
        self._bidder.released(offer.identity, now)
        self._bidder.failed(offer.identity, now)

    def _unreachable(self, identity: bytes, address: Sockaddr, error: CexecError, now: float) -> None:
        """A first refusal may mean that the client has chosen and its claim is under way; a second one does not."""
        known = self._heard.get(identity)
        if known is not None:
            known.failures += 1
            if known.failures > 1 or "refused" not in str(error):
                where = f"{address[0]}:{address[1]}"
                self._log.event("unreachable", **known.fields(), client=where, reason=str(error))
                self._answer(known, hello.UNREACHABLE, f"{where}: {error}")
        self._bidder.failed(identity, now)

    def _drop(self, offer: Offer) -> None:
        self._offers.pop(offer.connection.fileno(), None)
        offer.close()

    # jobs

    def _start(self, offer: Offer, now: float) -> None:
        """Forks: the child has the connection and the job, the parent forgets both."""
        known = self._heard.get(offer.identity)
        del self._offers[offer.connection.fileno()]
        assert known is not None  # a bid that holds a slot is never forgotten
        self._bidder.started(offer.identity, now)
        try:
            job = RunningJob.fork(offer, known, self._program)
        except OSError as error:
            self._log.event("failed", **known.fields(), reason=f"cannot fork: {os.strerror(error.errno or 0).lower()}")
            self._bidder.finished(offer.identity, "refused", 0.0, now)
        else:
            self._jobs[job.fileno()] = job
            self._log.event("accepted", **job.fields, client=f"{offer.client[0]}:{offer.client[1]}")
        offer.close()

    def _hear_job(self, job: RunningJob, now: float) -> None:
        for report in job.reports():
            what = str(report.pop("event"))
            self._log.event(what, **job.fields, **report)
            if what == "finished":
                outcome = "ok" if report["status"] == 0 else "failed"
                self._bidder.finished(job.identity, outcome, now - job.started, now)
            elif what == "refused":
                self._bidder.finished(job.identity, "refused", now - job.started, now)
        if job.ended:
            del self._jobs[job.fileno()]
            self._heard.forget(job.identity, now)
            self._bidder.finished(job.identity, "broken", now - job.started, now)
            job.close()
