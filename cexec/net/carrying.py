"""Carries bytes on and on, without the pump's owner: the way for small messages.

Contract: `carry(pump, timeout)` is a step of the pump that goes on for up to CARRIED seconds while bytes of streams are
all that comes; it is for an owner that has nothing to do after each of them.

`is_steady(pump)` is true if the next wait is for the connection and for all sources, and nothing is left to be sent or
written.  Then `go_on` does what as many exchanges of the pump would do, until something else is to be waited for, an
event has come, or the time is over.  What it saves is what an exchange does to find out what to wait for, which takes
as long as all else in it.  And where answers come quickly, it does not go to sleep before the next one (`ShortWaits`).
"""

from __future__ import annotations

from math import inf
from time import monotonic

from cexec.protocol.connection.streams import LEAST_CREDIT
from cexec.system.io.short_waits import ShortWaits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cexec.net.pump import Pump
    from cexec.net.sinks import Trouble
    from cexec.protocol.connection.session import Event

CARRIED = 1.0  # seconds (ours) of `carry`, after which the owner looks if the peer is alive and does what is due


def carry(pump: Pump, timeout: float | None = None) -> list[Event | Trouble]:
    """Waits for at most `timeout` seconds, None for any time, and moves bytes; returns the events."""
    return pump.make(lambda seconds, found: _carry(pump, seconds, found), timeout)


def _carry(pump: Pump, timeout: float | None, found: list[Event | Trouble]) -> None:
    end = inf if timeout is None else monotonic() + timeout
    moves = pump.begin(timeout, found)
    end = min(end, monotonic() + CARRIED)
    while moves and not found and not pump.ready and (left := end - monotonic()) > 0:
        moves = go_on(pump, end, found) if is_steady(pump) else pump.exchange(left, found)


def is_steady(pump: Pump) -> bool:
    """True if `go_on` may be called."""
    if pump.sinks.pending or pump.held or not pump.records.all_sent or not pump.records.at_record_boundary:
        return False
    sendable = pump.session.sendable
    return all(
        source.fd >= 0 and not source.later and sendable(stream) >= LEAST_CREDIT
        for stream, source in pump.sources.items()
    )


def _waits(pump: Pump) -> ShortWaits:
    """Returns the waits of a pump, which remember how short those before were, for the descriptors of today."""
    poll = pump.poll_set.prepared(pump.wanted())
    if pump.short_waits is None:
        pump.short_waits = ShortWaits(poll)
    pump.short_waits.poll = poll
    return pump.short_waits


def go_on(pump: Pump, until: float, found: list[Event | Trouble]) -> bool:
    """Exchanges.  `until`: of monotonic().  Returns False if nothing came in the last wait."""
    connection, session, records = pump.connection.fileno(), pump.session, pump.records
    pending, outgoing = pump.sinks.pending, session.outgoing
    sources = {source.fd: (stream, source) for stream, source in pump.sources.items()}
    wait = _waits(pump).wait
    until = min(until, session.next_timeout())
    steady, ready = True, None
    while steady and (left := until - monotonic()) > 0:
        ready = wait(left)
        pump.read_all = True
        for fd, mask in ready:
            if fd == connection:
                pump.read_all = pump.receive(found)
                if found or pending or not pump.whole:
                    steady = False
                if session.wants_to_send:
                    pump.flush()
            elif fd in sources:
                stream, source = sources[fd]
                pump.read_source(stream, source, found, mask)
                if found or source.fd != fd or source.later or outgoing[stream].credit < LEAST_CREDIT:
                    steady = False
            else:
                pump.ready.add(fd)
                steady = False
        if not records.all_sent:
            steady = False
    pump.flush()
    return bool(ready)
