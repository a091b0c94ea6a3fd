"""Holds what outlasts a job in its process: the connection, the parent, and the news of children that have ended.

Contract: `step(until)` pumps once, waiting no longer than that, and returns the pump's events; between two jobs
`next_word(until)` waits for one frame only, because what follows a GO is the next job's.  Both hear the parent: its
words change `orders`, and the end of its side of the socket raises `DisconnectedError`, as does everything that is
wrong with the client.  docs/protocol.md section 4.4.
"""

from __future__ import annotations

import _socket
import select
import signal
from dataclasses import dataclass
from math import inf
from time import monotonic
from typing import TYPE_CHECKING

from cexec.errors import DisconnectedError
from cexec.net.carrying import carry
from cexec.net.liveness import Liveness
from cexec.system.io.wakeup import Wakeup, poll_timeout
from cexec.system.reason import reason_of
from cexec.worker.jobs.reports import JOBS_AHEAD, Report, Word
from cexec.worker.jobs.worker_link import WorkerGone

if TYPE_CHECKING:
    from cexec.net.pump import Pump, Trouble
    from cexec.protocol.connection.session import Event
    from cexec.system.process.job_group import JobGroup
    from cexec.worker.jobs.worker_link import WorkerLink


@dataclass(slots=True)
class Orders:
    """Keeps what the parent has said of the next job."""

    may_offer: bool = False  # a slot is reserved for it
    last: bool = False  # there is to be none
    withdrawn: bool = False  # what is offered is to be taken back, unless it has been taken
    ahead: int = 0  # so many may be offered without an OFFER
    full: bool = False  # the client may send no more files
    wanted: bool = False  # another client waits for the slot of the job that runs

    def follow(self, word: Word) -> None:
        if word is Word.OFFER:
            self.may_offer = True
        elif word is Word.WITHDRAW:
            self.withdrawn = True
        elif word is Word.LAST:
            self.last = True
        elif word is Word.FULL:
            self.full = True
        elif word is Word.WANTED:
            self.wanted = True
        else:
            self.ahead = JOBS_AHEAD if word is Word.AHEAD else 0

    def take_ahead(self) -> bool:
        """Returns True if the next job may be offered without an OFFER; it counts as offered then."""
        if not self.ahead or self.last:
            return False
        self.ahead -= 1
        return True


class Carrier:
    """`pump` has the connection.  `children_ended`: some may have, since the step before.

    `released`: the client has let go.  `group` is the control group in which this process lives, if it has one of its
    own.
    """

    def __init__(self, pump: Pump, parent: WorkerLink, group: JobGroup | None = None) -> None:
        self.pump = pump
        self.group = group
        self.orders = Orders()
        self.children_ended = False
        self.clean = True  # nothing has gone wrong
        self.released = False
        self._parent = parent
        self._liveness = Liveness(pump.connection)
        self._children = Wakeup()  # becomes readable when a child has ended
        self._children.start((signal.SIGCHLD,))
        pump.watch(self._children.fileno())
        pump.watch(parent.fileno())
        self._poll = select.poll()  # between two jobs
        self._poll.register(parent.fileno(), select.POLLIN)

    def close(self) -> None:
        """The connection has ended."""
        self._children.close()

    def step(self, until: float | None, *, carries: bool = False) -> list[Event | Trouble]:
        """Pumps once; `carries`: goes on while bytes come and go, because the owner does nothing with them."""
        due = [time for time in (until, self._liveness.next_timeout()) if time is not None]
        timeout = max(0.0, min(due) - monotonic()) if due else None
        found = carry(self.pump, timeout) if carries else self.pump.step(timeout)
        self.children_ended = self._children.fileno() in self.pump.ready
        if self.children_ended:
            self._children.take()
        if self._parent.fileno() in self.pump.ready:
            self._hear_parent(ready=True)
        self._look_alive()
        return found

    def next_word(self, until: float | None = None) -> Event | None:
        """The client's next frame that means something; None when the time has come or the parent has spoken."""
        records, session = self.pump.records, self.pump.session
        size = 0
        now = -inf  # the time before the last look at the connection: what had come by then is read before it is judged
        while True:
            while (frame := records.next_event()) is not None:
                session.receive_data(frame, monotonic())
                if (event := session.next_event()) is not None:
                    return event
            if size:
                self.pump.note_part(size)
            if until is not None and now >= until:
                return None
            self.pump.flush()
            due = [time for time in (until, session.next_timeout(), self._liveness.next_timeout()) if time is not None]
            mask = select.POLLIN | select.POLLOUT if self.pump.wants_out else select.POLLIN
            self._poll.register(self.pump.connection, mask)
            now = monotonic()
            ready = dict(self._poll.poll(poll_timeout(min(due) - now)))
            size = self._receive() if ready.get(self.pump.connection.fileno(), 0) & ~select.POLLOUT else 0
            if self._parent.fileno() in ready:
                self._hear_parent(ready=True)
                return None
            if now >= session.next_timeout():
                session.handle_timeout(now)
            self._look_alive()

    def goes_ahead(self) -> bool:
        """Returns True if the next job may be offered without a word; the end of this one must tell the parent so."""
        self._hear_parent()
        return self.orders.take_ahead()

    def hang_up(self) -> None:
        """Nothing more comes from us, which tells the client that the lease has ended; unless much is under way."""
        if self.pump.session.ahead is not None:
            self.pump.session.give_back("this worker takes no further job")
        self.pump.let_go()
        self.pump.flush()
        if not self.pump.flushed:
            return
        try:
            self.pump.connection.shutdown(_socket.SHUT_WR)
        except OSError:
            pass

    def tell(self, report: Report, *, quiet: bool = False) -> None:
        """Tells the parent; `quiet`: it may read this later."""
        self._parent.tell(report, quiet=quiet)

    def send_behind(self, report: Report, *, held: bool) -> None:
        """Tells the parent, and then sends the client what there is for it, unless that is to be `held` back.

        In this order, whenever this process is killed, the parent does not know less than the client (N8).  The client
        does not wait until the parent has been woken.
        """
        self._parent.note(report)
        if held:
            self.pump.hold_back()
        else:
            self.pump.let_go()
        self.pump.flush()
        self._parent.wake_for(report)

    def wake_parent(self) -> None:
        """Lets the parent read quiet reports now, because it will take a while until there are others."""
        self._parent.wake()

    def _receive(self) -> int:
        """Returns how many bytes have come."""
        buffer = self.pump.records.receive_buffer()
        try:
            size = self.pump.connection.recv_into(buffer)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError as error:
            raise DisconnectedError(f"client is lost: {reason_of(error)}") from None
        if not size:
            raise DisconnectedError("client closed the connection")
        self.pump.records.received(size)
        return size

    def _hear_parent(self, *, ready: bool = False) -> None:
        try:
            for word in self._parent.words(ready=ready):
                self.orders.follow(word)
        except WorkerGone:
            self.clean = False  # there is nobody to be told anything
            raise DisconnectedError("worker is ending its jobs") from None

    def _look_alive(self) -> None:
        now = monotonic()
        self._liveness.stepped(now)
        self._liveness.handle_timeout(now)
