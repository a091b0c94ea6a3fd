"""The TCP half of a relay: a listener for each announcement, and the connections of the workers that came.

Contract: `listen` opens the listener of an announcement, `close_listener` closes it; connections that it has accepted
live on.  The caller calls `advance` with the announcement or the connection whose descriptors are ready, and
`handle_timeouts` when `next_timeout` has come.  Everything is bounded; connections beyond the bounds wait in the
kernel's backlog.  A line is logged for each job that came through.  docs/protocol.md section 6.3.
"""

from __future__ import annotations

import select

from cexec.errors import LocalError
from cexec.net.sockets import open_listener
from cexec.relay.announcement_table import RelayedAnnouncement
from cexec.relay.relayed_connection import REFUSED, RelayedConnection
from cexec.relay.splice import CLOSED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cexec.net.groups import Sockaddr
    from cexec.relay.buffers import Buffers
    from cexec.relay.new_addresses import NewAddresses
    from cexec.relay.poller import Poller
    from cexec.system.storage.eventlog import EventLog

MAXIMUM_CONNECTIONS = 1024  # (ours) of workers, to all clients together; fewer where descriptors are few
MAXIMUM_FOR_ONE = 512  # connections (ours) for one announcement; the others wait in the backlog
DESCRIPTORS_EACH = 6  # of a connection: its two ends, and a pipe for each direction while that is busy
DESCRIPTORS_BESIDE = 1200  # (ours) for listeners and all else
LEAST_CONNECTIONS = 8  # (ours) however few descriptors there are
ACCEPT_BATCH = 16  # connections (ours) accepted before the others are looked at again
UNTRIED = 0.2  # seconds (ours) to wait when descriptors have run out
PATIENCE = 0.25  # seconds (ours) until a worker without an opening gives way, if places are short
REFUSAL = 12.0  # seconds (ours): a worker tells of the second refusal, and it tries when an announcement is repeated
NEVER = float("inf")


