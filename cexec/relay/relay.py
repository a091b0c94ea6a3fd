"""The relay: passes datagrams on between two networks, and joins the connections that follow from them.

Contract: `Relay(...).run()` is one poll loop without threads and without keys; it returns when it has been told to stop
(SIGTERM or Ctrl-C: no new jobs, running ones finish; a second one ends them).  An announcement is passed on with the
port of a listener of ours, for as long as it is wanted; who connects there is joined to where the announcement came
from.  Everything else is passed on as it is.  docs/protocol.md section 6.
"""

from __future__ import annotations

import os
import select
import signal
from time import monotonic

from cexec.net.group_sockets import REFRESH_INTERVAL
from cexec.protocol.base.limits import LOWEST_PORT, MAXIMUM_HOPS
from cexec.protocol.datagrams import datagram
from cexec.protocol.datagrams.relay_datagram import read, rewrite
from cexec.protocol.decisions.relay_cache import RateLimits, SeenCache
from cexec.relay.announcement_table import Announced, AnnouncementTable
from cexec.relay.buffers import Buffers
from cexec.relay.forwarder import Forwarder
from cexec.relay.poller import Poller

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Sequence

    from cexec.net.groups import Sockaddr
    from cexec.protocol.datagrams.relay_datagram import Header
    from cexec.relay.side import Side
    from cexec.system.storage.eventlog import EventLog

ANSWER_INTERVAL = 60.0  # seconds (ours) in which an answer is passed on once: no two of a worker are alike
DEFAULT_RATE = 1000.0  # datagrams a second (ours) from each network; --rate
_OURS = "sides"  # who owns the descriptors of the sides


