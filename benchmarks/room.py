"""A room full of workers in one process: they speak the real protocol, and their jobs only take time.

    python benchmarks/room.py APP --workers N --slots N --seconds S --output BYTES --share I --shares N --tell-after S

Contract: the process plays `workers` of a room that `shares` processes share.  One of them answers each copy of an
announcement, in turn, and lets BIDDERS of its workers with a free slot connect: so many do in a large room whose
workers know each other.  A job ends `seconds` after its GO and the end of its input, having written `output` bytes,
and the worker confirms at once.  A worker without a free slot says QUEUED to a client that still waits after
`tell-after` seconds.  What was measured is printed as JSON when the process is ended by SIGTERM.  A worker costs only
its handshakes and records, so that few processes can keep one client busy.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import select
import signal
import socket
import sys
import time
from collections import deque
from heapq import heappop, heappush
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks.common import LOOPBACK_GROUP
from benchmarks.room_links import Link, Worker
from cexec.errors import CexecError
from cexec.protocol.base.keys import OwnerKey
from cexec.protocol.base.limits import QUEUED_INTERVAL
from cexec.protocol.connection import frames
from cexec.protocol.connection.session import OVER, RUNNING, Session
from cexec.protocol.datagrams import datagram
from cexec.protocol.datagrams.announcement import RUN_ONE
from cexec.protocol.datagrams.hello import CONNECT, QUEUED, encode_answer, seal_hello
from cexec.protocol.datagrams.opened_announcement import Claim, open_announcement
from cexec.system.storage.keyfile import read_key
from cexec.worker.discovery.offer import PROVED, Offer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cexec.protocol.datagrams.datagram import Datagram
    from cexec.protocol.datagrams.opened_announcement import OpenedAnnouncement

BIDDERS = 2  # workers that connect to one announcement: `simulate_race.py` counts 1 to 3
FORGET = 15.0  # seconds after the last copy of an announcement
SPACING = 0.002  # seconds between two QUEUED of this process
READY = "room: ready"


class Heard:
    """An announcement that nobody has claimed yet."""

    def __init__(self, parsed: Datagram, opened: OpenedAnnouncement, source: tuple[str, int], now: float) -> None:
        self.mac1 = parsed.mac1
        self.opened = opened
        self.source = source  # of its datagrams
        self.client = (source[0], parsed.reply_port)
        self.last = now
        self.asked: set[bytes] = set()  # instances that have connected


class Figures:
    """What the room measures of itself: times are those of the monotonic clock, which all processes share."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._running = 0
        self._area = self._since = 0.0  # seconds of slots that were busy, until then
        self._full: tuple[float, float] | None = None  # when all slots were busy for the first time, and the area then
        self._last_go = (0.0, 0.0)
        self._last_exit = 0.0
        self._jobs = 0

    def began(self, now: float) -> None:
        self._change(1, now)
        self._jobs += 1
        self._last_go = (now, self._area)
        if self._running == self._slots and self._full is None:
            self._full = (now, self._area)

    def ended(self, now: float) -> None:
        self._change(-1, now)
        self._last_exit = now

    def _change(self, running: int, now: float) -> None:
        self._area += self._running * (now - self._since)
        self._since = now
        self._running += running

    def as_json(self) -> str:
        busy = None
        if self._full is not None and self._last_go[0] > self._full[0]:
            busy = (self._last_go[1] - self._full[1]) / (self._slots * (self._last_go[0] - self._full[0]))
        full = None if self._full is None else self._full[0]
        return json.dumps({"jobs": self._jobs, "full": full, "busy": busy, "last_exit": self._last_exit})


