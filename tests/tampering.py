"""Somebody on the way between a real worker and a real client, who damages what they say.

Contract: `Tamperer(...)` is a relay in miniature: it hears the announcements that clients send to CLIENT_PORT, tells
workers at WORKER_PORT to connect to it instead, and passes on every connection's bytes.  `damage` says what is done to
every connection in one direction: the bytes end after `cut` of them, or one bit of byte `flip` is flipped; after a flip
both directions end once nobody has said anything for QUIET.  `carried` are the most bytes that passed each way.
"""

from __future__ import annotations

import select
import socket
import threading
from typing import Self

from cexec.protocol.datagrams import datagram
from tests.environment import LOOPBACK_GROUP

TO_CLIENT, TO_WORKER = "to the client", "to the worker"
DIRECTIONS = (TO_CLIENT, TO_WORKER)
QUIET = 1.0  # seconds


class Damage:
    """What happens to one direction of every connection."""

    def __init__(self, direction: str, *, cut: int | None = None, flip: int | None = None) -> None:
        self.direction = direction
        self.cut = cut
        self.flip = flip


class Tamperer:
    """One client's network; a context manager.  Give each one ports of its own."""

    def __init__(self, client_port: int, worker_port: int, damage: Damage | None = None) -> None:
        self.carried = {TO_CLIENT: 0, TO_WORKER: 0}
        self.connections = 0
        self._worker_port = worker_port
        self._damage = damage
        self._hearing = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._hearing.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._hearing.bind((LOOPBACK_GROUP, client_port))
        self._telling = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._telling.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._client: tuple[str, int] | None = None
        self._stopping, self._stop = socket.socketpair()
        self._splices: list[threading.Thread] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.close()
        for thread in (self._thread, *self._splices):
            thread.join()
        for one in (self._hearing, self._telling, self._listener, self._stopping):
            one.close()

    def _run(self) -> None:
        while True:
            ready = select.select([self._hearing, self._listener, self._stopping], [], [])[0]
            if self._stopping in ready:
                return
            if self._hearing in ready:
                data, source = self._hearing.recvfrom(2048)
                self._pass_on(bytearray(data), source)
            if self._listener in ready:
                worker, _ = self._listener.accept()
                thread = threading.Thread(target=self._splice, args=(worker,), daemon=True)
                self._splices.append(thread)
                thread.start()

    def _pass_on(self, data: bytearray, source: tuple[str, int]) -> None:
        """The reply port is outside of what the mac covers: a relay may write its own."""
        if data[datagram.KIND_AT] == datagram.ANNOUNCEMENT:
            self._client = (source[0], int.from_bytes(data[10:12], "big"))
            data[10:12] = self._listener.getsockname()[1].to_bytes(2, "big")
        self._telling.sendto(bytes(data), (LOOPBACK_GROUP, self._worker_port))

    def _splice(self, worker: socket.socket) -> None:
        assert self._client is not None
        try:
            client = socket.create_connection(self._client)
        except OSError:
            worker.close()
            return
        self.connections += 1
        carried = {TO_CLIENT: 0, TO_WORKER: 0}
        ways = {worker: (client, TO_CLIENT), client: (worker, TO_WORKER)}
        flipped = False
        with worker, client:
            while ways:
                ready = select.select([*ways, self._stopping], [], [], QUIET if flipped else None)[0]
                if not ready or self._stopping in ready:
                    return
                for sender in ready:
                    if sender not in ways:
                        continue
                    receiver, direction = ways[sender]
                    try:
                        data = sender.recv(65536)
                        data, flipped_now, ended = self._tamper(data, direction, carried)
                        flipped = flipped or flipped_now
                        receiver.sendall(data)
                        if ended:
                            del ways[sender]
                            receiver.shutdown(socket.SHUT_WR)
                    except OSError:
                        return

    def _tamper(self, data: bytes, direction: str, carried: dict[str, int]) -> tuple[bytes, bool, bool]:
        """What is passed on, whether a bit was flipped in it, whether it is the last."""
        start, ended, flipped = carried[direction], not data, False
        damage = self._damage
        if damage is not None and damage.direction == direction:
            if damage.cut is not None and start + len(data) >= damage.cut:
                data, ended = data[: damage.cut - start], True
            if damage.flip is not None and start <= damage.flip < start + len(data):
                at = damage.flip - start
                data = data[:at] + bytes([data[at] ^ 1 << damage.flip % 8]) + data[at + 1 :]
                flipped = True
        carried[direction] += len(data)
        self.carried[direction] = max(self.carried[direction], carried[direction])
        return data, flipped, ended
