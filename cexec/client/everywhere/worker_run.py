"""`cexec --all`: one worker's run of the job, one of many in one loop.

Contract: `wanted()` and `next_timeout()` say when to call `step()`; if `eager` is true, it can be called at once.  When
the run has ended, `over` is true and `exit` or `failure` is set.  Everything that the program writes is kept in
`outputs`.  `step` raises `LocalError` only, if a file of ours fails.
"""

from __future__ import annotations

from time import monotonic

from cexec.client.attempt import attempt as meaning
from cexec.client.attempt import rare_events
from cexec.client.attempt.attempt import GIVEN, WITHDRAWN, Attempt
from cexec.client.attempt.descriptors import name_of
from cexec.client.attempt.stepping import advance, next_timeout
from cexec.client.everywhere.kept_output import KeptSink
from cexec.client.everywhere.shared_input import SharedInput, SharedSource
from cexec.errors import CexecError, LocalError, ProtocolError
from cexec.net.pump import LEAST_CREDIT, Pump
from cexec.net.sockets import hurry
from cexec.protocol.connection.options import READS, WRITES
from cexec.protocol.connection.session import RUNNING
from cexec.system.storage.temporary import no_temporary

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from cexec.client.attempt.attempt import AttemptEvent
    from cexec.client.attempt.descriptors import Descriptor
    from cexec.client.attempt.patience import Patience
    from cexec.client.attempt.rare_events import FailedHere
    from cexec.client.search.reception import Winner
    from cexec.protocol.connection.frames import Exit


class WorkerRun:
    """One worker's run.  `name`: the worker's, for messages."""

    def __init__(
        self,
        winner: Winner,
        name: str,
        descriptors: list[Descriptor],
        inputs: Mapping[int, SharedInput],
        patience: Patience | None = None,
    ) -> None:
        self.name = name
        self.winner = winner
        self.started = monotonic()
        self.exit: Exit | None = None
        self.failure: CexecError | None = None
        self.outputs: dict[int, KeptSink] = {}
        self._attempt = Attempt(once=winner.hello.once, patience=patience)
        self._pump = Pump(winner.connection, winner.records, winner.session)
        self._session = winner.session
        self._sources: dict[int, SharedSource] = {}
        for descriptor in descriptors:
            if descriptor.same_as != descriptor.fd:
                continue
            if descriptor.directions == READS:
                self._sources[descriptor.fd] = inputs[descriptor.fd].source()
            elif descriptor.directions == WRITES:
                self.outputs[descriptor.fd] = KeptSink()
        self._pump.sinks.update(self.outputs)
        hurry(winner.connection)

    @property
    def over(self) -> bool:
        return self.exit is not None or self.failure is not None

    @property
    def begun(self) -> bool:
        """True if the worker cannot take its offer back any more."""
        return self._attempt.state not in (GIVEN, WITHDRAWN)

    @property
    def eager(self) -> bool:
        """True if input can be sent at once."""
        return any(source.available for source in self._thirsty())

    def short_of(self) -> list[SharedInput]:
        """Returns the inputs of which this run wants more bytes than have been read."""
        return [source.shared for source in self._thirsty() if not source.available]

    def _thirsty(self) -> list[SharedSource]:
        """Returns the sources whose bytes could be sent now."""
        if self.over or self._pump.records.data_buffer() is None:
            return []
        return [
            source
            for stream, source in self._sources.items()
            # With less credit the pump makes no record, and stepping again and again would keep a CPU busy for nothing.
            if stream in self._pump.sources and self._session.sendable(stream) >= LEAST_CREDIT
        ]

    def wanted(self) -> dict[int, int]:
        return self._pump.wanted()

    def next_timeout(self) -> float:
        if self._pump.failed and not self.over:
            return 0.0  # the next step tells why
        look = next_timeout(self._attempt, self.winner.watch)
        return self._session.next_timeout() if look is None else min(look, self._session.next_timeout())

    def step(self) -> None:
        """Moves bytes without waiting."""
        advance(self._attempt, self._pump, 0.0, self.winner.watch)
        while (event := self._attempt.next_event()) is not None:
            self._handle(event)
        if self.exit is not None:
            self._session.release()
            self._pump.say_goodbye()
        elif self.failure is not None:
            self.end()

    def signal(self, number: int) -> None:
        """Passes a signal on to the program, if it runs."""
        if self._session.state == RUNNING:
            self._session.signal(number)
            self.step()

    def end(self) -> None:
        """Hangs up; a worker whose program still runs then ends it."""
        self._pump.connection.close()

    def _handle(self, event: AttemptEvent) -> None:
        if isinstance(event, meaning.Began):
            self._pump.sources.update(self._sources)
        elif isinstance(event, meaning.Ended):
            self.exit = event.exit
        elif isinstance(event, rare_events.ProgramAsked):
            self._attempt.connection_failed(ProtocolError("worker asked for a program, and there is none"))
        elif isinstance(event, rare_events.FailedHere):
            raise event.error or self._failure_here(event)
        elif isinstance(event, rare_events.Refused | rare_events.Withdrawn | rare_events.Lost):
            self.failure = event.error

    def _failure_here(self, event: FailedHere) -> LocalError:
        if event.writing:
            return no_temporary(f"keep the output of worker {self.name}", event.reason)
        return LocalError(f"cannot read from {name_of(event.stream)}: {event.reason}")
