"""The client: finds a worker for one job, runs it there, and tells the truth about how it went.

Contract: `Client(request).run()` returns the exit status that counts: the program's own, 128 + n for a death by a
signal, or raises `EndedBySignal` when Ctrl-C has ended it.  Every failure of ours or of a worker's is a `CexecError`
with one line.  docs/protocol.md sections 2, 3 and 7.
"""

from __future__ import annotations

import os
from time import monotonic

from cexec.client.attempt.signals import EndedBySignal, Signals
from cexec.client.request import CLUSTER, DIED_OF_PIPE, Request
from cexec.client.search.messages import ancestors_words
from cexec.client.search.search import Choice, Notices, Search
from cexec.errors import CexecError, InterruptedByUser, LocalError, NoWorkerError
from cexec.net.announcer import Announcer
from cexec.net.sockets import open_listener
from cexec.protocol.base import sodium
from cexec.protocol.base.limits import IDENTITY_SIZE
from cexec.protocol.connection.frames import SIGNALLED
from cexec.protocol.connection.options import INTERRUPT
from cexec.protocol.datagrams.announcement import SealedAnnouncement
from cexec.protocol.decisions.race import Race
from cexec.system.reason import reason_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cexec.client.attempt.inputs import Inputs
    from cexec.client.attempt.outputs import Outputs
    from cexec.client.blocking.driver import BlockingDriver
    from cexec.client.search.candidate import Winner
    from cexec.protocol.connection.frames import Exit

MAXIMUM_REFUSALS = 5  # workers (ours) that may fail to start the program before we give up


