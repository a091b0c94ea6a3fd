"""A holder of a key who does harm: a worker that wins and lies, and a client that slanders.

    python insider.py worker APP BROADCAST
    python insider.py client APP.pub BROADCAST

Contract: says `ready`, then obeys orders on standard input, one JSON object a line, and answers each with the number of
connections, or of datagrams, that it has made.  A worker takes first attempts only, so that jobs get done elsewhere.

| side | `what` | meaning |
|---|---|---|
| worker | play | `count` jobs are played, a name of PLAYS each, in turn |
| client | slander | `count` complaints about each worker that is heard, of jobs that do not exist and of jobs that do |
| client | forge | `count` alerts for each worker that is heard, with its name and certificate, and a wrong signature |
"""

from __future__ import annotations

import itertools
import json
import os
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from cexec.errors import CexecError
from cexec.protocol.base.certificate import Certificate
from cexec.protocol.base.keys import ClientKey, OwnerKey
from cexec.protocol.base.limits import FRAME_LENGTH, IDENTITY_SIZE, MAXIMUM_FRAME, MAXIMUM_HOPS, RECORD_HEADER
from cexec.protocol.connection import frames
from cexec.protocol.connection.frames import ENDED, EXITED, Ending, Exit
from cexec.protocol.connection.options import READS, WRITES
from cexec.protocol.datagrams import alert, datagram
from cexec.protocol.datagrams.alert import Alert
from cexec.system.storage.keyfile import read_key
from tests.fake_worker import Connection, FakeWorker, HungUpError
from tests.service import Application

PORT = 3010
STALL = 3.0  # seconds
DRIP = 1.0  # seconds between two bytes of a worker that dribbles
PIECE = 500  # datagrams between two pauses, shorter than what a worker's buffer holds
PAUSE = 0.05  # seconds
MOST_HEARD = 200


def drops_before_confirming(connection: Connection) -> None:
    connection.shake()


def drops_after_confirming(connection: Connection) -> None:
    connection.shake().confirm()


def drops_after_go(connection: Connection) -> None:
    connection.take()


def drops_after_starting(connection: Connection) -> None:
    connection.take().start()


def resets_after_starting(connection: Connection) -> None:
    connection.take().start().reset()


def stalls_before_confirming(connection: Connection) -> None:
    connection.shake()
    time.sleep(STALL)


def stalls_after_go(connection: Connection) -> None:
    connection.take()
    time.sleep(STALL)


def dribbles(connection: Connection) -> None:
    connection.take().start()
    for _ in range(round(STALL / DRIP)):
        time.sleep(DRIP)  # this is the harm that it does
        connection.frame(frames.DATA, b"x", 2)


def sends_an_oversized_record(connection: Connection) -> None:
    connection.take().start().raw((FRAME_LENGTH + MAXIMUM_FRAME + 33).to_bytes(RECORD_HEADER, "big"))
    connection.wait_for_end()


def names_an_unknown_stream(connection: Connection) -> None:
    connection.take().start().frame(frames.DATA, b"data", 77)
    connection.wait_for_end()


def ends_with_bytes_missing(connection: Connection) -> None:
    connection.take().start().frame(frames.END, (1 << 20).to_bytes(8, "big"), 1)
    connection.wait_for_end()


def exits_with_bytes_missing(connection: Connection) -> None:
    """EXIT says success, and counts more than was sent."""
    endings = [Ending(1, WRITES, ENDED, 1 << 20), Ending(2, WRITES, ENDED, 0), Ending(0, READS, ENDED, 0)]
    connection.take().start().frame(frames.EXIT, Exit(kind=EXITED, status=0, endings=endings).encode())
    connection.wait_for_end()


def says_what_expands(connection: Connection) -> None:
    """Each of these bytes is several when it is shown."""
    connection.take().start().frame(frames.BROKEN, b"\x1b" * 1000, 1)
    connection.wait_for_end()


def noise(connection: Connection) -> None:
    connection.take().start().raw((100).to_bytes(RECORD_HEADER, "big") + os.urandom(100))
    connection.wait_for_end()


Play = Callable[[Connection], None]
PLAYS: dict[str, Play] = {
    play.__name__: play
    for play in (
        drops_before_confirming, drops_after_confirming, drops_after_go, drops_after_starting, resets_after_starting,
        stalls_before_confirming, stalls_after_go, dribbles, sends_an_oversized_record, names_an_unknown_stream,
        ends_with_bytes_missing, exits_with_bytes_missing, says_what_expands, noise,
    )
}  # fmt: skip


