"""The client's side of one attempt on one worker, from GO to the last byte written here.

Contract: `BlockingDriver.run()` returns the worker's `Exit` when the job is over and every byte that it counts has been
written here (N1), or raises: `RefusedError` when the program was not started, `DisconnectedError` or `ProtocolError`
when the worker failed, `LocalError` when a descriptor of ours did.  docs/protocol.md sections 4 and 7.
"""

from __future__ import annotations

import os
from time import monotonic

from cexec.client.attempt.descriptors import name_of
from cexec.client.attempt.signals import suspend
from cexec.client.request import IMPATIENT
from cexec.errors import DisconnectedError, InterruptedByUser, LocalError, RefusedError
from cexec.net.liveness import Liveness
from cexec.net.pump import BROKEN_PIPE, Pump, Trouble
from cexec.protocol.connection import frames
from cexec.protocol.connection.options import CONTINUE, INTERRUPT, SUSPEND
from cexec.protocol.connection.session import RUNNING

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cexec.client.attempt.files import FilePlan
    from cexec.client.attempt.inputs import Inputs
    from cexec.client.attempt.outputs import Outputs
    from cexec.client.attempt.progress import Progress
    from cexec.client.attempt.signals import Signals
    from cexec.client.search.candidate import Winner
    from cexec.client.search.trace import Trace
    from cexec.protocol.connection.frames import Exit
    from cexec.protocol.connection.session import Event


class BlockingDriver:
    """One attempt.  `once`: the worker says that a job which may have started must never be repeated."""

    def __init__(
        self,
        winner: Winner,
        inputs: Inputs,
        outputs: Outputs,
        signals: Signals,
        files: FilePlan | None = None,
        trace: Trace | None = None,
    ) -> None:
        self.once = winner.hello.once
        self.interrupts = 0
        self._pump = Pump(winner.connection, winner.records, winner.session)
        self._session = winner.session
        self._inputs = inputs
        self._outputs = outputs
        self._signals = signals
        self._files = files
        self._trace = trace
        self._progress: Progress | None = None
        self._worker_name = winner.hello.name
        self._liveness = Liveness(winner.connection)
        self._exit: Exit | None = None
        self._pump.sinks.update(outputs.sinks())
        self._pump.watch(signals.fileno())
        if files is not None:  # before the program starts: it finds them there
            self._pump.sources.update(files.sources())
            self._pump.sinks.update(files.sinks())

    def show_progress(self) -> None:
        """A line on the terminal while the job runs."""
        from cexec.client.attempt.progress import Progress

        self._progress = Progress(self._worker_name, monotonic())

    @property
    def unread(self) -> bool:
        """Whether a reader here has gone before it had all that the exit frame counts, which the program did not see.

        In a local pipeline the program would have.
        """
        endings = self._exit.endings if self._exit is not None else ()
        incoming = self._session.incoming
        return any(e.count > incoming[e.number].consumed for e in endings if e.direction == frames.WRITES)

    def run(self) -> Exit:
        """Pumps until the job is over."""
        try:
            while self._exit is None:
                self._step()
        finally:
            if self._progress is not None:
                self._progress.clear()
        self._session.release()
        self._pump.say_goodbye()  # our reader may be slow: no reason for the worker to wait
        self._pump.unwatch(self._signals.fileno())
        self._signals.resign()
        while not self._pump.drained:
            for event in self._pump.write_out():
                self._handle(event)
        if self._trace is not None:
            sent = sum(half.count for half in self._session.outgoing.values())
            received = sum(half.consumed for half in self._session.incoming.values())
            self._trace.note("exit", status=self._exit.exit_status, sent=sent, received=received)
        return self._exit

    def _step(self) -> None:
        times = [self._liveness.next_timeout(), None if self._progress is None else self._progress.next_timeout()]
        due = min((time for time in times if time is not None), default=None)
        for event in self._pump.step(None if due is None else max(0.0, due - monotonic())):
            self._handle(event)
        now = monotonic()
        self._liveness.stepped(now)
        self._liveness.handle_timeout(now)
        if self._progress is not None:
            sent = sum(half.count for half in self._session.outgoing.values())
            self._progress.update(sent, sum(half.consumed for half in self._session.incoming.values()), now)
        if self._pump.ready:
            self._pass_signals_on()
        if self._outputs.irrevocable:
            self._inputs.forget()

    def give_up(self) -> None:
        """This attempt has failed: the worker's job ends when it sees us go."""
        self._pump.connection.close()
        for stream in list(self._pump.sinks):
            self._pump.sinks.pop(stream).close()

    def _handle(self, event: Event | Trouble) -> None:
        if isinstance(event, Trouble):
            if event.writing and event.error in BROKEN_PIPE:
                return  # as in a local pipeline: the program is told, and its status tells the rest
            if event.writing and event.stream < frames.FIRST_FILE:
                raise self._outputs.cannot_write(event.stream, event.error)
            verb = "write to" if event.writing else "read from"
            raise LocalError(f"cannot {verb} {self._name_of(event.stream)}: {os.strerror(event.error).lower()}")
        if self._exit is not None and event.kind != frames.END:
            return  # a complete result stays one, whatever the worker says after it
        if event.kind == frames.STARTED:
            if self._trace is not None:
                self._trace.note("started")
            self.once = self.once or bool(event.number & frames.ONCE)
            self._pump.sources.update(self._inputs.sources())
        elif event.kind == frames.PROGRAM:
            from cexec.client.attempt.program_plan import asked

            self._pump.sources.update(asked(None if self._files is None else self._files.program, event.text))
        elif event.kind == frames.REFUSED and event.refusal is not None:
            raise RefusedError(event.refusal.reason, permanent=event.refusal.kind == frames.PERMANENT)
        elif event.kind == frames.WITHDRAW:
            raise RefusedError(event.text, permanent=False)
        elif event.kind == frames.BROKEN and event.stream >= frames.FIRST_FILE and self._files is not None:
            self._files.failed(event.stream, event.text)
        elif event.kind == frames.BROKEN:
            raise DisconnectedError(f"lost {name_of(event.stream)} of the program: {event.text}")
        elif event.kind == frames.END and event.stream not in self._pump.sinks:
            reading = self._session.outgoing.get(event.stream)
            self._outputs.ended(event.stream, half=reading is not None and reading.state != frames.READER_CLOSED)
        elif event.kind == frames.EXIT:
            self._exit = event.exit

    def _name_of(self, stream: int) -> str:
        if self._files is not None and stream >= frames.FIRST_FILE:
            return self._files.name_of(stream)
        return name_of(stream)

    def _pass_signals_on(self) -> None:
        for number in self._signals.take():
            if number == INTERRUPT:
                self.interrupts += 1
                if self.interrupts >= IMPATIENT:
                    raise InterruptedByUser("interrupted")
            if self._session.state == RUNNING:
                self._session.signal(number)
            if number == SUSPEND:
                self._pump.flush()
                suspend()
                if self._session.state == RUNNING:
                    self._session.signal(CONTINUE)
