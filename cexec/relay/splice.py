"""Two TCP connections joined to one.

Contract: `Splice` moves bytes between its two ends.  It reads only what the other end has room for, so a slow reader
slows the writer, as on one connection.  The end of one direction ends that direction only.  A reset, or a machine that
does not answer any more, resets the other end after the bytes that came before it were delivered; it never looks like a
clean end.  The caller calls `advance` when a descriptor is ready for what `masks` asks or is hung up, and
`handle_timeout` when `next_timeout` has come.  `ending` says how the splice ended, or is empty.  docs/protocol.md
section 6.3.

    state of a flow  its source     its target                             after
    OPEN             may send more  takes what is buffered                 the connection
    OVER             sends no more  takes what is buffered still           the source ended its direction, or is lost
    ENDED            sends no more  has been told of the end, or is lost   all was delivered, or the target is lost
"""

from __future__ import annotations

import _socket
import select
import sys
from typing import TYPE_CHECKING

from cexec.errors import DisconnectedError
from cexec.net.liveness import Liveness
from cexec.relay.buffers import MemoryBuffer
from cexec.system.reason import reason_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cexec.relay.buffers import Buffer, Buffers

CLOSED = "closed"  # how a splice ended when nothing went wrong
BURST = 4 * 1024 * 1024  # bytes (ours) of one direction before the others have their turn
RESET_DEADLINE = 15.0  # seconds (ours) that delivery of the bytes before a reset may take
FIRST_LOOK, LONGEST_LOOK = 0.005, 0.5  # seconds (ours) between two looks at that delivery
OPEN, OVER, ENDED = "open", "over", "ended"
_FLOW_TRANSITIONS = {OPEN: (OVER, ENDED), OVER: (ENDED,), ENDED: (ENDED,)}
_HUNG = select.POLLERR | select.POLLHUP | select.POLLNVAL
_SIOCOUTQ = 0x5411  # <linux/sockios.h>: bytes that the peer has not acknowledged
_LINGER = (1).to_bytes(4, sys.byteorder) + bytes(4)  # struct linger: on, and for no time


def reset(connection: _socket.socket) -> None:
    """Closes a connection so that its peer sees that it was cut off."""
    try:
        connection.setsockopt(_socket.SOL_SOCKET, _socket.SO_LINGER, _LINGER)
    except OSError:
        pass  # it is gone already
    connection.close()


class _End:
    """One of the two connections; `name` is the word for its peer in log lines."""

    __slots__ = ("connection", "hung", "liveness", "lost", "name")

    def __init__(self, name: str, connection: _socket.socket) -> None:
        self.name = name
        self.connection = connection
        self.liveness = Liveness(connection)
        self.lost = ""  # why it is lost: nothing can be sent, and only bytes that the kernel has already can come
        self.hung = False  # the kernel reports that both directions have ended

    def fail(self, error: OSError) -> None:
        """Keeps the error, because the kernel reports it once and the next read may look like a clean end."""
        self.lost = self.lost or reason_of(error)

    def look_for_error(self) -> bool:
        number = self.connection.getsockopt(_socket.SOL_SOCKET, _socket.SO_ERROR)
        if number:
            self.lost = self.lost or reason_of(number)
        return bool(self.lost)

    def delivered(self) -> bool:
        """True if its peer's machine has acknowledged all that was sent."""
        if sys.platform != "linux":
            return True
        from fcntl import ioctl

        try:
            return not any(ioctl(self.connection.fileno(), _SIOCOUTQ, bytes(4)))
        except OSError:
            return True  # no connection any more


class _Flow:
    """One direction; `count` bytes of it have been delivered to the target's kernel."""

    __slots__ = ("buffer", "count", "source", "state", "target")

    def __init__(self, source: _End, target: _End, buffer: Buffer | None = None) -> None:
        self.source = source
        self.target = target
        self.buffer = buffer
        self.count = 0
        self.state = OPEN

    def move(self, state: str) -> None:
        """The only place that changes the state."""
        if state not in _FLOW_TRANSITIONS[self.state]:
            raise ValueError(f"a flow that is {self.state} cannot become {state}")
        self.state = state


