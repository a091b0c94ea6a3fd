"""One attempt of a job on one worker: its states, and the meaning of everything that happens to it.

This is the only place that knows the meaning of the session's events for a client.  The three drivers (`blocking`,
`everywhere`, `aio`) wait and move bytes; they pass what happens to an `Attempt` and do what its events say.

Contract: a machine without I/O.  In: `receive` takes the events of the pump, `connection_failed` the error that ended
the connection, `failed_here` an error of ours, and `looked` the kernel's knowledge of the peer, which the driver asks
for when `stepped(now)` is true.  Out: `next_event()` returns one of the event classes below or in `rare_events`, oldest
first.  `once` is true if a job that may have begun must never be repeated. docs/protocol.md sections 4.4 and 7.

    state       entered when                                  may be followed by
    GIVEN       GO has been sent                              RUNNING, REFUSED, WITHDRAWN, LOST, FAILED
    RUNNING     the worker has said STARTED                   ENDED, LOST, FAILED
    ENDED       an authenticated EXIT has come                FAILED: what was received could not be written here
    REFUSED     the worker has not started the program        -
    WITHDRAWN   it took its offer back, or returned the job   -
    LOST        the connection or the worker has failed       -
    FAILED      a descriptor or a file of ours has failed     -

An end is final: later frames of the worker are not about this attempt.  So a complete result stays complete, and a
refused job is not lost as well.
"""

from __future__ import annotations

from cexec.client.attempt.descriptors import name_of
from cexec.common_errors import CexecError, DisconnectedError, LocalError
from cexec.net.pump import BROKEN_PIPE, Trouble
from cexec.protocol.connection import frames
from cexec.protocol.connection.silence import HostSilence

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from cexec.client.attempt.patience import Patience
    from cexec.protocol.connection.frames import Exit
    from cexec.protocol.connection.session import Event

GIVEN, RUNNING = "given", "running"
ENDED, REFUSED, WITHDRAWN, LOST, FAILED = "ended", "refused", "withdrawn", "lost", "failed"
LIVE = (GIVEN, RUNNING)  # the states of an attempt that has not ended
TRANSITIONS = {
    GIVEN: (RUNNING, REFUSED, WITHDRAWN, LOST, FAILED),
    RUNNING: (ENDED, LOST, FAILED),
    ENDED: (FAILED,),
    REFUSED: (),
    WITHDRAWN: (),
    LOST: (),
    FAILED: (),
}


class Began:
    """The program runs: its inputs may be sent."""

    __slots__ = ()


class OutputEnded:
    """The program has closed an output.  The event comes a second time after pending bytes were written here."""

    __slots__ = ("stream",)

    def __init__(self, stream: int) -> None:
        self.stream = stream


class Ended:
    """The job is over, and both sides agree on every byte."""

    __slots__ = ("exit",)

    def __init__(self, exit: Exit) -> None:
        self.exit = exit


if TYPE_CHECKING:
    from cexec.client.attempt.rare_events import (
        FailedHere,
        FileMissing,
        Lost,
        ProgramAsked,
        Refused,
        SlotWanted,
        Withdrawn,
    )

    AttemptEvent = (
        Began | ProgramAsked | FileMissing | OutputEnded | SlotWanted | Ended | Refused | Withdrawn | Lost | FailedHere
    )


