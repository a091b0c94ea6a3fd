"""The client of `cexec`: it finds a worker for one job, runs the job there, and reports how it ended.

Contract: `BlockingClient(request).run()` returns the program's exit status, or 128 + n if signal n has ended it.
It raises `EndedBySignal` if a signal has ended the job.  Every failure here or of a worker is a `CexecError` with one
line.  docs/protocol.md sections 2, 3 and 7.
"""

from __future__ import annotations

import os
from time import monotonic

from cexec.client.attempt.signals import EndedBySignal, Insistence, Signals
from cexec.client.request import CLUSTER, DIED_OF_PIPE, IF_SUGGESTED, NEVER, TERMINAL, UNATTENDED, Request
from cexec.client.search.choice import Notices, OneJob
from cexec.client.search.search import Search
from cexec.common_errors import CexecError, LocalError, NoWorkerError, UsageError
from cexec.net.announcer import Announcer, clocks
from cexec.net.sockets import open_listener
from cexec.protocol.base import sodium
from cexec.protocol.base.limits import IDENTITY_SIZE
from cexec.protocol.connection.options import INTERRUPT
from cexec.protocol.datagrams.announcement import SealedAnnouncement
from cexec.protocol.decisions.race import Race
from cexec.system.reason import failed_call

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection
    from typing import NoReturn

    from cexec.client.attempt.inputs import Inputs
    from cexec.client.attempt.local_terminal import LocalTerminal
    from cexec.client.attempt.outputs import Outputs
    from cexec.client.attempt.repetition import Repetitions
    from cexec.client.blocking.driver import BlockingDriver
    from cexec.client.search.reception import Winner
    from cexec.protocol.connection.frames import Exit, Go
    from cexec.protocol.datagrams.hello import Hello