class Key(Application):
    """A key file that is there."""

    def __init__(self, path: str) -> None:
        self.secret = self.public = Path(path)


class FalseWorker:
    """It answers before all honest workers, since it never waits."""

    def __init__(self, path: str, broadcast: str) -> None:
        self._plays: deque[Play] = deque()
        self._done = threading.Semaphore(0)
        self._worker = FakeWorker(Key(path), self._play, name="false", group=broadcast)

    def play(self, plays: list[str], count: int) -> int:
        names = itertools.islice(itertools.cycle(plays), count)
        self._plays.extend(PLAYS[name] for name in names)
        for _ in range(count):
            self._done.acquire()
        return count

    def _play(self, connection: Connection) -> None:
        if connection.attempt > 1:
            return
        try:
            play = self._plays.popleft()
        except IndexError:
            return  # it has done enough
        try:
            play(connection)
        except (HungUpError, CexecError, OSError):
            pass  # another worker has won
        self._done.release()


class FalseClient:
    """It has a client's key, and hears what all hear."""

    def __init__(self, path: str, broadcast: str) -> None:
        key = read_key(path, (ClientKey, OwnerKey))
        assert isinstance(key, ClientKey)
        self._key = key
        self._target = (broadcast, PORT)
        self._heard: dict[bytes, deque[Alert]] = {}  # by instance
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        for option in (socket.SO_REUSEADDR, socket.SO_BROADCAST):
            self._socket.setsockopt(socket.SOL_SOCKET, option, 1)
        self._socket.bind(self._target)
        threading.Thread(target=self._hear, daemon=True).start()

    def slander(self, count: int) -> int:
        return self._send(count, self._complaint)

    def forge(self, count: int) -> int:
        return self._send(count, self._end)

    def _complaint(self, told: Alert, job_id: bytes, number: int) -> Alert:
        made = self._copy(told, job_id, alert.COMPLAINT, self._key.identity.certificate)
        made.complaint = alert.COMPLAINTS.index("disconnected")
        return made

    def _end(self, told: Alert, job_id: bytes, number: int) -> Alert:
        """With a number that jumps, so that a logger that believes it reports gaps."""
        made = self._copy(told, job_id, alert.COMPLETED, told.certificate)
        made.series, made.sequence, made.status = told.series, told.sequence + 1000 * number, 77
        return made

    @staticmethod
    def _copy(told: Alert, job_id: bytes, outcome: int, certificate: Certificate) -> Alert:
        return Alert(
            outcome=outcome, certificate=certificate, job_id=job_id, attempt=told.attempt,
            client_name=told.client_name, client_address=told.client_address, worker_name=told.worker_name,
            worker_address=told.worker_address, instance=told.instance, clock=int(time.time() * 1000),
        )  # fmt: skip

    def _send(self, count: int, make: Callable[[Alert, bytes, int], Alert]) -> int:
        made = 0
        for number in range(count):
            for told in [list(one)[number % len(one)] for one in list(self._heard.values())]:
                job_id = told.job_id if number % 2 else os.urandom(IDENTITY_SIZE)
                data = alert.encode_alert(self._key, make(told, job_id, number), MAXIMUM_HOPS)
                self._socket.sendto(data, self._target)
                made += 1
                if made % PIECE == 0:
                    time.sleep(PAUSE)
        return made

    def _hear(self) -> None:
        while True:
            data = self._socket.recv(2048)
            parsed = datagram.parse(data, [self._key.mac1_key])
            if parsed is None or parsed.kind != datagram.ALERT:
                continue
            try:
                told = alert.open_alert(self._key, parsed.inner)
            except CexecError:
                continue
            if told.sequence:
                self._heard.setdefault(told.instance, deque(maxlen=MOST_HEARD)).append(told)


def main() -> None:
    side, path, broadcast = sys.argv[1:]
    insider = FalseWorker(path, broadcast) if side == "worker" else FalseClient(path, broadcast)
    print("ready", flush=True)
    for line in sys.stdin:
        words = json.loads(line)
        print(getattr(insider, words.pop("what"))(**words), flush=True)


if __name__ == "__main__":
    main()
