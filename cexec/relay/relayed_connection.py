"""One connection of a worker through a relay, from its acceptance to its end.

Contract: the relay connects to the client only after the worker has sent the magic, and if `NewAddresses` allows it.
Every listener that a relay can be led to reads cexec's opening first.  The caller calls `advance` when a descriptor is
ready for what `masks` asks, and `handle_timeout` when `next_timeout` has come.  `ending` says how it ended, or is
empty.  docs/protocol.md section 6.3.

    state       waits for                            then
    OPENING     the magic from the worker            CONNECTING, or OVER after CONNECT_DEADLINE
    CONNECTING  the connection to the client         SPLICED, or OVER after CONNECT_DEADLINE (`unreachable`)
    SPLICED     bytes, which the `Splice` passes on  OVER
    OVER        nothing
"""

from __future__ import annotations

import _socket
import select
from typing import TYPE_CHECKING

from cexec.errors import CexecError
from cexec.net.connecting import connect_result, start_connect
from cexec.protocol.base.limits import CONNECT_DEADLINE
from cexec.protocol.datagrams.datagram import MAGIC
from cexec.relay.splice import Splice, reset

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cexec.net.groups import Sockaddr
    from cexec.relay.announcement_table import RelayedAnnouncement
    from cexec.relay.buffers import Buffers
    from cexec.relay.new_addresses import NewAddresses

SECOND_FLIGHT = 64  # bytes to a worker
# Its second flight and one empty record, such as CANCEL, with the longest tag.  More is a job's GO.
WITHOUT_JOB = SECOND_FLIGHT + 4 + 4 + 32
REFUSED = "connection refused"

OPENING, CONNECTING, SPLICED, OVER = "opening", "connecting", "spliced", "over"
TRANSITIONS = {OPENING: (CONNECTING, OVER), CONNECTING: (SPLICED, OVER), SPLICED: (OVER,), OVER: ()}


class RelayedConnection:
    """`announced` is the announcement that it answers.  `unreachable`: why its client cannot be connected to."""

    __slots__ = (
        "_addresses",
        "_buffers",
        "_client",
        "_deadline",
        "_head",
        "_splice",
        "_worker",
        "announced",
        "ending",
        "started",
        "state",
        "unreachable",
        "worker_address",
    )  # fmt: skip

    def __init__(
        self,
        announced: RelayedAnnouncement,
        worker: _socket.socket,
        worker_address: Sockaddr,
        buffers: Buffers,
        addresses: NewAddresses,
        now: float,
    ) -> None:
        self.state = OPENING
        self.announced = announced
        self.worker_address = worker_address
        self.started = now
        self.ending = ""
        self.unreachable = ""
        self._worker = worker
        self._client: _socket.socket | None = None  # from CONNECTING on
        self._splice: Splice | None = None  # from SPLICED on
        self._head = b""
        self._buffers = buffers
        self._addresses = addresses
        self._deadline = now + CONNECT_DEADLINE

    @property
    def counts(self) -> tuple[int, int]:
        """Bytes that were passed on to the client, and to the worker."""
        return (0, 0) if self._splice is None else self._splice.counts

    @property
    def is_job(self) -> bool:
        """True if the client has chosen this worker."""
        return self.counts[1] > WITHOUT_JOB

    @property
    def opening(self) -> bool:
        """True if the worker has not sent the magic yet."""
        return self.state == OPENING

    @property
    def answered(self) -> bool:
        """True if the client has sent as much as a second flight."""
        return self.counts[1] >= SECOND_FLIGHT

    @property
    def spliced(self) -> bool:
        """True if the client has accepted the connection, even if that is over."""
        return self._splice is not None

    def masks(self) -> dict[int, int]:
        """Returns the poll mask of each descriptor; 0 waits for a hang-up only."""
        if self.state == OPENING:
            return {self._worker.fileno(): select.POLLIN}
        if self.state == CONNECTING:
            assert self._client is not None
            return {self._worker.fileno(): 0, self._client.fileno(): select.POLLOUT}
        return {} if self._splice is None else self._splice.masks()

    def advance(self, events: Mapping[int, int], now: float) -> None:
        """Does what can be done; `events` names the descriptors that are ready."""
        if self.state == OVER:
            return
        if self._splice is not None:
            self._splice.advance(events, now)
            self._follow_splice()
        elif self.state == OPENING:
            self._read_opening(now)
        elif events.get(self._worker.fileno(), 0):
            self.cut("worker: connection reset by peer")
        else:
            self._finish_connecting(now)

    def next_timeout(self) -> float | None:
        return self._deadline if self._splice is None else self._splice.next_timeout()

    def handle_timeout(self, now: float) -> None:
        if self._splice is not None:
            self._splice.handle_timeout(now)
            self._follow_splice()
        elif now >= self._deadline:
            if self.state == OPENING:
                self.cut("worker: no opening")
            elif self.state == CONNECTING:
                self._fail("timed out")

    def cut(self, ending: str) -> None:
        """Ends it at once; both peers see that it was cut off."""
        if self.state == OVER:
            return
        self._move(OVER)
        self.ending = ending
        if self._splice is not None:
            self._splice.cut(ending)
            return
        reset(self._worker)
        if self._client is not None:
            self._client.close()

    def _move(self, state: str) -> None:
        """The only place that changes the state."""
        if state not in TRANSITIONS[self.state]:
            raise ValueError(f"a relayed connection that is {self.state} cannot become {state}")
        self.state = state

    def _follow_splice(self) -> None:
        assert self._splice is not None
        if self._splice.ending and self.state != OVER:
            self._move(OVER)
            self.ending = self._splice.ending

    def _read_opening(self, now: float) -> None:
        """Waits for the magic only.  A worker of another version passes, because the client explains that better."""
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
        elif self._head == MAGIC and not self._addresses.begin(self.announced, now):
            self.cut("client: too many new addresses in a minute")
        elif self._head == MAGIC:
            try:
                self._client = start_connect(self.announced.client)
            except CexecError as error:
                self._fail(str(error))
            else:
                self._move(CONNECTING)

    def _finish_connecting(self, now: float) -> None:
        assert self._client is not None
        failure = connect_result(self._client)
        if failure:
            self._fail(failure)
            return
        self._splice = Splice(self._worker, self._client, self._head, self._buffers)
        self._move(SPLICED)
        self._splice.advance({}, now)
        self._follow_splice()

    def _fail(self, reason: str) -> None:
        self.unreachable = reason
        self.cut(f"client: {reason}")
