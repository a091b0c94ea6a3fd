"""The pump: carries bytes between one connection and the descriptors of one job, for both sides.

Contract: `step(timeout)` waits for at most `timeout` seconds, moves bytes in both directions, and returns the events
that are not about stream data: those of the session (`session.Event`), and a `Trouble` for each descriptor that failed.
It blocks nowhere else.  `turn(readable)` is a step for an owner that waits for the connection elsewhere and knows if it
is readable.  All raise `ProtocolError`, `SilentPeerError` and `DisconnectedError` only, and return all events that came
before the failure first.  A source without a descriptor that is `idle`, and a sink without one that has no room, are
not waited for: their owner lets the pump step again.
The owner passes `records` and `session` in; the pump calls nothing back.

Most of the CPU time of a transfer is spent in `receive`, `_take_frames`, `JobSinks.deliver` and `read_source`.  They
therefore work on memoryviews: `Records` opens a frame where it was received, and seals one where a source was read.
Only the kernel copies a byte, unless a sink takes less than it is given.  `carrying` is a shorter way for messages.
"""

from __future__ import annotations

import _socket
import errno
import select
from time import monotonic

from cexec.common_errors import CexecError, DisconnectedError
from cexec.net.sinks import JobSinks, Trouble
from cexec.protocol.base.limits import FRAME_HEADER
from cexec.protocol.connection import frames
from cexec.protocol.connection.records import SHORT_DATA
from cexec.protocol.connection.session import Event
from cexec.protocol.connection.streams import LEAST_CREDIT
from cexec.system.io.fds import FEW
from cexec.system.io.wakeup import PollSet
from cexec.system.reason import reason_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from cexec.protocol.connection.records import Records
    from cexec.protocol.connection.session import Session
    from cexec.system.io.fds import Source
    from cexec.system.io.short_waits import ShortWaits

    T = TypeVar("T")

__all__ = ["BROKEN_PIPE", "LEAST_CREDIT", "Pump", "Trouble"]

IN, OUT = select.POLLIN, select.POLLOUT
BROKEN_PIPE = (errno.EPIPE, errno.ECONNRESET)  # the reader of an output has gone, which is no failure: section 4.3
MAXIMUM_BUFFERS = 64  # records (ours) in one sendmsg; the kernel takes up to 1,024, but a socket is full long before
RECEIVE_TURNS = 4  # reads (ours) of the connection in one step; more would let the sinks and sources wait


