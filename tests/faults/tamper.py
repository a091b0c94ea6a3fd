"""A relay in miniature that damages connections on order.

    python tamper.py NEAR FAR      NEAR and FAR are broadcast addresses; the client is on the near side

Contract: says `ready`, then obeys orders on standard input, one JSON object a line: `what` is one of the words below,
`direction` one of DIRECTIONS, `at` a byte.  Each order is for one connection of which so many bytes pass; then it says
`damaged`, or `spared` after `tries` connections that had fewer bytes.  Every second connection has no order, so that
jobs get through.  cut: it ends there.  reset: likewise, by RST.  flip: one bit is another one.  replay: what has passed
comes on a second connection, too.  insert: foreign bytes come in between.  mute: nothing passes any more, and nobody
hangs up for a while.  swap: the worker is joined to another client than the one that it has heard.
Unlike a real relay it passes on every datagram each time that it comes, and it knows no loops.
"""

from __future__ import annotations

import json
import os
import select
import socket
import struct
import sys
import threading
import time
from collections import deque
from math import inf

PORT = 3010
KIND_AT, REPLY_PORT_AT, ANNOUNCEMENT = 5, 10, 1  # docs/protocol.md section 2.1
TO_CLIENT, TO_WORKER = "to the client", "to the worker"
DIRECTIONS = (TO_CLIENT, TO_WORKER)
CUT, RESET, FLIP, REPLAY = "cut", "reset", "flip", "replay"
INSERT, MUTE, SWAP = "insert", "mute", "swap"
MUTE_FOR = 2.0  # seconds
MOST_WAYS = 60  # clients at once: the ways of those that were heard longest ago are closed


class Order:
    """One damage, which happens once."""

    def __init__(self, what: str, direction: str, at: int, tries: float = inf) -> None:
        self.what = what
        self.direction = direction
        self.at = at
        self._left = tries
        self._done = False

    def carry_out(self) -> bool:
        """True for the first time."""
        done, self._done = self._done, True
        if not done:
            print("damaged", flush=True)
        return not done

    def next_try(self) -> bool:
        """Its connection has ended; False if no other one is needed."""
        self._left -= 1
        if not self._done and self._left <= 0:
            self._done = True
            print("spared", flush=True)
        return not self._done


class Way:
    """The way to one client: workers connect to `listener`, and answer to `udp`."""

    def __init__(self, client: tuple[str, int], reply_port: int) -> None:
        self.client = client
        self.reply_port = reply_port
        self.udp = _broadcaster("0.0.0.0", 0)
        self.listener = socket.create_server(("0.0.0.0", 0), backlog=128)

    def close(self) -> None:
        self.udp.close()
        self.listener.close()

    def connect(self) -> socket.socket:
        return socket.create_connection((self.client[0], self.reply_port))