class Attempt:
    """One attempt, from GO to its end."""

    __slots__ = ("_events", "_piped", "_silence", "once", "patience", "state")

    def __init__(self, *, once: bool, piped: Iterable[int] = (), patience: Patience | None = None) -> None:
        """`once`: the worker's hello has said that its jobs must never be repeated.

        `piped`: the outputs that have a reader here which may go: pipes, sockets and terminals.  A file has none, so a
        file system that reports a broken pipe has lost bytes.

        `patience`: the time that the worker has, which the driver's step compares with the clock.
        """
        self.patience = patience
        self.state = GIVEN
        self.once = once
        self._piped = frozenset(piped)
        self._events: list[AttemptEvent] = []
        self._silence = HostSilence()

    @property
    def over(self) -> bool:
        """True if it has ended in any way."""
        return self.state not in LIVE

    def next_event(self) -> AttemptEvent | None:
        return self._events.pop(0) if self._events else None

    # inputs of the machine

    def receive(self, found: Iterable[Event | Trouble]) -> None:
        """Takes the events of one step of the pump."""
        for one in found:
            self.take(one)

    def take(self, one: Event | Trouble) -> None:
        """Takes one of them."""
        if isinstance(one, Trouble):
            self._receive_trouble(one)
        elif one.kind == frames.END:
            self._events.append(OutputEnded(one.stream))  # also after EXIT, when pending bytes were written
        elif self.state in LIVE:
            self._receive_event(one)

    def connection_failed(self, error: CexecError) -> None:
        """Takes the error that has ended the connection."""
        if isinstance(error, LocalError):
            self.failed_here(error)
        elif not self.over:
            from cexec.client.attempt import rare_events  # most attempts end well

            self._end(LOST, rare_events.Lost(error))

    def failed_here(self, error: LocalError) -> None:
        """Takes an error of ours whose message is already known."""
        if FAILED in TRANSITIONS[self.state]:
            from cexec.client.attempt import rare_events

            self._end(FAILED, rare_events.FailedHere(-1, True, 0, error))

    # the worker's machine

    def stepped(self, now: float) -> bool:
        """Notes that the pump may have sent something; returns True if the kernel is to be asked about the worker."""
        return self._silence.stepped(now)

    def next_timeout(self) -> float | None:
        """Returns when the next look is due; None while nothing is outstanding and nothing limits the time."""
        due = self._silence.next_timeout()
        if self.patience is None or self.over:
            return due
        return self.patience.next_timeout() if due is None else min(due, self.patience.next_timeout())

    def looked(self, outstanding: bool, age: float, now: float) -> None:
        """Takes the kernel's answer: whether bytes are unacknowledged, and seconds since the last acknowledgement."""
        try:
            self._silence.looked(outstanding, age, now)
        except CexecError as error:
            self.connection_failed(error)

    # meanings

    def _receive_event(self, event: Event) -> None:
        if event.kind == frames.STARTED:
            self.once = self.once or bool(event.number & frames.ONCE)
            self._move(RUNNING)
            self._events.append(Began())
        elif event.kind == frames.EXIT and event.exit is not None:
            self._end(ENDED, Ended(event.exit))
        elif event.kind != frames.CLOSED:  # which the pump has followed already
            self._receive_rare_event(event)

    def _receive_rare_event(self, event: Event) -> None:
        from cexec.client.attempt import rare_events
        from cexec.errors import RefusedError, WithdrawnError

        if event.kind == frames.PROGRAM:
            self._events.append(rare_events.ProgramAsked(event.text))
        elif event.kind == frames.REFUSED and event.refusal is not None:
            refusal = event.refusal
            error = RefusedError(refusal.reason, refusal.kind == frames.PERMANENT)
            self._end(REFUSED, rare_events.Refused(error))
        elif event.kind in (frames.WITHDRAW, frames.RETURNED):
            self._end(WITHDRAWN, rare_events.Withdrawn(WithdrawnError(event.text)))
        elif event.kind == frames.BROKEN and event.stream >= frames.FIRST_FILE:
            self._events.append(rare_events.FileMissing(event.stream, event.text))
        elif event.kind == frames.BROKEN:
            lost = DisconnectedError(f"lost {name_of(event.stream)} of the program: {event.text}")
            self._end(LOST, rare_events.Lost(lost))
        elif event.kind == frames.WANTED:
            self._events.append(rare_events.SlotWanted())

    def _receive_trouble(self, trouble: Trouble) -> None:
        if trouble.writing and trouble.error in BROKEN_PIPE and trouble.stream in self._piped:
            return  # as in a local pipeline: the program gets SIGPIPE or EPIPE, and its status counts
        if FAILED in TRANSITIONS[self.state]:
            from cexec.client.attempt import rare_events

            self._end(FAILED, rare_events.FailedHere(trouble.stream, trouble.writing, trouble.error))

    def _end(self, state: str, event: AttemptEvent) -> None:
        self._move(state)
        self._events.append(event)

    def _move(self, state: str) -> None:
        """Changes the state; the only place that does."""
        if state not in TRANSITIONS[self.state]:
            raise ValueError(f"an attempt that is {self.state} cannot become {state}")
        self.state = state