class Splice:
    """The connections from a worker and to its client; `head` was read from the worker already."""

    __slots__ = ("_buffers", "_ends", "_flows", "_interval", "_look", "_reset_by", "ending")

    def __init__(self, worker: _socket.socket, client: _socket.socket, head: bytes, buffers: Buffers) -> None:
        first, second = _End("worker", worker), _End("client", client)
        self._ends = (first, second)
        self._flows = (_Flow(first, second, MemoryBuffer(head) if head else None), _Flow(second, first))
        self._buffers = buffers
        self._reset_by: float | None = None  # when the other end is reset, delivered or not
        self._look, self._interval = 0.0, FIRST_LOOK
        self.ending = ""

    @property
    def counts(self) -> tuple[int, int]:
        """Bytes that were passed on to the client, and to the worker."""
        return self._flows[0].count, self._flows[1].count

    def masks(self) -> dict[int, int]:
        """Returns the poll mask of each descriptor; 0 waits for a hang-up only."""
        if self.ending:
            return {}
        masks = {end.connection.fileno(): 0 for end in self._ends if not (end.lost or end.hung)}
        for flow in self._flows:
            end, mask = (flow.source, select.POLLIN) if flow.buffer is None else (flow.target, select.POLLOUT)
            if end.connection.fileno() in masks and (flow.state == OPEN or mask == select.POLLOUT):
                masks[end.connection.fileno()] |= mask
        return masks

    def advance(self, events: Mapping[int, int], now: float) -> None:
        """Moves bytes; `events` names the descriptors that are ready, and without any both directions are tried."""
        if self.ending:
            return
        for flow in self._flows:
            end = flow.target
            if events.get(end.connection.fileno(), 0) & _HUNG:
                end.hung = True
                if not end.look_for_error() and flow.state != ENDED:
                    end.lost = "connection reset by peer"  # its error has been told already
        for flow in self._flows:
            if not events or any(end.connection.fileno() in events for end in (flow.source, flow.target)):
                self._move(flow, now)
        if any(end.lost or end.hung for end in self._ends):  # of those no event comes any more
            self._finish_moving(now)
        self._conclude(now)

    def next_timeout(self) -> float | None:
        if self._reset_by is not None:
            return self._look
        return min((due for end in self._ends if (due := end.liveness.next_timeout()) is not None), default=None)

    def handle_timeout(self, now: float) -> None:
        if self.ending:
            return
        for end in self._ends:
            try:
                end.liveness.handle_timeout(now)
            except DisconnectedError:
                end.lost = end.lost or "machine does not answer"
                self._finish_moving(now)
        self._conclude(now)

    def cut(self, ending: str) -> None:
        """Resets both connections at once."""
        if self.ending:
            return
        self.ending = ending
        for flow in self._flows:
            self._drop(flow)
        for end in self._ends:
            reset(end.connection)

    def _finish_moving(self, now: float) -> None:
        """Discards what is meant for a lost end, and moves on what came from it before it was lost."""
        for _ in range(2):  # what fails in the second direction may leave something to read for the first
            for flow in self._flows:
                self._give_up_writing()
                self._move(flow, now)
        self._give_up_writing()

    def _move(self, flow: _Flow, now: float) -> None:
        left = BURST
        while flow.state != ENDED:
            if flow.buffer is not None:
                if not self._drain(flow, flow.buffer, now):
                    return
            elif flow.state == OVER:
                if not flow.source.lost:
                    self._tell(flow, now)
                return
            elif left <= 0 and not (flow.source.lost or flow.source.hung):
                return
            else:
                filled = self._fill(flow)
                if filled is None:
                    return
                left -= filled

    def _fill(self, flow: _Flow) -> int | None:
        """Returns how many bytes came, 0 at the end of the direction, None if nothing has come yet."""
        buffer = self._buffers.take()
        filled: int | None = 0
        try:
            filled = buffer.fill(flow.source.connection)
        except OSError as error:
            flow.source.fail(error)
        if filled:
            flow.buffer = buffer
            return filled
        self._buffers.give_back(buffer)
        if filled is None and not (flow.source.lost or flow.source.hung):
            return None
        flow.move(OVER)
        return 0

    def _drain(self, flow: _Flow, buffer: Buffer, now: float) -> bool:
        """Returns True if the buffer is empty now and was given back."""
        flow.target.liveness.stepped(now)
        while buffer.held:
            try:
                drained = buffer.drain(flow.target.connection)
            except OSError as error:
                flow.target.fail(error)
                return False
            if not drained:
                return False
            flow.count += drained
        self._drop(flow)
        return True

    def _tell(self, flow: _Flow, now: float) -> None:
        """Ends the direction at the target, as the source has ended it."""
        flow.move(ENDED)
        flow.target.liveness.stepped(now)
        try:
            flow.target.connection.shutdown(_socket.SHUT_WR)
        except OSError as error:
            flow.target.fail(error)

    def _give_up_writing(self) -> None:
        for flow in self._flows:
            if flow.target.lost:
                self._drop(flow)
                flow.move(ENDED)

    def _drop(self, flow: _Flow) -> None:
        if flow.buffer is not None:
            self._buffers.give_back(flow.buffer)
            flow.buffer = None

    def _conclude(self, now: float) -> None:
        """Closes the ends if both directions have ended, or resets them if one end is lost and delivery is done."""
        if not any(end.lost for end in self._ends):
            if not all(flow.state == ENDED for flow in self._flows):
                return
            if not any([end.look_for_error() for end in self._ends]):
                self.ending = CLOSED
                for end in self._ends:
                    end.connection.close()
                return
        gone = next(end for end in self._ends if end.lost)
        onward = next(flow for flow in self._flows if flow.source is gone)
        if self._reset_by is None:
            self._reset_by = now + RESET_DEADLINE
        passed_on = onward.state == ENDED or (onward.state == OVER and onward.buffer is None)
        if onward.target.lost or now >= self._reset_by or (passed_on and onward.target.delivered()):
            self.cut(f"{gone.name}: {gone.lost}")
            return
        self._look = now + self._interval
        self._interval = min(2 * self._interval, LONGEST_LOOK)