class Relay:
    """One cproxy.  `sides` are the two networks; `mac1_keys`, if there are any, of the only applications."""

    def __init__(
        self,
        sides: tuple[Side, Side],
        *,
        log: EventLog,
        mac1_keys: Sequence[bytes] = (),
        maximum_hops: int = MAXIMUM_HOPS,
        hop_delay: float = 0.0,
        rate: float = DEFAULT_RATE,
        ports: Sequence[int] | None = None,
        descriptors: int = 4096,
        buffers: Buffers | None = None,
    ) -> None:
        """`ports` and `descriptors`: see `Forwarder`."""
        now = monotonic()
        self._sides = sides
        self._log = log
        self._mac1_keys = mac1_keys
        self._maximum_hops = maximum_hops
        self._hop_delay = hop_delay
        self._seen = SeenCache()
        self._answers = SeenCache(ANSWER_INTERVAL)
        self._limits = tuple(RateLimits(rate, now) for _ in sides)
        self._dropped = 0  # datagrams, since it was said last
        self._table = AnnouncementTable()
        self._delayed: list[Announced] = []  # soonest first
        self._poller = Poller()
        self._buffers = buffers or Buffers()
        self._forwarder = Forwarder(self._poller, self._buffers, log, ports, descriptors)
        self._next_refresh = now + REFRESH_INTERVAL
        self._stopping = 0  # how often we have been told to stop
        self._watched: set[int] = set()  # descriptors of the sides
        self._wakeup = _catch_signals()

    def run(self) -> None:
        """Relays until told to stop."""
        self._poller.watch(self._wakeup, select.POLLIN, self)
        while not (self._stopping and not len(self._forwarder)):
            self._watch_sides()
            events, owners = self._poller.wait(self._next_timeout())
            now = monotonic()
            for owner in owners:
                if owner is self:
                    self._read_signals(now)
                elif owner is _OURS:
                    self._hear(now)
                else:
                    self._forwarder.advance(owner, events, now)
            self._handle_timeouts(now)
        for side in self._sides:
            side.close()
        self._buffers.close()

    # waiting

    def _watch_sides(self) -> None:
        fds = {fd for side in self._sides for fd in side.filenos()}
        for fd in self._watched - fds:
            self._poller.forget(fd, _OURS)
        for fd in fds:
            self._poller.watch(fd, select.POLLIN, _OURS)
        self._watched = fds

    def _next_timeout(self) -> float:
        times = [self._next_refresh, self._forwarder.next_timeout(), self._table.next_expiry()]
        if self._delayed:
            times.append(self._delayed[0].due)
        return min(times)

    def _handle_timeouts(self, now: float) -> None:
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
        if self._dropped:
            self._log.event("dropped", datagrams=self._dropped, reason="more than --rate allows")
            self._dropped = 0

    def _read_signals(self, now: float) -> None:
        for _ in os.read(self._wakeup, 64):
            self._stopping += 1
            self._log.event("stopping" if self._stopping == 1 else "ending", jobs=self._forwarder.jobs)
            for entry in self._table.all():
                self._forget(entry)
            self._forwarder.cut(now, jobs=self._stopping > 1)

    # datagrams

    def _hear(self, now: float) -> None:
        for side in self._sides:
            heard: list[tuple[Header, bytes, Sockaddr, _socket.socket | None]] = []
            for data, source, via in side.hear(now):
                header = read(data, self._mac1_keys)
                if header is not None:
                    heard.append((header, data, source, via))
            for data, source in side.replies():
                header = read(data, self._mac1_keys)
                if header is not None and header.kind in (datagram.ANSWER, datagram.ACKNOWLEDGEMENT):
                    heard.append((header, data, source, None))
            heard.sort(key=lambda one: -one[0].hops)  # of copies that come together the nearest first
            for header, data, source, heard_by in heard:
                self._take(header, data, side.number, source, heard_by, now)

    def _take(
        self, header: Header, data: bytes, side: int, source: Sockaddr, via: _socket.socket | None, now: float
    ) -> None:
        """`via` heard it; None for what was sent to us alone, because we had passed on something."""
        claimed = header.kind == datagram.CLAIM and self._claimed(header, source)
        limits, host = self._limits[side], str(source[0])
        if not limits.left(host, now):
            self._dropped += 1
            return
        seen = self._answers if header.kind == datagram.ANSWER else self._seen
        if not seen.passes(header.mac1, header.counter, header.hops, side, now):
            return
        limits.spend(host)
        data = rewrite(data, hops=min(max(0, header.hops - 1), self._maximum_hops))
        if header.kind == datagram.ANSWER:
            if via is None:
                self._send_back(data, header.about, side)
        elif header.hops == 0:
            return
        elif header.kind == datagram.ANNOUNCEMENT:
            if via is not None:
                self._announced(data, header, side, source, via, now)
        elif claimed or header.kind != datagram.CLAIM:
            self._sides[1 - side].send(data)

    def _send_back(self, answer: bytes, about: bytes, side: int) -> None:
        """An answer goes the way by which its announcement came, however many hops it has left."""
        for entry in self._table.of(about):
            if entry.side != side and entry.passed_on:
                self._sides[entry.side].send_to(answer, entry.source, entry.via)

    # announcements

    def _announced(
        self, data: bytes, header: Header, side: int, source: Sockaddr, via: _socket.socket, now: float
    ) -> None:
        if self._stopping or 0 < header.reply_port < LOWEST_PORT:
            return
        entry = self._table.get(header.mac1, source)
        if entry is None:
            crowded = self._table.crowded(str(source[0]))
            if crowded is not None:
                self._forget(crowded)
            entry = Announced(header.mac1, side, source, via)
            entry.due = now + self._hop_delay
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

    def _pass_on(self, entry: Announced, now: float) -> None:
        """What is pending, with the port of a listener of ours."""
        data, entry.pending = entry.pending, b""
        if not data:
            return
        other = self._sides[1 - entry.side]
        if entry.reply_port and not self._forwarder.listen(entry, now, loopback=other.loopback, ipv6=other.ipv6):
            return
        other.send(rewrite(data, reply_port=entry.port))
        entry.passed_on = True

    def _claimed(self, header: Header, source: Sockaddr) -> bool:
        """Whether a claim is to be passed on.  It is believed only from where its announcement came from."""
        entry = self._table.get(header.about, source)
        if entry is None:
            return False
        entry.claimed = True
        entry.pending = b""
        self._forwarder.close_listener(entry)
        return entry.passed_on

    def _forget(self, entry: Announced) -> None:
        entry.pending = b""
        self._forwarder.close_listener(entry)
        self._table.remove(entry)


def _catch_signals() -> int:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, stack: None)
    return reading