class Pump:
    """One connection and its streams.  `ready` holds the watched descriptors that were readable in the last step."""

    def __init__(self, connection: _socket.socket, records: Records, session: Session) -> None:
        self.connection = connection
        self.records = records
        self.session = session
        self.sources: dict[int, Source] = {}
        self.sinks = JobSinks(session)
        self.ready: set[int] = set()
        self._watched: dict[int, int] = {}
        self._fd = connection.fileno()
        self.poll_set = PollSet()
        self.short_waits: ShortWaits | None = None  # of `carrying`
        self._held = False  # frames wait for others, see `hold_back`
        self._deaf = False  # the peer takes no more bytes; those that it sent before are still read
        self._gone: CexecError | None = None  # the failure that ended the connection
        self.whole = True  # it is True if a record ended where the last bytes did
        self.read_all = True  # the last step has read everything that had come

    def watch(self, fd: int) -> None:
        """Lets `step` wait for this descriptor, too, until it is readable."""
        self._watched[fd] = IN

    def unwatch(self, fd: int) -> None:
        self._watched.pop(fd, None)

    @property
    def drained(self) -> bool:
        """True if every received byte has been written to its sink."""
        return not self.sinks.pending

    @property
    def failed(self) -> bool:
        """True if the connection has ended: the next step without events raises the reason."""
        return self._gone is not None

    @property
    def wants_out(self) -> bool:
        """True if there is something to send that the connection may still take."""
        return not self._deaf and not self._held and not self.records.all_sent

    @property
    def moved(self) -> int:
        """Counts the bytes that the streams have carried in both directions."""
        session = self.session
        return sum(half.count for half in session.outgoing.values()) + sum(
            half.received for half in session.incoming.values()
        )

    @property
    def waits_here(self) -> bool:
        """True if it is up to this side what happens next: a sink is full, or the peer would take more input."""
        return bool(self.sinks.pending) or any(self._may_read(stream) for stream in self.sources)

    @property
    def flushed(self) -> bool:
        """True if the kernel has taken every byte that was to be sent."""
        return self.records.all_sent

    def step(self, timeout: float | None = None) -> list[Event | Trouble]:
        """Waits for at most `timeout` seconds, None for any time, and moves bytes; returns the events."""
        return self.make(self.begin, timeout)

    def turn(self, readable: bool) -> list[Event | Trouble]:
        """Moves bytes where no descriptor but the connection need be waited for; returns the events.

        It judges no timeout, because it does not look if more has come: that is for the `step` when one is due.
        """
        return self.make(self._turn, readable)

    def make(self, move: Callable[[T, list[Event | Trouble]], object], how: T) -> list[Event | Trouble]:
        """Makes a step, and returns the events that `move` adds to its list, or raises why the connection has ended."""
        found: list[Event | Trouble] = []
        if self._gone is None:
            try:
                move(how, found)
            except CexecError as error:
                self._gone = _copy(error)  # raised by the next step: events that came before it count, such as an EXIT
        if self._gone is not None and not found:
            raise _copy(self._gone)
        return found

    def _turn(self, readable: bool, found: list[Event | Trouble]) -> None:
        if self.session.events:
            self._take_events(found)
        if not self.records.at_record_boundary:
            self._take_frames(found)
        self.read_all = readable and self.receive(found)
        if self.sinks.pending:
            self.sinks.write_pending({}, found)
        self.flush()  # before bytes of sources: GO may be among these frames
        if self.sources:
            for stream, source in list(self.sources.items()):
                self.read_source(stream, source, found, IN)
            self.flush()

    def begin(self, timeout: float | None, found: list[Event | Trouble]) -> bool:
        """Takes what is there already, and exchanges."""
        # Frames may be complete already: they came in one segment with the handshake, or the last step raised.
        self._take_events(found)
        self._take_frames(found)
        self.flush()
        return self.exchange(timeout, found)

    def exchange(self, timeout: float | None, found: list[Event | Trouble]) -> bool:
        """Waits, unless there are events, and moves the bytes of all descriptors that are ready.

        Returns True if one was ready.
        """
        now = monotonic()  # before the wait: a timeout is judged only if everything was read after it was due
        due = self.session.next_timeout()
        ready = {} if found else self._wait(due - now if timeout is None else min(timeout, due - now), now)
        self.ready = ready.keys() & self._watched.keys()
        self.read_all = not found  # else nobody has looked
        if ready.get(self._fd, 0) & ~OUT:  # readable, or an error or a hang-up that recv will name
            self.read_all = self.receive(found)
        if self.sinks.pending:
            self.sinks.write_pending(ready, found)
        for stream, source in list(self.sources.items()):
            fd = source.fd
            if fd in ready or fd < 0:
                self.read_source(stream, source, found, ready.get(fd, IN))
        if now >= due and self.read_all and now >= self.session.next_timeout():
            self.session.handle_timeout(now)
        self.flush()
        return bool(ready)

    @property
    def held(self) -> bool:
        """True between `hold_back` and `let_go`."""
        return self._held

    def hold_back(self) -> None:
        """Lets frames wait for those that follow soon, so that they travel together: each segment wakes the peer.

        A long record, or one that finds no buffer, ends that.
        """
        self._held = True

    def let_go(self) -> None:
        """Sends what was held back, and holds back no more."""
        if self._held:
            self._held = False
            self.flush()

    def take(self) -> list[Event | Trouble]:
        """Delivers what has come already, and waits for nothing; returns the events."""
        return self.make(self._take, None)

    def write_rest(self) -> list[Event | Trouble]:
        """Lets the sinks without a descriptor take what waits for them, after the exit frame."""
        found: list[Event | Trouble] = []
        self.sinks.write_pending({}, found)
        return found

    def write_out(self) -> list[Event | Trouble]:
        """Waits for the sinks and writes pending bytes, after the exit frame; the connection no longer matters."""
        found: list[Event | Trouble] = []
        ready = self.sinks.write_out(self._watched, found)
        self.ready = {fd for fd in self._watched if fd in ready}
        return found

    def say_goodbye(self) -> None:
        """Sends the session's last frames as far as the peer still takes them, and hangs up."""
        try:
            self.flush()
        except DisconnectedError:
            pass
        self.connection.close()

    def close_sink(self, stream: int) -> None:
        """Closes a sink before the end of its stream, and tells the peer that nobody reads."""
        self.sinks.close(stream)

    def close_source(self, stream: int) -> None:
        """Reads no more from this source."""
        source = self.sources.pop(stream, None)
        if source is not None:
            source.close()

    # waiting

    def _wait(self, seconds: float, now: float) -> dict[int, int]:
        for stream, source in self.sources.items():
            if source.later and (rest := source.rests_until()):
                seconds = min(seconds, rest - now)
            if source.fd < 0 and not source.idle and self._may_read(stream):
                seconds = 0.0  # poll cannot wait for a source without a descriptor
        return self.poll_set.wait(self.wanted(), seconds)

    def wanted(self) -> dict[int, int]:
        """Returns the descriptors that the next step waits for, with their poll masks."""
        wanted = dict(self._watched)
        if self._gone is None:
            wanted[self._fd] = IN | OUT if self.wants_out else IN
        if self.records.has_room and not self._deaf:
            sendable = self.session.sendable
            for stream, source in self.sources.items():
                # A source without credit is left out, not registered with an empty mask: poll always reports a hang-up,
                # and a pipe whose writer has gone would wake us again and again.
                fd = source.fd
                if fd >= 0 and not source.later and sendable(stream) >= LEAST_CREDIT:
                    wanted[fd] = wanted.get(fd, 0) | IN
        for stream in self.sinks.pending:
            fd = self.sinks[stream].fd
            if fd >= 0:
                wanted[fd] = wanted.get(fd, 0) | OUT
        return wanted

    def _may_read(self, stream: int) -> bool:
        """True if a record of this stream can be made now."""
        return self.session.sendable(stream) >= LEAST_CREDIT and self.records.has_room and not self._deaf

    # from the connection to the sinks

    def receive(self, found: list[Event | Trouble]) -> bool:
        """Reads the connection until it is empty, at most RECEIVE_TURNS times: the sinks and sources wait meanwhile.

        Returns True if it is empty.
        """
        records = self.records
        for _ in range(RECEIVE_TURNS):
            buffer = records.receive_buffer()
            try:
                size = self.connection.recv_into(buffer)
            except (BlockingIOError, InterruptedError):
                return True
            except OSError as error:
                raise DisconnectedError(f"disconnected unexpectedly: {reason_of(error)}") from None
            if size == 0:
                where = "" if self.records.at_record_boundary else " in the middle of a record"
                raise DisconnectedError(f"disconnected unexpectedly{where}")
            records.received(size)
            self.whole = self._take_frames(found)
            if not self.whole:
                self.note_part(size)
            if size < len(buffer):
                return True  # another recv would only say so
            self.flush()  # sends new credit now, so that the peer does not pause while we go on reading
        return False

    def note_part(self, size: int) -> None:
        """Tells the session if the last `size` bytes of the peer end in the middle of a record."""
        if not self.records.at_record_boundary:
            self.session.silence.part_received(size, self.records.empty_size, monotonic())

    def _take_frames(self, found: list[Event | Trouble]) -> bool:
        """Takes all frames that have come; returns True if no part of another record has."""
        session, records, deliver = self.session, self.records, self.sinks.deliver
        now = monotonic()
        while (frame := records.next_event()) is not None:
            if frame[0] == frames.DATA and (stream := session.take_data(frame, now)) >= 0:
                deliver(stream, frame[FRAME_HEADER:], found)
            else:
                session.receive_data(frame, now)
                if session.events:
                    self._take_events(found)
            if records.at_record_boundary:
                return True
        return records.at_record_boundary

    def _take(self, _: None, found: list[Event | Trouble]) -> None:
        self._take_events(found)
        self._take_frames(found)

    def _take_events(self, found: list[Event | Trouble]) -> None:
        events = self.session.events
        while events:
            event = events.pop(0)
            if event.kind == frames.DATA:
                self.sinks.deliver(event.stream, event.data, found)
                continue
            if event.kind == frames.END:
                self.sinks.end(event.stream)
            elif event.kind == frames.CLOSED:
                source = self.sources.pop(event.stream, None)
                if source is not None:
                    source.abandon()
            elif event.kind == frames.GO:
                self.sinks.begin_ahead()
            found.append(event)

    # from the sources to the connection

    def read_source(self, stream: int, source: Source, found: list[Event | Trouble], mask: int) -> None:
        """Sends the bytes of a source until it has none, or credit or buffers have run out.  `mask`: of poll."""
        if not mask & (IN | select.POLLERR) and source.ends_with_hangup:
            self._end_source(stream, source, found)
            return
        records, session = self.records, self.session
        few = source.few
        while not self._deaf and (room := session.sendable(stream)) >= LEAST_CREDIT:
            buffer = (memoryview(bytearray(FEW)) if records.has_room else None) if few else records.data_buffer()
            if buffer is None:
                return  # there is no room for a record
            if room < len(buffer):
                buffer = buffer[:room]
            try:
                size = source.read_into(buffer)
            except OSError as error:
                session.broken(stream, reason_of(error))
                self.close_source(stream)
                found.append(Trouble(stream, False, error.errno or 0))
                return
            if not size:
                if size == 0:
                    self._end_source(stream, source, found)
                return
            head = session.data_head(stream, size)
            if not few and not self._held and records.all_sent:
                self._send_at_once(records.seal_data(head, size))
            else:
                if few:
                    records.send_frame(head + bytes(buffer[:size]))
                else:
                    records.send_data(head, size)
                if self._held and (size > SHORT_DATA or not records.has_room):
                    self._held = False
                self._send()  # after each record, so that the kernel sends it while we read the next one
            if size < len(buffer) and not few:
                return  # the source is empty for now: another read would only say so

    def _send_at_once(self, record: memoryview) -> None:
        """Sends a record of `seal_data`."""
        try:
            size = self.connection.send(record)
        except (BlockingIOError, InterruptedError):
            size = 0
        except OSError:
            size, self._deaf = 0, True  # see `_send`
        if size < len(record):
            self.records.keep(record[size:])

    def _end_source(self, stream: int, source: Source, found: list[Event | Trouble]) -> None:
        if source.hung_up:
            self.close_sink(stream)  # before the end: so the peer tells a hang-up from a half-close
        self.session.end(stream)
        self.close_source(stream)
        found.append(Event(frames.END, stream=stream))

    def flush(self) -> None:
        """Sends as much as the kernel takes now, unless frames are held back.

        The session's frames share a record with those that wait already: each record that is sent wakes the peer.
        """
        records, session = self.records, self.session
        if session.wants_to_send:
            if records.congested:
                self._send()
            if not records.congested:  # else they wait in the session, where their number is bounded
                for frame in session.data_to_send():
                    records.send_frame(frame)
        if not records.all_sent:
            self._send()

    def _send(self) -> None:
        while not self._deaf and not self._held and (outgoing := self.records.data_to_send()):
            try:
                size = self.connection.sendmsg(outgoing[:MAXIMUM_BUFFERS])
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                # No error yet: bytes that the peer sent before it hung up may still be unread, and may tell the reason.
                self._deaf = True
                return
            self.records.data_sent(size)
            if not outgoing:
                return


def _copy(error: CexecError) -> CexecError:
    """Returns the same error without its traceback.

    The frames of a traceback hold the pump.  A pump that holds them in turn would keep the keys and the buffers of its
    connection until the garbage collector finds the cycle.
    """
    copy = error.__class__.__new__(error.__class__)
    copy.args = error.args
    return copy
