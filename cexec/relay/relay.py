"""The relay: passes datagrams on between two networks, and joins the connections that follow from them.

Contract: `Relay(...).run()` is one poll loop without threads and without keys.  SIGTERM or Ctrl-C makes it return: the
first one takes no new jobs and lets running jobs finish, a second one ends them.  An announcement is passed on with the
port of a listener of ours; a worker that connects there is joined to the address that the announcement came from.  All
other datagrams are passed on as they are.  `step` is one turn of the loop; tests drive its parts alone with a clock of
their own: `receive`, `next_timeout`, `handle_timeouts`, `stop`.  docs/protocol.md section 6.
"""

from __future__ import annotations

import select
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from time import monotonic
from typing import TYPE_CHECKING

from cexec.net.group_sockets import REFRESH_INTERVAL
from cexec.protocol.base.limits import LOWEST_PORT, MAXIMUM_HOPS
from cexec.protocol.datagrams import datagram
from cexec.protocol.datagrams.relay_datagram import read, rewrite
from cexec.protocol.decisions.relay_cache import RateLimits, SeenCache
from cexec.relay.announcement_table import CLAIMED, PASSED_ON, WITHDRAWN, AnnouncementTable, RelayedAnnouncement
from cexec.relay.buffers import Buffers
from cexec.relay.forwarder import Forwarder
from cexec.relay.new_addresses import NewAddresses
from cexec.relay.poller import Poller
from cexec.system.io.wakeup import Wakeup
from cexec.system.storage.eventlog import still_run

if TYPE_CHECKING:
    import _socket

    from cexec.net.groups import Sockaddr
    from cexec.protocol.datagrams.relay_datagram import Header
    from cexec.relay.side import Side
    from cexec.system.storage.eventlog import EventLog

ANSWER_INTERVAL = 60.0  # seconds (ours) in which an answer is passed on once: no two of a worker are alike
DEFAULT_RATE = 1000.0  # datagrams a second (ours) from each network; --rate
_OURS = "sides"  # the owner of the descriptors of the sides
_LOG = "log"  # that of the log's descriptor, while there is no room for its lines


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayRules:
    """Holds the rules that the owner of a relay sets."""

    mac1_keys: Sequence[bytes] = ()  # of the applications that are relayed; without any all are
    maximum_hops: int = MAXIMUM_HOPS  # a datagram may have left when it is passed on
    hop_delay: float = 0.0  # seconds that an announcement waits, so that workers of its own network come first
    rate: float = DEFAULT_RATE  # datagrams a second from each network
    ports: Sequence[int] | None = None  # of listeners; None: any port
    descriptors: int = 4096  # that this process may have open