class BlockingClient:
    """Runs one request."""

    def __init__(self, request: Request, dies_of: Collection[int] = ()) -> None:
        """`dies_of`: signals that end the command as well as the program, if the program has died of them."""
        self._dies_of = dies_of
        self._request = request
        self._job_id = sodium.random_bytes(IDENTITY_SIZE)
        self._talks = not request.reports.quiet and os.isatty(2)
        self.exit: Exit | None = None  # the worker's last word, once the job is over
        self._told = False  # where nobody sits at a terminal, that is said once
        self._began = monotonic()
        self._prepared = False
        self._insistence = Insistence()
        self._inputs: Inputs
        self._outputs: Outputs
        self._signals: Signals
        self._announcer: Announcer | None = None  # the last attempt's
        self._terminal: LocalTerminal | None = None  # the last attempt's, if its program has a terminal
        self._avoided: set[bytes] = set()  # instances that get the job only if no other worker takes it
        self._lost_by = b""  # the instance that has failed last
        self._repetitions: Repetitions | None = None  # once an attempt has failed
        self._number = 1  # the attempt's
        self._started = monotonic()  # the attempt's begin

    def run(self) -> int:
        """Makes attempts until one succeeds or no further one is possible."""
        while True:
            winner = None
            try:
                winner = self._find_worker(self._number)
                status = self._attempt(winner)
            except CexecError as error:
                self._tidy_up()
                self._end_by(error, winner)
            except OSError as error:
                self._tidy_up()
                raise LocalError(failed_call(error)) from error
            finally:
                if self._prepared:
                    self._signals.stop()  # not before: one more Ctrl-C would leave half a file
            if status is not None:
                return status
            self._signals.resign()  # one that has come since the worker was lost ends us
            self._number += 1
            self._started = monotonic()

    def _end_by(self, error: CexecError, winner: Winner | None) -> NoReturn:
        """Raises the error that ends the job, or tells that a signal has; the loggers hear of what nobody here did."""
        from cexec.errors import InterruptedByUser, LeftByUser  # a job that succeeds needs none

        if isinstance(error, InterruptedByUser):
            raise EndedBySignal(error.number) from None
        if not isinstance(error, LeftByUser):
            self._alert(error, winner, final=True)
        raise error

    def _prepare(self) -> None:
        """Loads the rest of the client.  The worker starts the program meanwhile, which takes about as long."""
        if self._prepared:
            return
        from cexec.client.attempt.inputs import Inputs
        from cexec.client.attempt.outputs import Outputs

        request = self._request
        streams = request.streams
        sent = streams.files.inodes() if streams.files is not None else set()
        self._inputs = Inputs(streams.descriptors, no_stdin=streams.no_stdin, spool=request.repetition.spool)
        repetition = request.repetition
        self._outputs = Outputs(
            streams.descriptors, hold=repetition.hold, inputs=sent, repeatable=repetition.retries != NEVER
        )
        self._signals = Signals()
        self._prepared = True

    def _tidy_up(self) -> None:
        """Takes back outputs after the last failure: make must never find half a file."""
        if self._request.streams.files is not None:
            self._request.streams.files.discard()
        if self._prepared and not self._request.repetition.keep_partial:
            try:
                self._outputs.take_back()
            except OSError:
                pass  # the earlier failure is the one that counts

    def _attempt(self, winner: Winner) -> int | None:
        """Runs the job on this worker.  Returns None if it has failed in a way that allows another attempt."""
        if self._request.reports.test_alert:
            self._complain(winner.address, "test alert")
        self._prepare()
        request = self._request
        job = self._driver(winner)
        if request.reports.progress:
            job.show_progress()
        self._signals.start()
        try:
            return self._conclude(winner, job, job.run())
        except CexecError as error:
            self._go_on_after(error, winner, job)
        finally:
            job.give_up()
        return None

    def _go_on_after(self, error: CexecError, winner: Winner, job: BlockingDriver) -> None:
        """Prepares the next attempt after one that has failed, or raises the error that ends the job."""
        from cexec.client.search.messages import ancestors_words  # a job that succeeds needs none of these
        from cexec.errors import InterruptedByUser, RefusedError, WithdrawnError

        if isinstance(error, WithdrawnError):
            self._try_another(*self._count_failures().withdrawn(_who(winner), error))
        elif isinstance(error, RefusedError):
            self._alert(error, winner)
            self._complain(winner.address, f"refused: {error}")
            self._try_another(*self._count_failures().refused(_who(winner), error))
        elif isinstance(error, LocalError | InterruptedByUser):
            raise error
        else:
            self._alert(error, winner)
            self._complain(winner.address, ancestors_words(error))
            self._prepare_repetition(winner, job, error)
            self._note_loss(winner, error)

    def _driver(self, winner: Winner) -> BlockingDriver:
        from cexec.client.blocking.driver import BlockingDriver

        request = self._request
        arguments = (
            winner, self._inputs, self._outputs, self._signals, request.streams.files, request.reports.trace,
            request.patience(monotonic()), self._insistence,
        )  # fmt: skip
        if self._terminal is None:
            return BlockingDriver(*arguments)
        from cexec.client.blocking.terminal_driver import TerminalDriver

        return TerminalDriver(self._terminal, *arguments)

    def _count_failures(self) -> Repetitions:
        if self._repetitions is None:
            from cexec.client.attempt.repetition import Repetitions  # a job that succeeds needs none

            self._repetitions = Repetitions(self._request.repetition.retries)
        return self._repetitions

    def _try_another(self, reason: str, final: CexecError | None) -> None:
        """Goes on to another worker after one that has not started the program, unless that was the last one."""
        self._note_failure(reason)
        if final is not None:
            raise final from None
        self._tell(f"{reason}; trying again")

    def _prepare_repetition(self, winner: Winner, job: BlockingDriver, error: CexecError) -> None:
        """Prepares another attempt, or raises the error with the reason why there can be none (N3)."""
        failure, final = self._count_failures().lost(
            _who(winner), error, once=job.once, obstacle=lambda: self._outputs.obstacle() or self._inputs.obstacle()
        )
        self._note_failure(failure)
        if final is not None:
            raise final from None
        self._outputs.take_back()
        self._inputs.rewind()
        self._say(f"{failure}; running the job again")

    def _note_loss(self, winner: Winner, error: CexecError) -> None:
        """Lets others have the job first, if this worker has stalled once or was lost twice: it may be the quickest."""
        from cexec.errors import StalledError

        instance = winner.hello.instance
        if isinstance(error, StalledError) or self._lost_by == instance:
            self._avoided.add(instance)
        self._lost_by = instance

    def _conclude(self, winner: Winner, job: BlockingDriver, result: Exit) -> int:
        self.exit = result
        status = result.exit_status
        if status:
            self._complain(winner.address, f"exited with code {status}")
        if result.message:
            self._say(f"{_who(winner)}: {result.message}")
        if status and self._terminal is None and winner.hello.gives_terminal:
            self._hint()
        if status and not self._request.repetition.keep_partial:
            self._outputs.drop_held()
        if self._request.streams.files is not None:
            self._request.streams.files.commit(status)  # before held output leaves, because a missing file is a failure
        taken = self._outputs.release() and not job.unread
        self._inputs.move_offsets(winner.session.outgoing)
        from cexec.protocol.connection.frames import SIGNALLED  # loaded by now

        if result.kind == SIGNALLED and result.status in self._signals.taken & {INTERRUPT, *self._dies_of}:
            raise EndedBySignal(result.status)
        return status if taken or status else DIED_OF_PIPE

    def _hint(self) -> None:
        """Says how the program gets a terminal, if it has complained that it has none."""
        said = self._outputs.said()
        if said and (self._request.streams.terminal == IF_SUGGESTED or self._request.reports.hint):
            from cexec.client.attempt.terminal_hint import misses_terminal  # not after a success

            if misses_terminal(said):
                self._say(self._none_there)

    def _find_worker(self, attempt: int) -> Winner:
        request = self._request
        announcer = self._announcer = Announcer(request.network.groups, request.network.udp_port)
        listener = open_listener(request.network.ports, loopback=announcer.loopback, ipv6=announcer.ipv6)
        if request.reports.trace is not None:
            request.reports.trace.attempt_begun(attempt, listener.port)
        try:
            sealed = SealedAnnouncement(
                request.key,
                job_id=self._job_id,
                attempt=attempt,
                weight=request.target.weight,
                requirements=request.target.requirements,
                clocks=clocks(),
            )
            search = Search(
                request.key,
                sealed,
                announcer,
                listener,
                OneJob(lambda offer: self._go(attempt, offer), request.target.requirements, self._avoided),
                Race(accept_timeout=request.times.accept, now=monotonic()),
                idle_timeout=request.times.idle,
                notices=Notices(
                    complain=self._complain,
                    tell=self._tell_who_waits,
                    warn=self._say,
                    trace=request.reports.trace,
                    slow=self._load_driver,
                ),
                open_trust=request.target.open_trust,
                patience=request.times.patience,
            )
            return search.find_blocking()
        except NoWorkerError:
            self._complain(CLUSTER, f"failed to respond after {request.times.accept:g} seconds")
            raise
        finally:
            announcer.close()

    def _go(self, attempt: int, offer: Hello) -> Go:
        """Makes the frame that gives the job away, without descriptors that have failed while we waited."""
        if not self._prepared:
            gone = self._request.streams.look_again()
            if gone and self._request.reports.trace is not None:
                self._request.reports.trace.passed_over(gone)
        go = self._request.go(self._job_id, attempt)
        self._terminal = None
        wanted = self._request.streams.terminal
        suggested = wanted == IF_SUGGESTED and offer.gives_terminal and offer.suggests_terminal
        if wanted == TERMINAL or (suggested and self._is_at_terminal()):
            self._add_terminal(go, offer)
        return go

    def _is_at_terminal(self) -> bool:
        """Returns True if a person reads and writes here; one who only writes is told what to do."""
        writes, reads = os.isatty(0), os.isatty(1)
        if writes and not reads:
            self._tell(self._none_there)
        return writes and reads

    def _add_terminal(self, go: Go, offer: Hello) -> None:
        """Lets the program run on a terminal like ours."""
        if not offer.gives_terminal:
            from cexec.errors import RefusedError

            raise RefusedError("this worker gives no terminal", permanent=False)
        from cexec.client.attempt.local_terminal import LocalTerminal

        self._terminal = LocalTerminal(os.environ)
        self._terminal.add_to(go)
        try:
            go.encode()
        except ValueError as error:
            raise UsageError(f"{error}, with the terminal") from None

    def _alert(self, error: CexecError, winner: Winner | None, *, final: bool = False) -> None:
        """Tells the loggers, and the worker itself, that this attempt, or with `final` the job, has failed."""
        if self._announcer is None:
            return
        from cexec.client.search.failure_alert import FailedAttempt, send_alert  # a job that succeeds needs none

        failed = FailedAttempt(self._job_id, self._number, winner, monotonic() - self._started)
        send_alert(self._request.key, self._announcer, failed, error, final=final)

    def _complain(self, who: str, text: str) -> None:
        """Writes a line in the ancestor's words to CEXEC_FD_FOR_ERRORS, if that is set."""
        if self._request.reports.error_fd is not None:
            _write_line(self._request.reports.error_fd, f"{who} {text}")

    def _note_failure(self, reason: str) -> None:
        if self._request.reports.trace is not None:
            self._request.reports.trace.failed(reason)

    def _tell_who_waits(self, text: str) -> None:
        """Says why the job has not begun: at a terminal each time, and once in a log."""
        if self._talks:
            self._say(text)
        elif not (self._told or self._request.reports.quiet) and monotonic() - self._began >= UNATTENDED:
            self._told = True
            self._say(text)

    def _tell(self, text: str) -> None:
        """Writes a line for the person who waits at the terminal."""
        if self._talks:
            self._say(text)

    @property
    def _none_there(self) -> str:
        return f"no terminal there; see {self._request.reports.command} -t"

    def _say(self, text: str) -> None:
        _write_line(2, f"{self._request.reports.command}: {text}")

    def _load_driver(self) -> None:
        """Loads what a job is driven by, and what is said of it."""
        self._request.reports.prepare()
        from cexec.client.attempt import inputs, outputs, rare_events, repetition  # noqa: F401
        from cexec.client.blocking import driver  # noqa: F401
        from cexec.net import carrying, liveness  # noqa: F401
        from cexec.system import printable  # noqa: F401

        wanted = self._request.streams.terminal
        if wanted == TERMINAL or (wanted == IF_SUGGESTED and os.isatty(0) and os.isatty(1)):
            from cexec.client.blocking import terminal_driver  # noqa: F401


def _who(winner: Winner) -> str:
    return f"worker {winner.hello.name} at {winner.address}"


def _write_line(fd: int, text: str) -> None:
    from cexec.system.printable import write_line  # most calls write none

    write_line(fd, text)