class Tamper:
    """One loop for datagrams; each connection has a thread of its own."""

    def __init__(self, near: str, far: str) -> None:
        self._far = far
        self._hearing = _broadcaster(near, PORT)
        self._telling = _broadcaster("0.0.0.0", 0)
        self._ways: dict[tuple[str, int, int], Way] = {}
        self._orders: deque[Order] = deque()
        self._rest = b""  # the beginning of an order
        self._connections = 0

    def run(self) -> None:
        print("ready", flush=True)
        while True:
            answers = {way.udp: way for way in self._ways.values()}
            listeners = {way.listener: way for way in self._ways.values()}
            ready = select.select([*answers, *listeners, self._hearing, sys.stdin], [], [])[0]
            if sys.stdin in ready:
                text = os.read(0, 1 << 16)
                if not text:
                    return
                *lines, self._rest = (self._rest + text).split(b"\n")
                self._orders.extend(Order(**json.loads(line)) for line in lines)
            for one in set(ready) - {sys.stdin}:
                if one is self._hearing:
                    self._pass_on(*one.recvfrom(2048))
                elif one.fileno() < 0:
                    continue  # its way was closed a moment ago
                elif one in answers:
                    self._telling.sendto(one.recv(2048), answers[one].client)
                elif one in listeners:
                    self._accept(listeners[one])

    def _pass_on(self, data: bytes, client: tuple[str, int]) -> None:
        telling = self._telling
        if len(data) > REPLY_PORT_AT + 2 and data[KIND_AT] == ANNOUNCEMENT:
            reply_port = int.from_bytes(data[REPLY_PORT_AT : REPLY_PORT_AT + 2], "big")
            key = (*client, reply_port)
            way = self._ways.pop(key) if key in self._ways else Way(client, reply_port)
            self._ways[key] = way
            if len(self._ways) > MOST_WAYS:
                self._ways.pop(next(iter(self._ways))).close()
            own = way.listener.getsockname()[1].to_bytes(2, "big")
            data = data[:REPLY_PORT_AT] + own + data[REPLY_PORT_AT + 2 :]
            telling = way.udp
        telling.sendto(data, (self._far, PORT))

    def _accept(self, way: Way) -> None:
        worker, _ = way.listener.accept()
        order = self._next_order()
        try:
            if order is not None and order.what == SWAP:
                way = self._other(way)
                order.carry_out()
            client = way.connect()
        except OSError:
            worker.close()  # it has a winner
            self._again(order)
            return
        threading.Thread(target=self._join, args=(way, worker, client, order), daemon=True).start()

    def _next_order(self) -> Order | None:
        self._connections += 1
        return self._orders.popleft() if self._connections % 2 and self._orders else None

    def _join(self, way: Way, worker: socket.socket, client: socket.socket, order: Order | None) -> None:
        Splice(way, worker, client, order).run()
        self._again(order)

    def _again(self, order: Order | None) -> None:
        if order is not None and order.next_try():
            self._orders.append(order)

    def _other(self, way: Way) -> Way:
        """The latest client but this one."""
        return next((one for one in reversed(self._ways.values()) if one is not way), way)


class Splice:
    """Two connections, joined until one direction is damaged or both have ended."""

    def __init__(self, way: Way, worker: socket.socket, client: socket.socket, order: Order | None) -> None:
        self._way = way
        self._order = order
        self._names = {worker: TO_CLIENT, client: TO_WORKER}  # where the bytes of each go
        self._ends = {worker: client, client: worker}
        self._passed = dict.fromkeys(self._ends, 0)
        self._second: socket.socket | None = None

    def run(self) -> None:
        ends = self._ends
        try:
            reading = set(ends)
            while reading:
                for sender in select.select([*reading], [], [])[0]:
                    data = sender.recv(1 << 16)
                    order = self._due(sender, data)
                    if order is not None:
                        data = self._damage(order, sender, data)
                    muted = order is not None and order.what == MUTE
                    ends[sender].sendall(b"" if muted else data)
                    self._passed[sender] += len(data)
                    if muted:
                        reading.clear()
                        time.sleep(MUTE_FOR)
                    elif not data or (order is not None and order.what == CUT):
                        reading.discard(sender)
                        ends[sender].shutdown(socket.SHUT_WR)
        except OSError:
            pass  # as it is with connections
        finally:
            for end in (*ends, self._second):
                if end is not None:
                    end.close()

    def _due(self, sender: socket.socket, data: bytes) -> Order | None:
        """The order, if it concerns these bytes."""
        order, start = self._order, self._passed[sender]
        if order is None or self._names[sender] != order.direction or not start <= order.at < start + len(data):
            return None
        return order if order.carry_out() else None

    def _damage(self, order: Order, sender: socket.socket, data: bytes) -> bytes:
        """What passes in place of the data."""
        at = order.at - self._passed[sender]
        if order.what == FLIP:
            return data[:at] + bytes([data[at] ^ 1 << order.at % 8]) + data[at + 1 :]
        if order.what == REPLAY:
            self._second = self._way.connect()
            self._second.sendall(data)
            return data
        if order.what == INSERT:
            return data[:at] + os.urandom(at % 100 + 1) + data[at:]
        if order.what == RESET:
            for end in self._ends:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            raise ConnectionResetError
        return data[:at]


def _broadcaster(address: str, port: int) -> socket.socket:
    one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    one.bind((address, port))
    return one


if __name__ == "__main__":
    Tamper(*sys.argv[1:3]).run()