class Relay:
    """One cproxy between two networks, its `sides`."""

    def __init__(
        self, sides: tuple[Side, Side], rules: RelayRules, *, log: EventLog, buffers: Buffers | None = None
    ) -> None:
        now = monotonic()
        self._sides = sides
        self._rules = rules
        self._log = log
        self._seen = SeenCache()
        self._answers = SeenCache(ANSWER_INTERVAL)
        self._limits = tuple(RateLimits(rules.rate, now) for _ in sides)
        self._dropped = 0  # datagrams, since the last line about them
        self._table = AnnouncementTable()
        self._delayed: list[RelayedAnnouncement] = []  # soonest first
        self._poller = Poller()
        self._buffers = buffers or Buffers()
        self._forwarder = Forwarder(self._poller, self._buffers, log, rules.ports, rules.descriptors, NewAddresses(now))
        self._off_link = 0  # announcements that were not passed on, since the last line about them
        self._off_link_host = ""  # one of those that they came from
        self._next_refresh = now + REFRESH_INTERVAL
        self._stopping = 0  # how often `stop` has been called
        self._watched: set[int] = set()  # descriptors of the sides
        self._full: dict[int, int] = {}  # the log's descriptor, while there is no room for its lines
        self._wakeup = _catch_signals()
        self._poller.watch(self._wakeup.fileno(), select.POLLIN, self)

    @property
    def announcements(self) -> int:
        """Counts the known announcements, each from one source."""
        return len(self._table)

    @property
    def listeners(self) -> int:
        """Counts the announcements that have a listener."""
        return self._forwarder.listeners

    @property
    def connections(self) -> int:
        """Counts the connected workers."""
        return len(self._forwarder)

    def run(self) -> None:
        """Relays until told to stop."""
        while not (self._stopping and not self.connections):
            self.step()
        self.close()

    def step(self, until: float = inf) -> None:
        """Waits until something has happened, but not beyond the time `until`, and handles it."""
        self._watch_sides()
        self._watch_log()
        events, owners = self._poller.wait(min(until, self.next_timeout()))
        now = monotonic()
        for owner in owners:
            if owner is self:
                self._read_signals(now)
            elif owner is _OURS:
                self.receive(now)
            elif owner is _LOG:
                self._log.flush()
            else:
                self._forwarder.advance(owner, events, now)
        self.handle_timeouts(now)
        if not self.connections:
            self._buffers.close()  # an idle relay keeps no pipes

    def stop(self, now: float) -> None:
        """Takes no new jobs; the second call ends those that run."""
        self._stopping += 1
        self._log.event("stopping" if self._stopping == 1 else "ending", jobs=self._forwarder.jobs)
        for entry in self._table.all():
            self._forget(entry)
        self._forwarder.cut(now, jobs=self._stopping > 1)
        if self._stopping == 1 and self._forwarder.jobs:
            self._log.event("waiting", reason=still_run(self._forwarder.jobs))

    def close(self) -> None:
        """Closes what `step` waits for."""
        for side in self._sides:
            side.close()
        self._buffers.close()
        self._wakeup.close()

    # waiting

    def _watch_sides(self) -> None:
        fds = {fd for side in self._sides for fd in side.filenos()}
        for fd in self._watched - fds:
            self._poller.forget(fd, _OURS)
        for fd in fds:
            self._poller.watch(fd, select.POLLIN, _OURS)
        self._watched = fds

    def _watch_log(self) -> None:
        masks = self._log.masks()
        for fd in self._full.keys() - masks.keys():
            self._poller.forget(fd, _LOG)
        for fd, mask in masks.items():
            self._poller.watch(fd, mask, _LOG)
        self._full = masks

    def next_timeout(self) -> float:
        """When `handle_timeouts` is to be called."""
        times = [self._next_refresh, self._forwarder.next_timeout(), self._table.next_expiry()]
        if self._delayed:
            times.append(self._delayed[0].due)
        return min(times)

    def handle_timeouts(self, now: float) -> None:
        """Does what is due: delayed announcements, expiries, retries, the look at the interfaces."""
        while self._delayed and self._delayed[0].due <= now:
            self._pass_on(self._delayed.pop(0), now)
        for entry in self._table.expired(now):
            self._forget(entry)
        self._forwarder.handle_timeouts(now)
        if now >= self._next_refresh:
            self._next_refresh = now + REFRESH_INTERVAL
            self._refresh()

    def _refresh(self) -> None:
        for side in self._sides:
            if side.refresh():
                self._log.event("listening", addresses=", ".join(side.labels))
            news = side.news()
            if news is not None:
                self._log.event("mdns", reason=news)
        self._tell_refusals()
        if self._dropped:
            self._log.event("dropped", datagrams=self._dropped, reason="more than --rate allows")
            self._dropped = 0

    def _tell_refusals(self) -> None:
        """Tells of what was not passed on because it may be aimed at somebody."""
        if self._off_link:
            reason = f"{self._off_link_host} is on no link of the network that it was heard in (see --only)"
            self._log.event("dropped", datagrams=self._off_link, reason=reason)
            self._off_link = 0
        new = self._forwarder.addresses
        if new.refused:
            self._log.event("dropped", connections=new.refused, reason="too many new addresses in a minute")
            new.refused = 0

    def _read_signals(self, now: float) -> None:
        for _ in self._wakeup.take():
            self.stop(now)

    # datagrams

    def receive(self, now: float) -> None:
        """Passes on the datagrams that both sides have heard."""
        for side in self._sides:
            heard: list[tuple[Header, bytes, Sockaddr, _socket.socket | None]] = []
            for data, source, via in side.hear(now):
                header = read(data, self._rules.mac1_keys)
                if header is not None:
                    heard.append((header, data, source, via))
            for data, source in side.replies():
                header = read(data, self._rules.mac1_keys)
                if header is not None and header.kind in (datagram.ANSWER, datagram.ACKNOWLEDGEMENT):
                    heard.append((header, data, source, None))
            heard.sort(key=lambda one: -one[0].hops)  # of copies that come together the nearest first
            for header, data, source, heard_by in heard:
                self._take(header, data, side.number, source, heard_by, now)

    def _take(
        self, header: Header, data: bytes, side: int, source: Sockaddr, via: _socket.socket | None, now: float
    ) -> None:
        """`via` is the socket that heard it, None if it was an answer to something that we had passed on."""
        claimed = header.kind == datagram.CLAIM and self._claimed(header, source)
        limits, host = self._limits[side], str(source[0])
        if not limits.left(host, now):
            self._dropped += 1
            return
        seen = self._answers if header.kind == datagram.ANSWER else self._seen
        if not seen.passes(header.mac1, header.counter, header.hops, side, now):
            return
        limits.spend(host)
        data = rewrite(data, hops=min(max(0, header.hops - 1), self._rules.maximum_hops))
        if header.kind == datagram.ANSWER:
            if via is None:
                self._send_back(data, header.about, side, host)
        elif header.hops == 0:
            return
        elif header.kind == datagram.ANNOUNCEMENT:
            if via is not None:
                self._announced(data, header, side, source, via, now)
        elif header.kind == datagram.CLAIM:
            if claimed:
                self._sides[1 - side].send(data)
        elif header.kind != datagram.PROOF or self._is_known(header, source):
            self._sides[1 - side].send(data)

    def _send_back(self, answer: bytes, about: bytes, side: int, host: str) -> None:
        """Sends an answer the way by which its announcement came, however many hops it has left."""
        for entry in self._table.of(about):
            if entry.side != side and entry.passed_on:
                self._sides[side].believe(host)
                self._sides[entry.side].send_to(answer, entry.source, entry.via)

    # announcements

    def _announced(
        self, data: bytes, header: Header, side: int, source: Sockaddr, via: _socket.socket, now: float
    ) -> None:
        if self._stopping or 0 < header.reply_port < LOWEST_PORT:
            return
        entry = self._table.get(header.mac1, source)
        if entry is None and header.reply_port and not self._may_be_connected(side, source):
            self._off_link += 1
            self._off_link_host = str(source[0])
            return
        if entry is None and self._table.full(header.mac1):
            return
        if entry is None:
            crowded = self._table.crowded(str(source[0]))
            if crowded is not None:
                self._forget(crowded)
            entry = RelayedAnnouncement(header.mac1, side, source, via)
            entry.due = now + self._rules.hop_delay
            self._table.add(entry)
        self._table.heard(entry, now)
        if entry.claimed:
            return
        entry.via, entry.side, entry.reply_port = via, side, header.reply_port
        waits = bool(entry.pending)
        entry.pending = data
        if entry.due <= now:
            self._pass_on(entry, now)
        elif not waits:
            self._delayed.append(entry)

    def _may_be_connected(self, side: int, source: Sockaddr) -> bool:
        """True if a client may be there: on the link that was heard, or of an application that --only names."""
        return bool(self._rules.mac1_keys) or self._sides[side].on_link(source)

    def _is_known(self, header: Header, source: Sockaddr) -> bool:
        """True if a proof comes from where its announcement came from, which was passed on."""
        entry = self._table.get(header.about, source)
        return entry is not None and entry.passed_on

    def _pass_on(self, entry: RelayedAnnouncement, now: float) -> None:
        """Sends the copy that is pending, with the port of a listener of ours."""
        data, entry.pending = entry.pending, b""
        if not data:
            return
        other = self._sides[1 - entry.side]
        if entry.reply_port and not self._forwarder.listen(entry, now, loopback=other.loopback, ipv6=other.ipv6):
            return
        self._note_workers(entry)
        other.send(rewrite(data, reply_port=entry.port))
        entry.move(PASSED_ON)

    def _claimed(self, header: Header, source: Sockaddr) -> bool:
        """True if a claim is to be passed on.  It is believed only from where its announcement came from."""
        entry = self._table.get(header.about, source)
        if entry is None:
            return False
        entry.move(CLAIMED if entry.passed_on else WITHDRAWN)
        entry.pending = b""
        self._forwarder.close_listener(entry)
        return entry.passed_on

    def _note_workers(self, entry: RelayedAnnouncement) -> None:
        """Tells the side of the workers which hosts are no inventions of multicast DNS."""
        for host in entry.workers:
            self._sides[1 - entry.side].believe(host)

    def _forget(self, entry: RelayedAnnouncement) -> None:
        self._note_workers(entry)
        entry.pending = b""
        self._forwarder.close_listener(entry)
        self._table.remove(entry)


def _catch_signals() -> Wakeup:
    made = Wakeup()
    made.start((signal.SIGTERM, signal.SIGINT))
    return made