class Room:
    """All workers of this process."""

    def __init__(self, options: argparse.Namespace) -> None:
        key = read_key(options.app, (OwnerKey,), "")
        assert isinstance(key, OwnerKey)
        self._options = options
        self._workers = [
            Worker(key.worker_key(f"room-{options.share}-{n}"), options.slots) for n in range(options.workers)
        ]
        self._key = self._workers[0].key
        self._keys = [datagram.BegunHashes(self._key.mac1_key)]
        self._free = deque(worker for worker in self._workers for _ in range(options.slots))
        random.Random(options.share).shuffle(self._free)
        self._heard: dict[bytes, Heard] = {}
        self._done: set[bytes] = set()  # mac1 of claimed announcements
        self._links: dict[int, Link] = {}
        self._timers: list[tuple[float, int, Callable[[float], None]]] = []
        self._number = 0
        self._epoll = select.epoll()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self._socket.setblocking(False)
        self._socket.bind((LOOPBACK_GROUP, options.port))
        self._epoll.register(self._socket, select.EPOLLIN)
        self.figures = Figures(len(self._free))

    def run(self) -> None:
        """Serves for ever."""
        while True:
            timeout = max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else -1
            for fd, _ in self._epoll.poll(timeout):
                now = time.monotonic()
                if fd == self._socket.fileno():
                    self._hear(now)
                elif fd in self._links:
                    self._advance(self._links[fd], now)
            now = time.monotonic()
            while self._timers and self._timers[0][0] <= now:
                heappop(self._timers)[2](now)

    def _at(self, when: float, action: Callable[[float], None]) -> None:
        self._number += 1
        heappush(self._timers, (when, self._number, action))

    # datagrams

    def _hear(self, now: float) -> None:
        while True:
            try:
                data, source = self._socket.recvfrom(2048)
            except BlockingIOError:
                return
            parsed = datagram.parse_keyed(data, self._keys)
            if parsed is not None and parsed.kind == datagram.ANNOUNCEMENT:
                self._hear_announcement(parsed, source, now)
            elif parsed is not None and parsed.kind == datagram.CLAIM:
                announced = Claim.decode(parsed.inner).announced
                self._done.add(announced)
                self._heard.pop(announced, None)

    def _hear_announcement(self, parsed: Datagram, source: tuple[str, int], now: float) -> None:
        if parsed.mac1 in self._done:
            return
        heard = self._heard.get(parsed.mac1)
        if heard is None:
            opened = open_announcement(self._key, parsed.inner)
            if opened.announcement.kind != RUN_ONE:
                return
            heard = self._heard[parsed.mac1] = Heard(parsed, opened, source, now)
            told = iter(self._workers)
            self._at(now + self._options.tell_after, lambda later: self._tell(heard, told, later))
        heard.last = now
        if (parsed.mac1[0] + parsed.counter) % self._options.shares == self._options.share:
            for _ in range(BIDDERS):
                self._connect(heard, now)

    def _tell(self, heard: Heard, workers: Iterator[Worker], now: float) -> None:
        """Lets the next worker that is busy say so, and the one after it a little later."""
        if heard.mac1 not in self._heard:
            return
        if now > heard.last + FORGET:
            del self._heard[heard.mac1]
            return
        worker = next((worker for worker in workers if worker.busy == worker.slots), None)
        if worker is None:
            again = iter(self._workers)
            self._at(now + QUEUED_INTERVAL, lambda later: self._tell(heard, again, later))
            return
        message = seal_hello(heard.opened.handshake(), worker.key.identity, worker.hello(QUEUED))
        self._socket.sendto(encode_answer(self._key.mac1_key, heard.mac1, message, 1), heard.source)
        self._at(now + SPACING, lambda later: self._tell(heard, workers, later))

    # connections

    def _connect(self, heard: Heard, now: float) -> None:
        """Lets a worker with a free slot connect that has not tried."""
        for _ in range(len(self._free)):
            worker = self._free.popleft()
            if worker.instance not in heard.asked:
                break
            self._free.append(worker)
        else:
            return
        heard.asked.add(worker.instance)
        try:
            offer = Offer(heard.mac1, heard.client, heard.opened, worker.key.identity, worker.hello(CONNECT), now)
        except CexecError:
            self._free.append(worker)
            return
        worker.busy += 1
        link = Link(worker, offer)
        self._links[link.connection.fileno()] = link
        self._epoll.register(link.connection.fileno(), offer.mask)

    def _advance(self, link: Link, now: float) -> None:
        try:
            if link.session is None:
                self._shake(link, now)
            else:
                self._serve(link, now)
        except (CexecError, OSError):
            self._drop(link, now)

    def _shake(self, link: Link, now: float) -> None:
        offer = link.offer
        offer.advance(now)
        if offer.state == PROVED:
            link.session = Session(worker=True, now=now, numbered=offer.records.packed)
            link.session.confirm()
            link.flush()
        self._epoll.modify(link.connection.fileno(), offer.mask)

    def _serve(self, link: Link, now: float) -> None:
        session = link.session
        assert session is not None
        waits = session.state == RUNNING and bool(link.unread)
        for event in link.receive(now):
            if event.kind == frames.GO:
                self._begin(link, now)
                waits = True
            elif event.kind in (frames.END, frames.BROKEN):
                link.unread.discard(event.stream)
            elif session.state == OVER:
                self._drop(link, now)
                return
        self._work(link, now, waits=waits)

    def _begin(self, link: Link, now: float) -> None:
        assert link.session is not None
        link.session.started()
        link.unread = set(link.session.incoming)
        self.figures.began(now)

    def _work(self, link: Link, now: float, *, waits: bool) -> None:
        """Lets the job take its time; `waits`: it has waited for its input until now."""
        if not waits or link.unread:
            link.flush()
        elif self._options.seconds:
            link.flush()
            self._at(now + self._options.seconds, lambda later: self._finish(link, later))
        else:
            self._finish(link, now)

    def _finish(self, link: Link, now: float) -> None:
        if link.connection.fileno() < 0:
            return
        try:
            goes_on = link.finish(self._options.output)
            self.figures.ended(now)
            if goes_on:
                self._begin(link, now)
                link.unread -= {event.stream for event in link.take_events() if event.kind == frames.END}
                self._work(link, now, waits=True)
        except (CexecError, OSError):
            self._drop(link, now)

    def _drop(self, link: Link, now: float) -> None:
        """The connection is over, and its slot free for whoever waits."""
        if link.session is not None and link.session.state == RUNNING:
            self.figures.ended(now)
        del self._links[link.connection.fileno()]
        self._epoll.unregister(link.connection.fileno())
        link.connection.close()
        link.worker.busy -= 1
        self._free.append(link.worker)
        for heard in self._heard.values():
            if link.worker.instance not in heard.asked:
                self._connect(heard, now)
                return


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("app")
    for name, kind, default in (
        ("--workers", int, 10), ("--slots", int, 1), ("--seconds", float, 0.0), ("--output", int, 0),
        ("--share", int, 0), ("--shares", int, 1), ("--port", int, 3010), ("--tell-after", float, 0.5),
    ):  # fmt: skip
        parser.add_argument(name, type=kind, default=default)
    room = Room(parser.parse_args())

    def end(*_: object) -> None:
        print(room.figures.as_json(), flush=True)
        os._exit(0)

    signal.signal(signal.SIGTERM, end)
    print(READY, flush=True)
    room.run()


if __name__ == "__main__":
    main()
