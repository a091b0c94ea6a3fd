"""Received bytes on their way into the sinks of a job: what a sink does not take at once waits here.

Contract: `JobSinks` maps the streams of a job to their sinks.  It writes what has come, in its order, and tells the
session how many bytes are done with, so that the peer gets new credit.  At most one credit window waits for a stream.
A sink is closed at the end of its stream, as soon as it has taken all bytes; one that fails is closed at once, and
reported as `Trouble`.  docs/protocol.md section 4.3.

Most of the CPU time of a transfer's receiver is spent in `deliver` and `_write`, which therefore copy no byte unless a
sink takes less than it is given.
"""

from __future__ import annotations

import select

from cexec.protocol.connection import frames
from cexec.protocol.connection.session import Event
from cexec.system.io.fds import Sink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cexec.protocol.connection.session import Session


class Trouble:
    """A descriptor of ours failed.  `writing`: it was written to, else read; `error`: errno."""

    __slots__ = ("error", "stream", "writing")

    def __init__(self, stream: int, writing: bool, error: int) -> None:
        self.stream = stream
        self.writing = writing
        self.error = error


class JobSinks(dict[int, Sink]):
    """The sinks, by stream.  `pending` has the bytes that wait for them, and no stream without such bytes.

    `prepared` are the sinks of the job that was given in advance, for when it begins.
    """

    __slots__ = ("_ended", "_session", "pending", "prepared")

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.prepared: dict[int, Sink] = {}
        self._session = session
        self.pending: dict[int, bytearray] = {}  # by stream
        self._ended: set[int] = set()  # streams that have ended while bytes were pending: their sinks close after those

    def forget(self) -> None:
        """Forgets the sinks of a job that is over, with all that waits for them."""
        self.clear()
        self.pending.clear()
        self._ended.clear()

    def begin_ahead(self) -> None:
        """The job that was given in advance begins."""
        if self.prepared:
            self.clear()
            self.update(self.prepared)
            self.prepared = {}

    def deliver(self, stream: int, data: memoryview, found: list[Event | Trouble]) -> None:
        """Writes bytes that have come, and keeps what the sink does not take."""
        sink = self.get(stream)
        if sink is None:
            self._session.consumed(stream, len(data))  # the sink is closed, but the credit must go back
            return
        if stream not in self.pending:  # else the bytes would overtake those that wait
            done = self._write(stream, sink, data, found)
            if done == len(data):
                return
            data = data[done:]
        self.pending.setdefault(stream, bytearray()).extend(data)

    def end(self, stream: int) -> None:
        """No more bytes will come for this stream."""
        if stream in self.pending:
            self._ended.add(stream)
        elif stream in self:
            self.pop(stream).close()

    def close(self, stream: int) -> None:
        """Closes a sink before the end of its stream, and tells the peer that nobody reads."""
        sink = self.pop(stream, None)
        if sink is not None:
            self.pending.pop(stream, None)
            self._ended.discard(stream)
            self._session.close_reader(stream)
            sink.close()

    def write_pending(self, ready: dict[int, int], found: list[Event | Trouble]) -> None:
        """Writes on where poll says that a sink takes bytes again, and where there is no descriptor to be polled."""
        for stream in [stream for stream in self.pending if self[stream].fd in ready or self[stream].fd < 0]:
            pending = self.pending[stream]
            with memoryview(pending) as data:
                done = self._write(stream, self[stream], data, found)
            del pending[:done]  # cheap: a bytearray only moves its start
            if not pending and stream in self:
                del self.pending[stream]
                if stream in self._ended:
                    self._ended.discard(stream)
                    self.pop(stream).close()
                    found.append(Event(frames.END, stream=stream))  # a second time: now all bytes are written, too

    def write_out(self, watched: dict[int, int], found: list[Event | Trouble]) -> dict[int, int]:
        """Waits for the sinks and the watched descriptors, and writes on; returns what poll said."""
        poll = select.poll()
        for fd, mask in watched.items():
            poll.register(fd, mask)
        for stream in self.pending:
            poll.register(self[stream].fd, select.POLLOUT)
        ready = dict(poll.poll())
        self.write_pending(ready, found)
        return ready

    def _write(self, stream: int, sink: Sink, data: memoryview, found: list[Event | Trouble]) -> int:
        """Writes until the sink takes no more; returns the number of bytes that are done with.

        A sink that fails is closed and reported, and all its bytes are done with.
        """
        done, whole = 0, len(data)
        try:
            done = size = sink.write(data)
            while done < whole and size:
                size = sink.write(data[done:])
                done += size
        except OSError as error:
            self._session.consumed(stream, done)
            self.close(stream)
            found.append(Trouble(stream, True, error.errno or 0))
            return whole
        if done:
            self._session.consumed(stream, done)
        return done