class Forwarder:
    """All listeners and connections of one relay."""

    def __init__(
        self, poller: Poller, buffers: Buffers, log: EventLog, ports: Sequence[int] | None, descriptors: int,
        addresses: NewAddresses,
    ) -> None:  # fmt: skip
        """`ports`: for listeners, None allows any; `descriptors`: how many this process may have open."""
        self._poller = poller
        self._buffers = buffers
        self._log = log
        self._ports = ports
        room = (descriptors - DESCRIPTORS_BESIDE) // DESCRIPTORS_EACH
        self._room = max(LEAST_CONNECTIONS, min(MAXIMUM_CONNECTIONS, room))
        self._connections: dict[
            RelayedConnection, tuple[int, ...]
        ] = {}  # with those of their descriptors that are watched
        self._listening: dict[RelayedAnnouncement, None] = {}
        self._due = NEVER  # no connection has a timeout before
        self._accept_again = 0.0  # 0: now
        self.addresses = addresses
        self._no_port = ""  # the last reported reason why a listener could not be opened

    def __len__(self) -> int:
        """Counts the connections."""
        return len(self._connections)

    @property
    def listeners(self) -> int:
        """Counts the announcements that have a listener."""
        return len(self._listening)

    @property
    def jobs(self) -> int:
        """Counts the connections that carry a job."""
        return sum(connection.is_job for connection in self._connections)

    def listen(self, entry: RelayedAnnouncement, now: float, *, loopback: bool, ipv6: bool) -> bool:
        """Opens a listener for the announcement; returns False if that failed, so that it must not be passed on."""
        if entry.listener is not None or now < entry.refuses_until:
            return True
        try:
            entry.listener = open_listener(self._ports, loopback=loopback, ipv6=ipv6)
        except LocalError as error:
            if str(error) != self._no_port:
                self._no_port = str(error)
                self._log.event("failed", client=shown(entry.client), reason=self._no_port)
            return False
        entry.port = entry.listener.port
        self._listening[entry] = None
        self._watch_listener(entry)
        return True

    def close_listener(self, entry: RelayedAnnouncement) -> None:
        """May be called again."""
        if entry.listener is not None:
            for fd in entry.listener.filenos():
                self._poller.forget(fd, entry)
            entry.listener.close()
            entry.listener = None
            del self._listening[entry]

    def advance(self, owner: object, events: Mapping[int, int], now: float) -> None:
        """Handles what has happened to a listener or to a connection."""
        if isinstance(owner, RelayedAnnouncement):
            self._accept(owner, now)
        elif isinstance(owner, RelayedConnection) and owner in self._connections:
            owner.advance(events, now)
            self._follow(owner, now)

    def next_timeout(self) -> float:
        return min(self._due, self._accept_again or NEVER)

    def handle_timeouts(self, now: float) -> None:
        if self._accept_again and now >= self._accept_again:
            self._accept_again = 0.0
            self._watch_listeners()
        if now >= self._due:
            self._due = NEVER
            self._make_room(now)
            for connection in list(self._connections):
                connection.handle_timeout(now)
                self._follow(connection, now)

    def cut(self, now: float, *, jobs: bool) -> None:
        """Ends all connections, those on which a job may run only with `jobs`."""
        for connection in list(self._connections):
            if jobs or not connection.spliced:
                connection.cut("the relay was stopped")
                self._follow(connection, now)

    # listeners

    def _watch_listener(self, entry: RelayedAnnouncement) -> None:
        assert entry.listener is not None
        full = len(self._connections) >= self._room or entry.connections >= MAXIMUM_FOR_ONE
        if full:
            self._due = 0.0  # to make room
        for fd in entry.listener.filenos():
            if full or self._accept_again:
                self._poller.forget(fd, entry)
            else:
                self._poller.watch(fd, select.POLLIN, entry)

    def _make_room(self, now: float) -> None:
        """Where places are short, a worker that has said nothing for a while gives way, as at a client."""
        full = len(self._connections) >= self._room
        for connection in list(self._connections):
            if (full or connection.announced.connections >= MAXIMUM_FOR_ONE) and connection.opening:
                if now - connection.started >= PATIENCE:
                    connection.cut("worker: silent while others waited")
                    self._follow(connection, now)
                else:
                    self._due = min(self._due, connection.started + PATIENCE)

    def _watch_listeners(self) -> None:
        for entry in self._listening:
            self._watch_listener(entry)

    def _accept(self, entry: RelayedAnnouncement, now: float) -> None:
        for _ in range(ACCEPT_BATCH):
            if entry.listener is None or entry.connections >= MAXIMUM_FOR_ONE:
                break
            if len(self._connections) >= self._room:
                self._watch_listeners()
                return
            try:
                accepted = entry.listener.accept()
            except LocalError:
                self._accept_again = now + UNTRIED  # out of descriptors: those that wait stay in the backlog
                self._watch_listeners()
                return
            if accepted is None:
                return
            entry.connected(accepted[1][0])
            connection = RelayedConnection(entry, *accepted, self._buffers, self.addresses, now)
            self._connections[connection] = ()
            self._follow(connection, now)
        if entry.listener is not None:
            self._watch_listener(entry)

    # connections

    def _follow(self, connection: RelayedConnection, now: float) -> None:
        """Watches the descriptors that it waits for, or removes it if it has ended."""
        masks = connection.masks()
        for fd in self._connections[connection]:
            if fd not in masks:
                self._poller.forget(fd, connection)
        for fd, mask in masks.items():
            self._poller.watch(fd, mask, connection)
        self._connections[connection] = tuple(masks)
        if connection.answered:
            self.addresses.answered(connection.announced)
        if connection.ending:
            self._ended(connection, now)
            return
        due = connection.next_timeout()
        if due is not None:
            self._due = min(self._due, due)

    def _ended(self, connection: RelayedConnection, now: float) -> None:
        entry = connection.announced
        entry.connections -= 1
        was_full = len(self._connections) >= self._room
        del self._connections[connection]
        self._log_end(connection, now)
        entry.reached = entry.reached or connection.spliced
        if connection.unreachable == REFUSED or (connection.unreachable and not entry.reached):
            # We refuse, too, so that the workers tell the client that it cannot be reached.
            entry.refuses_until = now + REFUSAL
            self.close_listener(entry)
        if was_full:
            self._watch_listeners()
        elif entry.listener is not None:
            self._watch_listener(entry)

    def _log_end(self, connection: RelayedConnection, now: float) -> None:
        client, worker = shown(connection.announced.client), shown(connection.worker_address)
        if connection.is_job:
            to_client, to_worker = connection.counts
            self._log.event(
                "forwarded",
                client=client,
                worker=worker,
                seconds=now - connection.started,
                to_worker=to_worker,
                to_client=to_client,
                ended="" if connection.ending == CLOSED else connection.ending,
            )
        elif connection.unreachable not in ("", REFUSED):  # a client that has chosen refuses all others
            self._log.event("unreachable", client=client, worker=worker, reason=connection.unreachable)


def shown(address: Sockaddr) -> str:
    """As a person reads it."""
    return f"[{address[0]}]:{address[1]}" if ":" in address[0] else f"{address[0]}:{address[1]}"
