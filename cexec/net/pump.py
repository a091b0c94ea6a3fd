"""The pump: carries bytes between one connection and the descriptors of one job, for both sides.

Contract: `step(timeout)` waits at most so long for something to happen, moves what can be moved, and returns the events
that are not about stream data: the session's (`session.Event`), and `Trouble` for what went wrong with a descriptor.
It never blocks elsewhere, holds at most one credit window for each stream, and raises `ProtocolError`,
`SilentPeerError` and `DisconnectedError` only, after it has returned all events that came before the failure.
`records` and `session` are handed in; nothing calls back.
"""

from __future__ import annotations

import _socket
import errno
import select
from time import monotonic

from cexec.errors import CexecError, DisconnectedError
from cexec.protocol.connection import frames
from cexec.protocol.connection.session import Event
from cexec.system.io.wakeup import poll_timeout
from cexec.system.reason import reason_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cexec.protocol.connection.channel import Records
    from cexec.protocol.connection.session import Session
    from cexec.system.io.fds import Sink, Source

IN, OUT = select.POLLIN, select.POLLOUT
BROKEN_PIPE = (errno.EPIPE, errno.ECONNRESET)  # a reader that has gone: no failure, section 4.3
MAXIMUM_BUFFERS = 64  # (ours) in one sendmsg
RECEIVE_TURNS = 4  # (ours) times that the connection is read before the others are looked at again
# Bytes (ours): with less credit than this no record is made, for the peer gives more before its window is used up.
LEAST_CREDIT = 64 * 1024


class Trouble:
    """A descriptor of ours failed: stream number, whether in writing to it, and errno."""

    __slots__ = ("error", "stream", "writing")

    def __init__(self, stream: int, writing: bool, error: int) -> None:
        self.stream = stream
        self.writing = writing
        self.error = error


