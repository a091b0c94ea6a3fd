"""One connection of a worker to a client, from the first SYN to the end of the handshake.

Contract: `advance(now)` is called whenever the descriptor is ready for the events in `mask`, and `handle_timeout(now)`
at `next_timeout`; both raise `CexecError` with the reason when the offer has failed.  When it is `PROVED` the worker
reserves a slot and gives the connection to a process, which says CONFIRM.  The constructor
raises `OwnLimitError` if this worker could connect to nobody.  docs/protocol.md section 3.
"""

from __future__ import annotations

import _socket
import errno
import select
from typing import TYPE_CHECKING

from cexec.errors import DisconnectedError, LocalError
from cexec.net.connecting import OwnLimitError, connect_result, start_connect
from cexec.protocol.base.limits import CONNECT_DEADLINE
from cexec.protocol.connection.records import Records
from cexec.protocol.connection.worker_handshake import WorkerHandshake
from cexec.system.reason import reason_of

if TYPE_CHECKING:
    from cexec.net.groups import Sockaddr
    from cexec.protocol.base.certificate import Identity
    from cexec.protocol.datagrams.hello import Hello
    from cexec.protocol.datagrams.opened_announcement import OpenedAnnouncement

CONNECTING, SHAKING, PROVED = range(3)


class UnreachableError(LocalError):
    """No connection to the client.  It is told so by a datagram, because a firewall is seen only from here."""


class Offer:
    """An offer to run one announced job.  `identity` is the announcement's mac1, `client` the peer's address."""

    def __init__(
        self, identity: bytes, client: Sockaddr, opened: OpenedAnnouncement, worker: Identity, hello: Hello, now: float
    ) -> None:
        self.identity = identity
        self.client = client
        self.state = CONNECTING
        self.latency = 0.0  # seconds that the client took for its answer to the first flight
        self._deadline = now + CONNECT_DEADLINE
        self._asked = now
        try:
            self.connection: _socket.socket = start_connect(client)
        except OwnLimitError:
            raise
        except LocalError as error:
            raise UnreachableError(str(error)) from None
        self._handshake = WorkerHandshake(opened.handshake(), worker, hello, now)

    @property
    def records(self) -> Records:
        records = self._handshake.records
        assert records is not None  # from PROVED on
        return records

    @property
    def mask(self) -> int:
        """The events of poll(2) to wait for."""
        return select.POLLOUT if self.state == CONNECTING else select.POLLIN

    def next_timeout(self) -> float:
        return self._deadline

    def handle_timeout(self, now: float) -> None:
        if now < self._deadline:
            return
        if self.state == CONNECTING:
            raise UnreachableError("timed out")
        raise DisconnectedError("client did not answer in time")

    def advance(self, now: float) -> None:
        """Goes on, because the descriptor is ready."""
        if self.state == CONNECTING:
            failure = connect_result(self.connection)
            if failure:
                raise UnreachableError(failure)
            self._send(self._handshake.data_to_send())
            self.state = SHAKING
            self._asked = now
        elif self.state == SHAKING:
            self._handshake.receive_data(self._receive(self._handshake.wanted), now)
            if self._handshake.records is not None:
                self.state = PROVED
                self.latency = now - self._asked

    def close(self) -> None:
        self.connection.close()

    def _receive(self, size: int) -> bytes:
        try:
            data = self.connection.recv(size)
        except (BlockingIOError, InterruptedError):
            return b""
        except OSError as error:
            raise DisconnectedError(_lost(error)) from None
        if not data:
            raise DisconnectedError("client closed the connection")
        return data

    def _send(self, data: bytes) -> None:
        """Sends a flight, which fits into an empty buffer: if it does not, the client's system is broken."""
        try:
            sent = self.connection.send(data)
        except OSError as error:
            raise DisconnectedError(_lost(error)) from None
        if sent != len(data):
            raise DisconnectedError("client takes no data")


def _lost(error: OSError) -> str:
    if error.errno in (errno.ECONNRESET, errno.EPIPE):
        return "client closed the connection"
    return reason_of(error)
