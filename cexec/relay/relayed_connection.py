"""One connection of a worker through a relay, from its acceptance to its end.

Contract: nothing is connected to the client until the worker has begun as a worker does: so what a stranger can reach
through a relay hears cexec's opening first.  Driven by `advance` whenever a descriptor is ready for what `masks` asks,
and by `handle_timeout`; it is over when `ending` says how.  docs/protocol.md section 6.3.
"""

from __future__ import annotations

import _socket
import select

from cexec.errors import CexecError
from cexec.net.sockets import connect_result, start_connect
from cexec.protocol.base.limits import CONNECT_DEADLINE
from cexec.protocol.datagrams.datagram import MAGIC
from cexec.relay.splice import Splice, reset

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from cexec.net.groups import Sockaddr
    from cexec.relay.announcement_table import Announced
    from cexec.relay.buffers import Buffers

# Bytes to a worker: its second flight and one empty record, such as CANCEL, with the longest tag.  More is a job's GO.
WITHOUT_JOB = 64 + 4 + 4 + 32
REFUSED = "connection refused"


class RelayedConnection:
    """`announced` is what the worker has connected for.  `unreachable`: why its client cannot be connected to."""

    __slots__ = ("_buffers", "_client", "_deadline", "_head", "_splice", "_worker", "announced", "ending", "started",
                 "unreachable", "worker_address")  # fmt: skip

    def __init__(
        self, announced: Announced, worker: _socket.socket, worker_address: Sockaddr, buffers: Buffers, now: float
    ) -> None:
        self.announced = announced
        self.worker_address = worker_address
        self.started = now
        self.ending = ""
        self.unreachable = ""
        self._worker = worker
        self._client: _socket.socket | None = None  # from the opening on
        self._splice: Splice | None = None  # from the connection to the client on
        self._head = b""
        self._buffers = buffers
        self._deadline = now + CONNECT_DEADLINE

    @property
    def counts(self) -> tuple[int, int]:
        """Bytes that were passed on to the client, and to the worker."""
        return (0, 0) if self._splice is None else self._splice.counts

    @property
    def is_job(self) -> bool:
        """Whether the client has chosen this worker."""
        return self.counts[1] > WITHOUT_JOB

    @property
    def spliced(self) -> bool:
        return self._splice is not None

    def masks(self) -> dict[int, int]:
        """What to wait for, by descriptor; 0 is for being hung up only."""
        if self.ending:
            return {}
        if self._splice is not None:
            return self._splice.masks()
        if self._client is None:
            return {self._worker.fileno(): select.POLLIN}
        return {self._worker.fileno(): 0, self._client.fileno(): select.POLLOUT}

    def advance(self, events: Mapping[int, int], now: float) -> None:
        """Descriptors are ready, as `events` says."""
        if self._splice is not None:
            self._splice.advance(events, now)
            self.ending = self._splice.ending
        elif self._client is None:
            self._read_opening()
        elif events.get(self._worker.fileno(), 0):
            self.cut("worker: connection reset by peer")
        else:
            self._finish_connecting(now)

    def next_timeout(self) -> float | None:
        return self._deadline if self._splice is None else self._splice.next_timeout()

    def handle_timeout(self, now: float) -> None:
        if self._splice is not None:
            self._splice.handle_timeout(now)
            self.ending = self._splice.ending
        elif now >= self._deadline:
            if self._client is None:
                self.cut("worker: no opening")
            else:
                self._fail("timed out")

    def cut(self, ending: str) -> None:
        """Ends it at once; both peers see that it was cut off."""
        if self.ending:
            return
        self.ending = ending
        if self._splice is not None:
            self._splice.cut(ending)
            return
        reset(self._worker)
        if self._client is not None:
            self._client.close()

    def _read_opening(self) -> None:
        """Another version of cexec passes: it is for the client to say so."""
        try:
            data = self._worker.recv(len(MAGIC) - len(self._head))
        except BlockingIOError:
            return
        except OSError:
            self.cut("worker: connection reset by peer")
            return
        self._head += data
        if not data or not MAGIC.startswith(self._head):
            self.cut("worker: no opening")
        elif self._head == MAGIC:
            try:
                self._client = start_connect(self.announced.client)
            except CexecError as error:
                self._fail(str(error))

    def _finish_connecting(self, now: float) -> None:
        assert self._client is not None
        failure = connect_result(self._client)
        if failure:
            self._fail(failure)
            return
        self._splice = Splice(self._worker, self._client, self._head, self._buffers)
        self._splice.advance({}, now)
        self.ending = self._splice.ending

    def _fail(self, reason: str) -> None:
        self.unreachable = reason
        self.cut(f"client: {reason}")