class Pump:
    """One connection and its streams.  `ready` holds the watched descriptors that were readable in the last step."""

    def __init__(self, connection: _socket.socket, records: Records, session: Session) -> None:
        self.connection = connection
        self.records = records
        self.session = session
        self.sources: dict[int, Source] = {}
        self.sinks: dict[int, Sink] = {}
        self.ready: set[int] = set()
        self._watched: dict[int, int] = {}
        self._pending: dict[int, bytearray] = {}  # what a sink could not take yet
        self._ended: set[int] = set()  # sinks whose stream has ended: closed when nothing is pending
        self._fd = connection.fileno()
        self._poll = select.poll()
        self._masks: dict[int, int] = {}
        self._deaf = False  # the peer takes no more; what it had sent before is still to be read
        self._gone: CexecError | None = None  # why nothing more will come from the peer

    def watch(self, fd: int) -> None:
        """Also wait for this descriptor to become readable."""
        self._watched[fd] = IN

    def unwatch(self, fd: int) -> None:
        self._watched.pop(fd, None)

    @property
    def drained(self) -> bool:
        """Whether every byte that was received has been written."""
        return not self._pending

    @property
    def flushed(self) -> bool:
        """Whether the kernel has taken everything that is to be sent."""
        return not self.records.data_to_send()

    def step(self, timeout: float | None = None) -> list[Event | Trouble]:
        """Waits for at most `timeout` seconds, and moves what can be moved."""
        found: list[Event | Trouble] = []
        if self._gone is None:
            try:
                self._step(timeout, found)
            except CexecError as error:
                self._gone = error  # what came before it counts: an EXIT, for example
        if self._gone is not None and not found:
            raise self._gone
        return found

    def _step(self, timeout: float | None, found: list[Event | Trouble]) -> None:
        self._take_frames(found)  # what came with the handshake, or was left by the last step
        self._flush()
        ready = self._wait(0.0 if found else timeout)
        self.ready = {fd for fd in self._watched if fd in ready}
        if ready.get(self._fd, 0) & ~OUT:
            self._receive(found)
        if self._pending:
            self._write_sinks(ready, found)
        for stream, source in list(self.sources.items()):
            if source.fd < 0 or source.fd in ready:
                self._read_source(stream, source, found)
        now = monotonic()
        if now >= self.session.next_timeout():
            self.session.handle_timeout(now)
        self._flush()

    def flush(self) -> None:
        """Sends what can be sent now."""
        self._flush()

    def write_out(self) -> list[Event | Trouble]:
        """After the exit frame: only writes what was received, whatever becomes of the connection."""
        found: list[Event | Trouble] = []
        poll = select.poll()
        for fd in self._watched:
            poll.register(fd, IN)
        for stream in self._pending:
            poll.register(self.sinks[stream].fd, OUT)
        ready = dict(poll.poll())
        self.ready = {fd for fd in self._watched if fd in ready}
        self._write_sinks(ready, found)
        return found

    def say_goodbye(self) -> None:
        """Sends the session's last frames as far as the peer still takes them, and hangs up."""
        try:
            self._flush()
        except DisconnectedError:
            pass
        self.connection.close()

    def close_sink(self, stream: int) -> None:
        """Nobody reads this stream here any more."""
        sink = self.sinks.pop(stream, None)
        if sink is not None:
            self._pending.pop(stream, None)
            self._ended.discard(stream)
            self.session.close_reader(stream)
            sink.close()

    def close_source(self, stream: int) -> None:
        """Nothing more is read from this descriptor."""
        source = self.sources.pop(stream, None)
        if source is not None:
            source.close()

    # waiting

    def _wait(self, timeout: float | None) -> dict[int, int]:
        wanted = self.wanted()
        if wanted != self._masks:
            for fd in self._masks.keys() - wanted.keys():
                self._poll.unregister(fd)
            for fd, mask in wanted.items():
                self._poll.register(fd, mask)
            self._masks = wanted
        if any(source.fd < 0 and self._may_read(stream) for stream, source in self.sources.items()):
            timeout = 0.0  # a source without a descriptor is always ready
        limit = self.session.next_timeout() - monotonic()
        seconds = limit if timeout is None else min(timeout, limit)
        return dict(self._poll.poll(poll_timeout(seconds)))

    def wanted(self) -> dict[int, int]:
        """What the next step waits for: descriptor -> poll mask."""
        wanted = dict(self._watched)
        if self._gone is None:
            wanted[self._fd] = IN if self._deaf or not self.records.data_to_send() else IN | OUT
        for stream, source in self.sources.items():
            # One without credit is not asked for at all: a pipe whose writer has gone would wake us again and again.
            if source.fd >= 0 and self._may_read(stream):
                wanted[source.fd] = wanted.get(source.fd, 0) | IN
        for stream in self._pending:
            fd = self.sinks[stream].fd
            wanted[fd] = wanted.get(fd, 0) | OUT
        return wanted

    def _may_read(self, stream: int) -> bool:
        """Whether a record of this stream can be made now."""
        return self.session.sendable(stream) >= LEAST_CREDIT and self.records.has_room and not self._deaf

    # from the connection to the sinks

    def _receive(self, found: list[Event | Trouble]) -> None:
        """What is there to be read, but not for ever: others wait too."""
        for _ in range(RECEIVE_TURNS):
            buffer = self.records.receive_buffer()
            try:
                size = self.connection.recv_into(buffer)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                raise DisconnectedError(f"disconnected unexpectedly: {reason_of(error)}") from None
            if size == 0:
                where = "" if self.records.at_record_boundary else " in the middle of a record"
                raise DisconnectedError(f"disconnected unexpectedly{where}")
            self.records.received(size)
            self._take_frames(found)
            if size < len(buffer):
                return
            self._flush()  # credit, so that the peer need not wait until we have finished here

    def _take_frames(self, found: list[Event | Trouble]) -> None:
        while (frame := self.records.next_event()) is not None:
            self.session.receive_data(frame, monotonic())
            while (event := self.session.next_event()) is not None:
                self._handle(event, found)

    def _handle(self, event: Event, found: list[Event | Trouble]) -> None:
        stream = event.stream
        if event.kind == frames.DATA:
            self._deliver(stream, event.data, found)
        elif event.kind == frames.END:
            if stream in self._pending:
                self._ended.add(stream)
            elif stream in self.sinks:
                self.sinks.pop(stream).close()
            found.append(event)
        elif event.kind == frames.CLOSED:
            source = self.sources.pop(stream, None)
            if source is not None:
                source.abandon()
            found.append(event)
        else:
            found.append(event)

    def _deliver(self, stream: int, data: memoryview, found: list[Event | Trouble]) -> None:
        if stream not in self.sinks:
            self.session.consumed(stream, len(data))  # its sink failed, and the peer has been told
            return
        if stream not in self._pending:
            data = data[self._write(stream, data, found) :]
        if len(data) and stream in self.sinks:
            self._pending.setdefault(stream, bytearray()).extend(data)

    def _write(self, stream: int, data: memoryview, found: list[Event | Trouble]) -> int:
        """Writes what the sink takes; a failed sink is closed and told."""
        done = 0
        try:
            while done < len(data):
                size = self.sinks[stream].write(data[done:])
                if not size:
                    break
                done += size
        except OSError as error:
            self.session.consumed(stream, done)
            self.close_sink(stream)
            found.append(Trouble(stream, True, error.errno or 0))
            return len(data)
        if done:
            self.session.consumed(stream, done)
        return done

    def _write_sinks(self, ready: dict[int, int], found: list[Event | Trouble]) -> None:
        for stream in [stream for stream in self._pending if self.sinks[stream].fd in ready]:
            pending = self._pending[stream]
            with memoryview(pending) as data:
                done = self._write(stream, data, found)
            del pending[:done]
            if not pending and stream in self.sinks:
                del self._pending[stream]
                if stream in self._ended:
                    self._ended.discard(stream)
                    self.sinks.pop(stream).close()
                    found.append(Event(frames.END, stream=stream))  # again: now it has been written too

    # from the sources to the connection

    def _read_source(self, stream: int, source: Source, found: list[Event | Trouble]) -> None:
        """As much as is there and the peer will take, which its credit bounds."""
        while self._may_read(stream):
            buffer = self.records.data_buffer()
            room = self.session.sendable(stream)
            assert buffer is not None
            if room < len(buffer):
                buffer = buffer[:room]
            try:
                size = source.read_into(buffer)
            except OSError as error:
                self.session.broken(stream, reason_of(error))
                self.close_source(stream)
                found.append(Trouble(stream, False, error.errno or 0))
                return
            if not size:
                if size == 0:
                    if source.hung_up:
                        self.close_sink(stream)  # said first: then the peer knows that this is more than a half-close
                    self.session.end(stream)
                    self.close_source(stream)
                    found.append(Event(frames.END, stream=stream))
                return
            self.records.send_data(self.session.data_head(stream, size), size)
            self._send()
            if size < len(buffer):
                return

    def _flush(self) -> None:
        self._send()
        if not self.records.congested:  # else the frames wait in the session, where their number is bounded
            for frame in self.session.data_to_send():
                self.records.send_frame(frame)
            self._send()

    def _send(self) -> None:
        while not self._deaf and (outgoing := self.records.data_to_send()):
            try:
                size = self.connection.sendmsg(outgoing[:MAXIMUM_BUFFERS])
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                # What the peer sent before it left is still to be read: its last words may be the reason.
                self._deaf = True
                return
            self.records.data_sent(size)
