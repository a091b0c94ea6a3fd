"""A client that the test plays: it can send any frame at any step.

Contract: `FakeClient(application)` announces a job on the loopback group and takes the first worker's connection;
`give` sends a GO, `say` any frame, `hear` waits for one of the worker's.  Clients and services have LOOPBACK in their
environment, or are in a network namespace where the loopback is all there is.
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Sequence
from typing import Self

from cexec.protocol.base import sodium
from cexec.protocol.base.keys import ClientKey
from cexec.protocol.base.limits import IDENTITY_SIZE, MAXIMUM_DATAGRAM, MAXIMUM_HOPS, UDP_PORT
from cexec.protocol.connection import frames
from cexec.protocol.connection.channel import ClientHandshake
from cexec.protocol.connection.frames import Go, Stream
from cexec.protocol.connection.options import READS, WRITES
from cexec.protocol.connection.records import Records
from cexec.protocol.connection.session import Event, Session
from cexec.protocol.datagrams import datagram
from cexec.protocol.datagrams.announcement import SealedAnnouncement
from cexec.protocol.datagrams.hello import decode_answer, open_hello
from cexec.protocol.datagrams.proof import encode_proofs
from cexec.system.storage.keyfile import read_key
from tests.environment import LOOPBACK_GROUP
from tests.service import Application

PATIENCE = 20.0  # seconds after which the worker's silence fails the test
STANDARD = (Stream(0, READS), Stream(1, WRITES), Stream(2, WRITES))
ON_TERMINAL = (Stream(0, READS), Stream(1, WRITES), Stream(2, WRITES, same_as=1))


def wait_for(*sockets: socket.socket) -> list[socket.socket]:
    """Returns those that can be read, or none when PATIENCE is over."""
    return select.select(sockets, [], [], PATIENCE)[0]


class FakeClient:
    """One connection of a worker.  As a context manager it hangs up at the end."""

    def __init__(self, application: Application) -> None:
        key = read_key(os.fspath(application.public), (ClientKey,))
        self.job_id = sodium.random_bytes(IDENTITY_SIZE)
        sealed = SealedAnnouncement(key, job_id=self.job_id, attempt=1)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            data = sealed.datagram(0, listener.getsockname()[1], MAXIMUM_HOPS)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
                sender.sendto(data, (LOOPBACK_GROUP, UDP_PORT))
                while sender in (ready := wait_for(listener, sender)):
                    self._prove(sealed, key, sender)
                assert listener in ready, "no worker connects"
                self.socket, _ = listener.accept()
        self.socket.settimeout(PATIENCE)
        self.records = self._shake(sealed, key)
        self.session = Session(worker=False, now=0.0, numbered=self.records.packed)

    def _prove(self, sealed: SealedAnnouncement, key: ClientKey, sender: socket.socket) -> None:
        """Returns the bytes that a worker sends to a client of which it has seen much lately."""
        parsed = datagram.parse(sender.recv(MAXIMUM_DATAGRAM), [key.mac1_key])
        assert parsed is not None
        announced, message = decode_answer(parsed.inner)
        answer = open_hello(sealed.handshake(), message, key.authority_public)
        if answer.proof:
            data = encode_proofs(key.mac1_key, announced, [answer.proof], MAXIMUM_HOPS)
            sender.sendto(data, (LOOPBACK_GROUP, UDP_PORT))

    def _shake(self, sealed: SealedAnnouncement, key: ClientKey) -> Records:
        handshake = ClientHandshake(sealed.handshake(), key.authority_public, sodium.aead_names(), 0.0)
        while handshake.wanted:
            data = self.socket.recv(handshake.wanted)
            assert data, "the worker has hung up"
            handshake.receive_data(data, 0.0)
        assert handshake.next_event() is not None
        self.socket.sendall(handshake.data_to_send())
        assert handshake.records is not None
        return handshake.records

    def give(
        self,
        *,
        options: dict[str, str] | None = None,
        streams: Sequence[Stream] = STANDARD,
        **fields: list[bytes] | dict[str, bytes],
    ) -> Self:
        """A GO, as soon as the worker confirms."""
        self.hear(frames.CONFIRM)
        go = Go(job_id=self.job_id, attempt=1, streams=list(streams), options=options, **fields)  # type: ignore[arg-type]
        self.session.go(go)
        return self.flush()

    def say(self, frame: bytes) -> Self:
        """Any frame, whatever the session thinks of it."""
        self.records.send_frame(frame)
        return self.flush()

    def hear(self, *kinds: int) -> Event:
        """The worker's next event of one of these kinds; output is taken and forgotten."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            while (frame := self.records.next_event()) is not None:
                self.session.receive_data(frame, 0.0)
                while (event := self.session.next_event()) is not None:
                    if event.kind == frames.DATA:
                        self.session.consumed(event.stream, len(event.data))
                    if event.kind in kinds:
                        return event
            self.flush()
            size = self.socket.recv_into(self.records.receive_buffer())
            assert size, "the worker has hung up"
            self.records.received(size)
        raise AssertionError("the worker says nothing")

    def flush(self) -> Self:
        for frame in self.session.data_to_send():
            self.records.send_frame(frame)
        while outgoing := self.records.data_to_send():
            self.records.data_sent(self.socket.sendmsg(outgoing[:8]))
        return self

    def ended(self) -> None:
        """Until the worker hangs up, or has heard everything."""
        try:
            self.socket.shutdown(socket.SHUT_WR)
            while self.socket.recv(65536):
                pass
        except OSError:
            pass  # it has hung up already

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
