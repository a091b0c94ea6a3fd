"""The worker: hears announcements, bids, connects back, and gives each job to a process of its own.

Contract: `Worker(...).run()` is one poll loop without threads; it returns when it has been told to stop (SIGTERM or
Ctrl-C: no new work, running jobs finish; a second one ends them) and no job is left.  The parent knows a job by its
announcement's mac1; a process gets the connection before CONFIRM, and the parent forgets it.
docs/protocol.md sections 2 and 3.
"""

from __future__ import annotations

import os
import select
import signal
from time import monotonic

from cexec.errors import CexecError, DisconnectedError
from cexec.net.destinations import address_label
from cexec.net.group_sockets import GroupSockets
from cexec.protocol.datagrams import hello
from cexec.protocol.decisions.bid import Bidder
from cexec.protocol.decisions.bid_events import Connect, Forget, Penalized, Queued, Recovered
from cexec.system.process import process
from cexec.worker.discovery.alert_sender import AlertSender
from cexec.worker.discovery.answers import Answers, Profile
from cexec.worker.discovery.listener import Listener
from cexec.worker.discovery.offer import PROVED, Offer, UnreachableError
from cexec.worker.discovery.presence_sender import PresenceSender
from cexec.worker.jobs.jobs import Jobs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from cexec.net.announcer import Announcer
    from cexec.net.groups import Sockaddr
    from cexec.protocol.base.keys import WorkerKey
    from cexec.system.storage.eventlog import EventLog
    from cexec.system.storage.series import Series
    from cexec.worker.discovery.load_watch import LoadWatch
    from cexec.worker.jobs.program import Program

ALERTS_INTERVAL = 0.02  # seconds (ours) between two times that alerts are sent: each of them wakes all who hear it
NEVER = float("inf")
MAXIMUM_OFFERS = 256  # (ours) connections that are being made at once, to all clients together


