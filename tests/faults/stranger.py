"""A neighbour without any key: it hears what everybody hears, and connects to whom it likes.

    python stranger.py BROADCAST

Contract: says `ready`, then obeys orders on standard input, one JSON object a line, and answers each with the number of
connections, or of datagrams, that it has made.  Clients are found by their announcements, as a worker finds them.

| `what` | meaning |
|---|---|
| silent | `count` connections to each client that waits, for `seconds`; nothing is said there |
| dribble | the same, and one byte a second is said on each |
| words | `count` connections to each client that waits: HTTP, TLS, SSH, noise, nothing, ended by FIN or RST |
| scan | `count` ports of each of `hosts`, from `first` on |
| record | everything that is heard for `seconds` is kept |
| replay | what is kept is sent again `count` times, with other counters and reply ports; from addresses of `sources` |
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
from collections.abc import Sequence

PORT = 3010
KIND_AT, COUNTER_AT, REPLY_PORT_AT, ANNOUNCEMENT = 5, 8, 10, 1  # docs/protocol.md section 2.1
WAITS = 2.5  # seconds after its last announcement that a client counts as waiting
PATIENCE = 0.5  # seconds for a connection
PAUSE = 0.02  # seconds
MOST_KEPT = 500  # datagrams
WORDS = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    bytes.fromhex("16030100c8010000c40303") + bytes(200),
    b"SSH-2.0-OpenSSH_9.2\r\n",
    b"",
    os.urandom(5000),
    b"\xff" * 5000,
)
Client = tuple[str, int]


class Stranger:
    """One thread hears; orders are carried out one after the other."""

    def __init__(self, broadcast: str) -> None:
        self._broadcast = broadcast
        self._heard: dict[Client, float] = {}
        self._kept: deque[bytes] = deque(maxlen=MOST_KEPT)
        self._keeping = False
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind((broadcast, PORT))
        threading.Thread(target=self._hear, daemon=True).start()

    def run(self) -> None:
        print("ready", flush=True)
        for line in sys.stdin:
            words = json.loads(line)
            print(getattr(self, words.pop("what"))(**words), flush=True)

    # orders

    def silent(self, count: int, seconds: float) -> int:
        return self._hold(count, seconds, b"")

    def dribble(self, count: int, seconds: float) -> int:
        return self._hold(count, seconds, b"x")

    def words(self, count: int, seconds: float) -> int:
        made, until = 0, time.monotonic() + seconds
        said: dict[Client, int] = {}
        while time.monotonic() < until:
            for client in self._waiting():
                for number in range(said.get(client, 0), count):
                    one = connect(client)
                    if one is None:
                        self._heard.pop(client, None)
                        break
                    made += 1
                    said[client] = number + 1
                    speak(one, WORDS[number % len(WORDS)], reset=number % 2 > 0)
            time.sleep(PAUSE)
        return made

    def scan(self, hosts: Sequence[str], first: int, count: int) -> int:
        made = 0
        for host in hosts:
            for port in range(first, first + count):
                one = connect((host, port))
                if one is not None:
                    made += 1
                    one.close()
        return made

    def record(self, seconds: float) -> int:
        self._keeping = True
        time.sleep(seconds)
        self._keeping = False
        return len(self._kept)

    def replay(self, count: int, sources: Sequence[str]) -> int:
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        made = 0
        for turn in range(count):
            for data in self._kept:
                source = sources[made % len(sources)]
                port = 1024 + made % 60000
                changed = data[:COUNTER_AT] + struct.pack("!HH", turn, port) + data[REPLY_PORT_AT + 2 :]
                raw.sendto(packet(source, port, self._broadcast, changed), (self._broadcast, PORT))
                made += 1
            time.sleep(PAUSE)
        return made

    # parts

    def _hold(self, count: int, seconds: float, said: bytes) -> int:
        made, until, speak_at = 0, time.monotonic() + seconds, time.monotonic() + 1
        held: dict[Client, list[socket.socket]] = {}
        while time.monotonic() < until:
            for client in self._waiting():
                mine = held.setdefault(client, [])
                while len(mine) < count and (one := connect(client)) is not None:
                    mine.append(one)
                    made += 1
            if said and time.monotonic() > speak_at:
                speak_at += 1
                for one in (one for some in held.values() for one in some):
                    try:
                        one.send(said)
                    except OSError:
                        continue  # it was thrown out
            time.sleep(PAUSE)
        for one in (one for some in held.values() for one in some):
            one.close()
        return made

    def _waiting(self) -> list[Client]:
        now = time.monotonic()
        return [client for client, heard in list(self._heard.items()) if heard > now - WAITS]

    def _hear(self) -> None:
        while True:
            data, source = self._socket.recvfrom(2048)
            if self._keeping:
                self._kept.append(data)
            if len(data) > REPLY_PORT_AT + 2 and data[KIND_AT] == ANNOUNCEMENT:
                port = int.from_bytes(data[REPLY_PORT_AT : REPLY_PORT_AT + 2], "big")
                self._heard[source[0], port] = time.monotonic()


def connect(client: Client) -> socket.socket | None:
    one = socket.socket()
    one.settimeout(PATIENCE)
    try:
        one.connect(client)
    except OSError:
        one.close()
        return None
    return one


def speak(one: socket.socket, words: bytes, *, reset: bool) -> None:
    """Says it, hears nothing for a moment, and hangs up."""
    try:
        one.sendall(words)
        select.select([one], [], [], PAUSE)
    except OSError:
        pass  # it was thrown out
    if reset:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    one.close()


def packet(source: str, port: int, target: str, data: bytes) -> bytes:
    """An IPv4 packet with a datagram of UDP, which needs no checksum."""
    udp = struct.pack("!HHHH", port, PORT, 8 + len(data), 0) + data
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 64, socket.IPPROTO_UDP, 0)
    return head + socket.inet_aton(source) + socket.inet_aton(target) + udp


if __name__ == "__main__":
    Stranger(sys.argv[1]).run()
