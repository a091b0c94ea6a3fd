"""The driver of `cexec`: one attempt on one worker, from GO to the last byte written here.

Contract: `BlockingDriver.run()` returns the worker's `Exit` when the job is over and every byte that it counts has been
written here (N1).  Otherwise it raises: `RefusedError` when the program was not started, `WithdrawnError` when the
worker took its offer back, `DisconnectedError` or `ProtocolError` when the worker failed, `LocalError` when a
descriptor of ours did, `InterruptedByUser` if signals end us (`Insistence`).  The attempt decides what events mean; the
driver waits, moves bytes and passes signals on.
docs/protocol.md sections 4 and 7.
"""

from __future__ import annotations

from time import monotonic

from cexec.client.attempt import attempt as meaning
from cexec.client.attempt.attempt import Attempt
from cexec.client.attempt.descriptors import name_of
from cexec.client.attempt.signals import Insistence, suspend
from cexec.client.attempt.stepping import advance, next_timeout
from cexec.common_errors import LocalError, ProtocolError
from cexec.net.pump import Pump
from cexec.net.sockets import hurry
from cexec.protocol.connection import frames, options
from cexec.protocol.connection.options import CONTINUE, SUSPEND
from cexec.protocol.connection.session import RUNNING

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cexec.client.attempt.attempt import AttemptEvent
    from cexec.client.attempt.files import FilePlan
    from cexec.client.attempt.inputs import Inputs
    from cexec.client.attempt.outputs import Outputs
    from cexec.client.attempt.patience import Patience
    from cexec.client.attempt.progress import Progress
    from cexec.client.attempt.rare_events import FailedHere
    from cexec.client.attempt.signals import Signals
    from cexec.client.search.reception import Winner
    from cexec.client.search.trace import Trace
    from cexec.protocol.connection.frames import Exit


