"""A relay in miniature that damages connections on order.

    python tamper.py NEAR FAR      NEAR and FAR are broadcast addresses; the client is on the near side

Contract: says `ready`, then obeys orders on standard input, one JSON object a line: `what` is cut, reset, flip or
replay, `direction` one of DIRECTIONS, `at` a byte.  Each order is for the next connection of which so many bytes pass;
then it says `damaged`.  Every second connection is spared, so that jobs get through.
Unlike a real relay it passes on every datagram each time that it comes, and it knows no loops.
"""

from __future__ import annotations

import json
import select
import socket
import struct
import sys
import threading

PORT = 3010
KIND_AT, REPLY_PORT_AT, ANNOUNCEMENT = 5, 10, 1  # docs/protocol.md section 2.1
TO_CLIENT, TO_WORKER = "to the client", "to the worker"
DIRECTIONS = (TO_CLIENT, TO_WORKER)
CUT, RESET, FLIP, REPLAY = "cut", "reset", "flip", "replay"


class Order:
    """One damage, which happens once."""

    def __init__(self, what: str, direction: str, at: int) -> None:
        self.what = what
        self.direction = direction
        self.at = at
        self._lock = threading.Lock()

    def carry_out(self) -> bool:
        """True for the first who asks."""
        done = self._lock.acquire(blocking=False)
        if done:
            print("damaged", flush=True)
        return done


class Way:
    """The way to one client: workers connect to `listener`, and answer to `udp`."""

    def __init__(self, client: tuple[str, int], reply_port: int) -> None:
        self.client = client
        self.reply_port = reply_port
        self.udp = _broadcaster("0.0.0.0", 0)
        self.listener = socket.create_server(("0.0.0.0", 0), backlog=128)

    def connect(self) -> socket.socket:
        return socket.create_connection((self.client[0], self.reply_port))


class Tamper:
    """One loop for datagrams; each connection has a thread of its own."""

    def __init__(self, near: str, far: str) -> None:
        self._far = far
        self._hearing = _broadcaster(near, PORT)
        self._telling = _broadcaster("0.0.0.0", 0)
        self._ways: dict[tuple[str, int, int], Way] = {}
        self._order: Order | None = None
        self._connections = 0

    def run(self) -> None:
        print("ready", flush=True)
        while True:
            answers = {way.udp: way for way in self._ways.values()}
            listeners = {way.listener: way for way in self._ways.values()}
            ready = select.select([*answers, *listeners, self._hearing, sys.stdin], [], [])[0]
            if sys.stdin in ready:
                line = sys.stdin.readline()
                if not line:
                    return
                self._order = Order(**json.loads(line))
            for one in ready:
                if one is self._hearing:
                    self._pass_on(*one.recvfrom(2048))
                elif one in answers:
                    self._telling.sendto(one.recv(2048), answers[one].client)
                elif one in listeners:
                    self._accept(listeners[one])

    def _pass_on(self, data: bytes, client: tuple[str, int]) -> None:
        telling = self._telling
        if len(data) > REPLY_PORT_AT + 2 and data[KIND_AT] == ANNOUNCEMENT:
            reply_port = int.from_bytes(data[REPLY_PORT_AT : REPLY_PORT_AT + 2], "big")
            key = (*client, reply_port)
            way = self._ways.get(key)
            if way is None:
                way = self._ways[key] = Way(client, reply_port)
            own = way.listener.getsockname()[1].to_bytes(2, "big")
            data = data[:REPLY_PORT_AT] + own + data[REPLY_PORT_AT + 2 :]
            telling = way.udp
        telling.sendto(data, (self._far, PORT))

    def _accept(self, way: Way) -> None:
        worker, _ = way.listener.accept()
        try:
            client = way.connect()
        except OSError:
            worker.close()  # it has a winner
            return
        self._connections += 1
        order = self._order if self._connections % 2 else None
        threading.Thread(target=Splice(way, worker, client, order).run, daemon=True).start()


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
                    ends[sender].sendall(data)
                    self._passed[sender] += len(data)
                    if not data or (order is not None and order.what == CUT):
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