class Worker:
    """One cservice."""

    def __init__(
        self,
        *,
        key: WorkerKey,
        program: Program,
        groups: GroupSockets,
        announcer: Announcer,
        bidder: Bidder,
        profile: Profile,
        log: EventLog,
        load: LoadWatch,
        random: Callable[[], float],
        series: Series,
    ) -> None:
        """`announcer` sends to the group that `groups` hear; `random` gives floats from 0 up to but not 1."""
        now = monotonic()
        self._key = key
        self._groups = groups
        self._bidder = bidder
        self._log = log
        self._load = load
        self._answers = Answers(key=key, profile=profile, groups=groups, bidder=bidder, load=load, random=random)
        self._presences = PresenceSender(key, self._answers.instance, profile.host, announcer)
        self._announcer = announcer
        self._alerts = AlertSender(
            key=key, instance=self._answers.instance, series=series, announcer=announcer, bidder=bidder
        )
        self._alerts_due = NEVER
        self._alerts_again = now
        self._ear = Listener(
            key=key,
            groups=groups,
            bidder=bidder,
            answers=self._answers,
            presences=self._presences,
            alerts=self._alerts,
            log=log,
            now=now,
        )
        self._heard = self._ear.heard
        self._offers: dict[int, Offer] = {}  # by descriptor
        self._jobs = Jobs(program=program, bidder=bidder, heard=self._heard, alerts=self._alerts, log=log)
        self._stopping = 0  # how often we have been told to stop
        self._poll = select.poll()
        self._masks: dict[int, int] = {}  # what is registered there
        process.load_prctl()
        self._wakeup = self._catch_signals()

    def say_hello(self) -> None:
        """Tells the group that this worker is there."""
        self._presences.hello(monotonic())

    def run(self) -> None:
        """Serves until told to stop."""
        wakeup = self._wakeup
        self._jobs.prepare()
        while not (self._stopping and not self._jobs):
            ready = self._wait(wakeup)
            now = monotonic()
            if wakeup in ready:
                self._read_signals(wakeup)
            self._jobs.hear(ready, now)
            self._follow_bids(now)
            if self._jobs.tell(now):
                self._alerts_due = now
            for fd in [fd for fd in ready if fd in self._offers]:
                self._advance(self._offers[fd], now)
            if not self._stopping and not ready.isdisjoint(self._groups.filenos()):
                self._ear.listen(now)
            if not ready.isdisjoint(self._announcer.filenos()):
                self._alerts.hear_answers()
            load = self._load.look(now, ready)
            if load is not None:
                self._bidder.load_sampled(load, now)
            self._handle_timeouts(now)
            self._follow_bids(now)
            self._jobs.arrange()
        self._alerts.handle_timeout(monotonic())  # of the last job
        for offer in list(self._offers.values()):
            self._drop(offer)
        self._presences.close()
        self._groups.close()
        self._load.close()

    # waiting

    def _wait(self, wakeup: int) -> set[int]:
        heard = () if self._stopping else self._groups.filenos()
        now = monotonic()
        fds = (wakeup, *self._jobs.filenos(now), *heard, *self._load.filenos(), *self._announcer.filenos())
        masks = {**dict.fromkeys(fds, select.POLLIN), **{fd: offer.mask for fd, offer in self._offers.items()}}
        if masks != self._masks:
            self._poll, self._masks = select.poll(), masks
            for fd, mask in masks.items():
                self._poll.register(fd, mask)
        timeouts = [
            self._ear.next_timeout(),
            self._load.next_timeout(),
            *(offer.next_timeout() for offer in self._offers.values()),
        ]
        timeouts.append(max(self._alerts_due, self._alerts_again))
        again = self._jobs.next_timeout(now)
        if again is not None:
            timeouts.append(again)
        due = self._bidder.next_timeout()
        if due is not None and not self._stopping:
            timeouts.append(due)
        seconds = max(0.0, min(timeouts) - now)
        return {fd for fd, _ in self._poll.poll(seconds * 1000 + (0.999 if seconds else 0))}

    def _handle_timeouts(self, now: float) -> None:
        for offer in list(self._offers.values()):
            try:
                offer.handle_timeout(now)
            except CexecError as error:
                self._failed(offer, error, now)
        self._bidder.handle_timeout(now)
        self._ear.handle_timeout(now)
        if now >= self._alerts_due and now >= self._alerts_again:
            self._alerts.handle_timeout(now)
            self._alerts_again = now + ALERTS_INTERVAL
            due = self._alerts.next_timeout()
            self._alerts_due = NEVER if due is None else due

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
            self._log.event("stopping" if self._stopping == 1 else "ending", jobs=self._jobs.running)
            if self._stopping == 1:
                self._ear.leave()
                self._jobs.stop()
            for offer in list(self._offers.values()):
                self._drop(offer)
            if self._stopping > 1:
                self._jobs.terminate()

    # bids

    def _follow_bids(self, now: float) -> None:
        while (event := self._bidder.next_event()) is not None:
            if isinstance(event, Penalized):
                self._log.event("slowed", seconds=event.seconds, reason=event.reason)
            elif isinstance(event, Recovered):
                self._log.event("recovered")
            elif isinstance(event, Forget) and self._jobs.leased(event.identity):
                self._jobs.end_lease(event.identity)
            elif isinstance(event, Forget):
                self._heard.forget(event.identity, now, over=event.over)
                for offer in [o for o in self._offers.values() if o.identity == event.identity]:
                    self._drop(offer)
            elif self._stopping:
                self._bidder.forget(event.identity, now)
            elif isinstance(event, Queued):
                known = self._heard.get(event.identity)
                if known is not None:
                    self._answers.send(known, hello.QUEUED)
            elif isinstance(event, Connect) and self._jobs.leased(event.identity):
                self._jobs.offer(event.identity, now)
            elif isinstance(event, Connect):
                self._connect(event.identity, now)

    def _connect(self, identity: bytes, now: float) -> None:
        known = self._heard.get(identity)
        if known is None or len(self._offers) >= MAXIMUM_OFFERS:
            self._bidder.failed(identity, now)
            return
        address = known.next_way().address
        try:
            offer = Offer(identity, address, known.opened, self._key.identity, self._answers.hello(hello.CONNECT), now)
        except CexecError as error:
            self._unreachable(identity, address, error, now)
            return
        self._offers[offer.connection.fileno()] = offer

    # offers

    def _advance(self, offer: Offer, now: float) -> None:
        try:
            offer.advance(now)
            if offer.state == PROVED:
                self._give(offer, now)
        except CexecError as error:
            self._failed(offer, error, now)

    def _give(self, offer: Offer, now: float) -> None:
        """The client has proved itself: a process gets the connection, and we forget it."""
        if self._bidder.reserved(offer.identity, now):
            known = self._heard.get(offer.identity)
            assert known is not None  # a bid that holds a slot is never forgotten
            self._jobs.start(offer, known, now)
        else:
            self._bidder.withdrawn(offer.identity, now)
        self._drop(offer)

    def _failed(self, offer: Offer, error: CexecError, now: float) -> None:
        self._drop(offer)
        if not isinstance(error, (DisconnectedError, UnreachableError)):  # who closes has chosen another, or gone
            self._log.event("lost", client=offer.client[0], reason=str(error))
        self._unreachable(offer.identity, offer.client, error, now)

    def _unreachable(self, identity: bytes, address: Sockaddr, error: CexecError, now: float) -> None:
        """A first refusal may mean that the client has chosen and its claim is under way; a second one does not."""
        known = self._heard.get(identity)
        if known is not None:
            known.failures += 1
            if known.failures > 1 or (isinstance(error, UnreachableError) and "refused" not in str(error)):
                where = _shown(address)
                self._log.event("unreachable", **known.fields(), client=where, reason=str(error))
                self._answers.send(known, hello.UNREACHABLE, f"{where}: {error}")
        self._bidder.failed(identity, now)

    def _drop(self, offer: Offer) -> None:
        self._offers.pop(offer.connection.fileno(), None)
        offer.close()


def _shown(address: Sockaddr) -> str:
    return address_label(address[0], "", address[1], 0)