class BlockingDriver:
    """One attempt.  `carries`: nothing is to be done after each of its bytes, once no attempt can follow it."""

    carries = True

    def __init__(
        self,
        winner: Winner,
        inputs: Inputs,
        outputs: Outputs,
        signals: Signals,
        files: FilePlan | None = None,
        trace: Trace | None = None,
        patience: Patience | None = None,
        insistence: Insistence | None = None,
    ) -> None:
        """`insistence` counts the signals of all attempts."""
        self._insistence = insistence or Insistence()
        self._attempt = Attempt(once=winner.hello.once, piped=outputs.piped, patience=patience)
        self._pump = Pump(winner.connection, winner.records, winner.session)
        self._session = winner.session
        self._watch = winner.watch
        self._inputs = inputs
        self._outputs = outputs
        self._signals = signals
        self._files = files
        self._trace = trace
        self._progress: Progress | None = None
        self._worker_name = winner.hello.name
        self._exit: Exit | None = None
        self._forgotten = False  # inputs are not kept any more, because no further attempt can be made
        self._pump.sinks.update(outputs.sinks())
        self._pump.watch(signals.fileno())
        if files is not None:  # before the program starts, because it expects its files
            self._pump.sources.update(files.sources())
            self._pump.sinks.update(files.sinks())
        hurry(winner.connection)

    @property
    def once(self) -> bool:
        """True if a job that may have started must never be repeated."""
        return self._attempt.once

    def show_progress(self) -> None:
        """Keeps a line on the terminal up to date while the job runs."""
        from cexec.client.attempt.progress import Progress

        self.carries = False
        self._progress = Progress(self._worker_name, monotonic())
        self._progress.expect([*self._pump.sources.values(), *self._inputs.sources().values()])
        self._pump.sinks.update(self._progress.shown(self._pump.sinks))

    @property
    def unread(self) -> bool:
        """True if a reader here has gone before it had all bytes that the exit frame counts.

        In a local pipeline SIGPIPE would have ended the program; here the program may have ended before.
        """
        endings = self._exit.endings if self._exit is not None else ()
        incoming = self._session.incoming
        return any(e.count > incoming[e.number].consumed for e in endings if e.direction == options.WRITES)

    def run(self) -> Exit:
        """Pumps until the job is over."""
        try:
            while self._exit is None:
                self.step()
        finally:
            if self._progress is not None:
                self._progress.close()
        self._session.release()
        self._pump.say_goodbye()  # now, because a slow reader here is no reason for the worker to wait
        self.resign()
        while not self._pump.drained:
            self._attempt.receive(self._pump.write_out())
            self._follow_attempt()
            if self._pump.ready:
                self.pass_signals_on()
        if self._trace is not None:
            sent = sum(half.count for half in self._session.outgoing.values())
            received = sum(half.consumed for half in self._session.incoming.values())
            self._trace.exited(self._exit.exit_status, sent, received)
        return self._exit

    def give_up(self) -> None:
        """Hangs up after a failure; the worker then ends the job."""
        self._pump.connection.close()
        for stream in list(self._pump.sinks):
            self._pump.sinks.pop(stream).close()

    def resign(self) -> None:
        """The program has ended: signals are for us from now on."""
        self._pump.unwatch(self._signals.fileno())
        self._signals.resign()

    def next_timeout(self) -> float | None:
        due = next_timeout(self._attempt, self._watch)
        if self._progress is not None and (shown := self._progress.next_timeout()) is not None:
            due = shown if due is None else min(due, shown)
        return due

    def step(self) -> None:
        due = self.next_timeout()
        wait = None if due is None else max(0.0, due - monotonic())
        advance(self._attempt, self._pump, wait, self._watch, carries=self._forgotten and self.carries)
        self._follow_attempt()
        if self._progress is not None:
            sent = sum(half.count for half in self._session.outgoing.values())
            self._progress.update(sent, sum(half.consumed for half in self._session.incoming.values()), monotonic())
        if self._pump.ready:
            self.pass_signals_on()
        if not self._forgotten and self._outputs.irrevocable:  # which stays so
            self._forgotten = True
            self._inputs.forget()

    def _follow_attempt(self) -> None:
        while (event := self._attempt.next_event()) is not None:
            self.handle(event)

    def handle(self, event: AttemptEvent) -> None:
        if isinstance(event, meaning.Began):
            if self._trace is not None:
                self._trace.started()
            self._pump.sources.update(self._inputs.sources())
        elif isinstance(event, meaning.OutputEnded):
            self._close_output(event.stream)
        elif isinstance(event, meaning.Ended):
            self._exit = event.exit
        else:
            self._handle_rare(event)

    def _handle_rare(self, event: AttemptEvent) -> None:
        from cexec.client.attempt import rare_events  # most attempts end well

        if isinstance(event, rare_events.ProgramAsked):
            from cexec.client.attempt.program_plan import asked

            try:
                program = asked(None if self._files is None else self._files.program, event.platform)
                self._pump.sources.update(program)
                if self._progress is not None:
                    self._progress.expect(program.values())
            except ProtocolError as error:
                self._attempt.connection_failed(error)
        elif isinstance(event, rare_events.FileMissing):
            if self._files is not None:
                self._files.failed(event.stream, event.reason)
        elif isinstance(event, rare_events.FailedHere):
            raise event.error or self._failure(event)
        elif isinstance(event, rare_events.Refused | rare_events.Withdrawn | rare_events.Lost):
            raise event.error  # and a slot that is `SlotWanted` was never asked for

    def _close_output(self, stream: int) -> None:
        if stream not in self._pump.sinks:  # else bytes are pending, and a second event follows them
            reading = self._session.outgoing.get(stream)
            self._outputs.ended(stream, half=reading is not None and reading.state != frames.READER_CLOSED)

    def _failure(self, event: FailedHere) -> LocalError:
        if event.writing and event.stream < frames.FIRST_FILE:
            return self._outputs.cannot_write(event.stream, event.errno)
        verb = "write to" if event.writing else "read from"
        return LocalError(f"cannot {verb} {self._name_of(event.stream)}: {event.reason}")

    def _name_of(self, stream: int) -> str:
        if self._files is not None and stream >= frames.FIRST_FILE:
            return self._files.name_of(stream)
        return name_of(stream)

    def pass_signals_on(self) -> None:
        for number in self._signals.take():
            if self._insistence.ends(number, started=self._attempt.state == meaning.RUNNING):
                from cexec.errors import InterruptedByUser

                raise InterruptedByUser(number)
            if self._session.state == RUNNING:
                self._session.signal(number)
            if number == SUSPEND:
                self._pump.flush()
                if self._progress is not None:
                    self._progress.clear()
                suspend()
                if self._session.state == RUNNING:
                    self._session.signal(CONTINUE)
