"""The workers of a room that is played, and their connections: see `room.py`.

Contract: a `Link` speaks the real protocol on the connection of one `Worker`, from the end of its handshake on; its
owner waits for the connection, and says when the job has taken its time.  `OSError` and `CexecError` end the link.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cexec.protocol.base.limits import IDENTITY_SIZE
from cexec.protocol.base.sodium import aead_names
from cexec.protocol.connection import frames
from cexec.protocol.connection.frames import Exit
from cexec.protocol.datagrams.hello import Hello

if TYPE_CHECKING:
    from cexec.protocol.base.keys import WorkerKey
    from cexec.protocol.connection.session import Event, Session
    from cexec.worker.discovery.offer import Offer


class Worker:
    """One of the room's workers; `busy` slots are reserved or run a job."""

    def __init__(self, key: WorkerKey, slots: int) -> None:
        self.key = key
        self.instance = os.urandom(IDENTITY_SIZE)
        self.slots = slots
        self.busy = 0

    def hello(self, purpose: int) -> Hello:
        return Hello(
            purpose=purpose,
            instance=self.instance,
            certificate=self.key.identity.certificate,
            host="room",
            ciphers=aead_names(),
            slots=self.slots,
            running=self.busy,
        )


class Link:
    """One connection of a worker to a client, and the job that runs there."""

    def __init__(self, worker: Worker, offer: Offer) -> None:
        self.worker = worker
        self.offer = offer
        self.connection = offer.connection
        self.session: Session | None = None  # from the end of the handshake on
        self.unread: set[int] = set()  # inputs of the job that have not ended

    def flush(self) -> None:
        assert self.session is not None
        records = self.offer.records
        for frame in self.session.data_to_send():
            records.send_frame(frame)
        data = b"".join(records.data_to_send())
        if self.connection.send(data) != len(data):
            raise OSError("the client takes no data")
        records.data_sent(len(data))

    def receive(self, now: float) -> list[Event]:
        """Returns what the client has said; raises `OSError` when it has hung up."""
        assert self.session is not None
        records, session = self.offer.records, self.session
        buffer = records.receive_buffer()
        size = self.connection.recv_into(buffer)
        if not size:
            raise OSError("the client has hung up")
        records.received(size)
        events = []
        while (frame := records.next_event()) is not None:
            session.receive_data(frame, now)
            events += self.take_events()
        return events

    def take_events(self) -> list[Event]:
        """Returns the session's events but those of data, which count as read."""
        assert self.session is not None
        events = []
        while (event := self.session.next_event()) is not None:
            if event.kind == frames.DATA:
                self.session.consumed(event.stream, len(event.data))
            else:
                events.append(event)
        return events

    def finish(self, output: int) -> bool:
        """Writes the output, ends the job, and confirms again; returns True if the next job was there in advance."""
        assert self.session is not None
        records, session = self.offer.records, self.session
        for frame in session.data_to_send():
            records.send_frame(frame)
        buffer = records.data_buffer() if output else None
        if buffer is not None:
            records.send_data(session.data_head(1, output), output)
        for stream in session.outgoing:
            session.end(stream)
        session.exit(Exit(kind=frames.EXITED, status=0, endings=[]))
        if session.ahead is None:
            session.confirm()
            self.flush()
            return False
        session.begin_ahead()
        return True
