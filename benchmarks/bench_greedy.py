"""Measures what clients that hold keys and do harm cost an honest one, with real processes.

    make bench BENCH=benchmarks/bench_greedy.py

Six clients, each with a certificate of its own, let a worker reserve slots and never send GO, or accept its connections
and never answer the first flight.  The figure is the duration of an honest `cexec` whose program is `true`, while the
attack goes on, from BENCH_WARMING (1) seconds after its begin; the median and the slowest of BENCH_ROUNDS (20) runs.
The goal is three times the duration at an idle worker.  benchmarks/simulate_attacks.py has more attacks and figures.
"""

from __future__ import annotations

import os
import select
import socket
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks.common import LOOPBACK_GROUP, Workplace, goal, rounds, timed
from cexec.errors import CexecError
from cexec.protocol.base import sodium
from cexec.protocol.base.keys import ClientKey, decode_key
from cexec.protocol.base.limits import IDENTITY_SIZE, MAXIMUM_DATAGRAM, MAXIMUM_HOPS, MAXIMUM_WEIGHT
from cexec.protocol.connection.channel import ClientHandshake
from cexec.protocol.datagrams import datagram
from cexec.protocol.datagrams.announcement import SealedAnnouncement
from cexec.protocol.datagrams.hello import decode_answer, open_hello
from cexec.protocol.datagrams.proof import encode_proofs

WARMING = float(os.environ.get("BENCH_WARMING", 1))
ATTACKERS = 6
PATIENCE = 5.0  # seconds that an attacker waits for the worker before it announces something new
PORT = 3010


class Attacker(threading.Thread):
    """One client, over and over again until `over` is set.  With `shakes` it completes the handshake."""

    def __init__(self, key: ClientKey, over: threading.Event, *, shakes: bool) -> None:
        super().__init__(daemon=True)
        self._key = key
        self._over = over
        self._shakes = shakes

    def run(self) -> None:
        while not self._over.is_set():
            try:
                self._attack()
            except (OSError, CexecError):
                pass  # the worker has done with this one

    def _attack(self) -> None:
        job = sodium.random_bytes(IDENTITY_SIZE)
        sealed = SealedAnnouncement(self._key, job_id=job, attempt=1, weight=MAXIMUM_WEIGHT)
        with (
            socket.create_server(("127.0.0.1", 0)) as listener,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
        ):
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            for counter in range(round(PATIENCE)):
                if self._over.is_set():
                    return
                data = sealed.datagram(counter, listener.getsockname()[1], MAXIMUM_HOPS)
                sender.sendto(data, (LOOPBACK_GROUP, PORT))
                while sender in (ready := select.select([listener, sender], [], [], 1.0)[0]):
                    self._prove(sealed, sender)
                if ready:
                    connection, _ = listener.accept()
                    with connection:
                        self._keep(connection, sealed)
                    return

    def _prove(self, sealed: SealedAnnouncement, sender: socket.socket) -> None:
        """Returns what a worker asks for, because an attacker that holds a key can do so."""
        parsed = datagram.parse(sender.recv(MAXIMUM_DATAGRAM), [self._key.mac1_key])
        if parsed is not None:
            announced, message = decode_answer(parsed.inner)
            answer = open_hello(sealed.handshake(), message, self._key.authority_public)
            if answer.proof:
                data = encode_proofs(self._key.mac1_key, announced, [answer.proof], MAXIMUM_HOPS)
                sender.sendto(data, (LOOPBACK_GROUP, PORT))

    def _keep(self, connection: socket.socket, sealed: SealedAnnouncement) -> None:
        """Keeps the worker waiting until it hangs up."""
        connection.settimeout(PATIENCE)
        if self._shakes:
            handshake = ClientHandshake(sealed.handshake(), self._key.authority_public, sodium.aead_names(), 0.0)
            while handshake.wanted:
                handshake.receive_data(connection.recv(handshake.wanted), 0.0)
            connection.sendall(handshake.data_to_send())
        while connection.recv(65536):
            pass


def attacker_keys(place: Workplace) -> list[ClientKey]:
    keys = []
    for number in range(ATTACKERS):
        path = place.directory / f"attacker{number}.pub"
        argv = place.command("ckeygen", "--client", f"attacker{number}", place.secret, path)
        subprocess.run(argv, env=place.environment, check=True, capture_output=True)
        key = decode_key(path.read_bytes())
        assert isinstance(key, ClientKey)
        keys.append(key)
    return keys


def honest(place: Workplace) -> list[float]:
    """Durations of honest jobs, one after another."""
    argv, variables = place.client()
    found = []
    for _ in range(rounds(20)):
        found.append(timed(argv, variables).seconds)
        time.sleep(0.2)
    return found


def main() -> None:
    for slots in (1, 4):
        with Workplace() as place:
            place.service("true", options=["-j", str(slots)])
            keys = attacker_keys(place)
            honest(place)  # files and processes are warm
            idle = statistics.median(honest(place))
            print(f"{slots} slots, idle: {idle:.3f} s", flush=True)
            for name, shakes in (("never send GO", True), ("never answer the first flight", False)):
                over = threading.Event()
                attackers = [Attacker(key, over, shakes=shakes) for key in keys]
                for attacker in attackers:
                    attacker.start()
                time.sleep(WARMING)
                found = honest(place)
                over.set()
                for attacker in attackers:
                    attacker.join()
                what = f"{slots} slots, six clients {name}, slowest {max(found):.2f} s, median"
                goal("attacks", what, statistics.median(found), 3 * idle, unit=" s")


if __name__ == "__main__":
    main()