class Client:
    """Runs one request."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._job_id = sodium.random_bytes(IDENTITY_SIZE)
        self._talks = os.isatty(2)
        self._prepared = False
        self._inputs: Inputs
        self._outputs: Outputs
        self._announcer: Announcer | None = None  # of the last attempt
        self._signals = Signals()
        self._refusals = 0
        self._failures = 0
        self._number = 1  # of the attempt
        self._started = monotonic()  # when it began

    def run(self) -> int:
        """Attempts the job until it has been done or cannot be."""
        while True:
            winner = None
            try:
                winner = self._find_worker(self._number)
                status = self._attempt(winner)
            except InterruptedByUser:
                self._tidy_up()
                raise EndedBySignal(INTERRUPT) from None
            except CexecError as error:
                self._tidy_up()
                self._alert(error, winner, final=True)
                raise
            except OSError as error:
                self._tidy_up()
                raise LocalError(f"a system call failed: {reason_of(error)}") from error
            if status is not None:
                return status
            self._number += 1
            self._started = monotonic()

    def _prepare(self) -> None:
        """Once a worker has been told to start the program, which takes as long as loading what comes next."""
        if self._prepared:
            return
        from cexec.client.attempt.inputs import Inputs
        from cexec.client.attempt.outputs import Outputs

        request = self._request
        sent = request.files.inodes() if request.files is not None else set()
        self._inputs = Inputs(request.descriptors, no_stdin=request.no_stdin, spool=request.spool)
        self._outputs = Outputs(request.descriptors, hold=request.hold, inputs=sent)
        self._prepared = True

    def _tidy_up(self) -> None:
        """After the last failure: make must never meet half a file."""
        if self._request.files is not None:
            self._request.files.discard()
        if self._prepared and not self._request.keep_partial:
            try:
                self._outputs.take_back()
            except OSError:
                pass  # the failure that is told comes first

    def _attempt(self, winner: Winner) -> int | None:
        """Runs the job on this worker; None: it has failed in a way that allows another attempt."""
        if self._request.test_alert:
            self._complain(winner.address, "test alert")
        self._prepare()
        from cexec.client.blocking.driver import BlockingDriver
        from cexec.errors import RefusedError

        request = self._request
        job = BlockingDriver(winner, self._inputs, self._outputs, self._signals, request.files, request.trace)
        if request.progress:
            job.show_progress()
        self._signals.start()
        try:
            return self._conclude(winner, job, job.run())
        except RefusedError as error:
            self._alert(error, winner)
            self._complain(winner.address, f"refused: {error}")
            self._note_failure(f"{_who(winner)} refuses the job: {error}")
            self._refusals += 1
            if error.permanent or self._refusals == MAXIMUM_REFUSALS:
                raise CexecError(f"{_who(winner)} refuses the job: {error}") from None
            self._tell(f"{_who(winner)} refuses the job: {error}; trying again")
        except (LocalError, InterruptedByUser):
            raise
        except CexecError as error:
            self._alert(error, winner)
            self._complain(winner.address, ancestors_words(error))
            self._prepare_repetition(winner, job, error)
        finally:
            self._signals.stop()
            job.give_up()
        return None

    def _prepare_repetition(self, winner: Winner, job: BlockingDriver, error: CexecError) -> None:
        """N3: raises the error with a reason unless the job can be done again as if nothing had been."""
        failure = f"{_who(winner)} failed: {error}"
        self._note_failure(failure)
        if job.once:
            obstacle = "this service must not run a job twice (cservice --once)"
        elif self._failures == self._request.retries:
            obstacle = f"{self._failures + 1} attempts are enough (--retries)" if self._failures else "--retries is 0"
        else:
            obstacle = self._outputs.obstacle() or self._inputs.obstacle()
        if obstacle:
            raise type(error)(f"{failure}; not repeated, because {obstacle}") from None
        self._failures += 1
        self._outputs.take_back()
        self._inputs.rewind()
        _write(2, f"cexec: {failure}; running the job again\n")

    def _conclude(self, winner: Winner, job: BlockingDriver, result: Exit) -> int:
        status = result.exit_status
        if status:
            self._complain(winner.address, f"exited with code {status}")
        if result.message:
            _write(2, f"cexec: {_who(winner)}: {result.message}\n")
        if status and not self._request.keep_partial:
            self._outputs.drop_held()
        if self._request.files is not None:
            self._request.files.commit(status)  # before held output leaves: what is missing is a failure
        taken = self._outputs.release() and not job.unread
        self._inputs.move_offsets(winner.session.outgoing)
        if result.kind == SIGNALLED and result.status == INTERRUPT and self._signals.interrupted:
            raise EndedBySignal(INTERRUPT)
        return status if taken or status else DIED_OF_PIPE

    def _find_worker(self, attempt: int) -> Winner:
        request = self._request
        announcer = self._announcer = Announcer(request.groups, request.udp_port)
        listener = open_listener(request.ports, loopback=announcer.loopback, ipv6=announcer.ipv6)
        if request.trace is not None:
            request.trace.note("attempt", number=attempt, port=listener.port)
        try:
            sealed = SealedAnnouncement(
                request.key,
                job_id=self._job_id,
                attempt=attempt,
                weight=request.weight,
                requirements=request.requirements,
            )
            search = Search(
                request.key,
                sealed,
                announcer,
                listener,
                Choice(request.go(self._job_id, attempt), request.requirements),
                Race(accept_timeout=request.accept_timeout, now=monotonic()),
                idle_timeout=request.idle_timeout,
                notices=Notices(complain=self._complain, tell=self._tell, warn=_say, trace=request.trace),
            )
            return search.find_blocking()
        except NoWorkerError:
            self._complain(CLUSTER, f"failed to respond after {request.accept_timeout:g} seconds")
            raise
        finally:
            announcer.close()

    def _alert(self, error: CexecError, winner: Winner | None, *, final: bool = False) -> None:
        """Tells the loggers, and the worker itself, that this attempt, or with `final` the job, has failed."""
        if self._announcer is None:
            return
        from cexec.client.search.failure_alert import send_alert  # a job that succeeds does without

        send_alert(
            key=self._request.key,
            announcer=self._announcer,
            job_id=self._job_id,
            attempt=self._number,
            error=error,
            final=final,
            winner=winner,
            duration=monotonic() - self._started,
        )

    def _complain(self, who: str, text: str) -> None:
        """A line in the ancestor's words, for the descriptor that asked for them."""
        if self._request.error_fd is not None:
            _write(self._request.error_fd, f"{who} {text}\n")

    def _note_failure(self, reason: str) -> None:
        if self._request.trace is not None:
            self._request.trace.note("failed", reason=reason)

    def _tell(self, text: str) -> None:
        """A line for the person at the terminal, who waits."""
        if self._talks:
            _say(text)


def _say(text: str) -> None:
    _write(2, f"cexec: {text}\n")


def _who(winner: Winner) -> str:
    return f"worker {winner.hello.name} at {winner.address}"


def _write(fd: int, text: str) -> None:
    try:
        os.write(fd, text.encode())
    except OSError:
        pass  # nobody is there to read it
