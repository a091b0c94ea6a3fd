"""The client: finds a worker for one job, runs it there, and tells the truth about how it went.

Contract: `Client(request).run()` returns the exit status that counts: the program's own, 128 + n for a death by a
signal, or raises `EndedBySignal` when Ctrl-C has ended it.  Every failure of ours or of a worker's is a `CexecError`
with one line.  docs/protocol.md sections 2, 3 and 7.
"""

from __future__ import annotations

import os
from time import monotonic

from cexec.client.descriptors import Descriptor
from cexec.client.race import Contest
from cexec.client.signals import INTERRUPT, EndedBySignal, Signals
from cexec.client.words import ancestors_words
from cexec.errors import CexecError, InterruptedByUser, LocalError, NoWorkerError, UsageError
from cexec.protocol import sodium
from cexec.protocol.announcement import JOB_ID_SIZE, SealedAnnouncement
from cexec.protocol.frames import SIGNALLED, Go
from cexec.system.datagrams import Announcer
from cexec.system.sockets import open_listener

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cexec.client.candidate import Winner
    from cexec.client.explain import Chronicle
    from cexec.client.files import FilePlan
    from cexec.client.inputs import Inputs
    from cexec.client.job import ClientJob
    from cexec.client.outputs import Outputs
    from cexec.protocol.frames import Exit
    from cexec.protocol.keys import ClientKey
    from cexec.protocol.requirements import Requirements
    from cexec.system.groups import GroupEntry

MAXIMUM_REFUSALS = 5  # workers (ours) that may fail to start the program before we give up
DEFAULT_RETRIES = 2  # (ours) repetitions of a job whose worker failed; --retries
DEFAULT_SPOOL = 16 * 1024 * 1024  # bytes (ours) of input that are kept for a repetition; CEXEC_SPOOL
DIED_OF_PIPE = 128 + 13  # what a shell says of a program whose reader has gone
CLUSTER = "[cluster]"  # the ancestor's name for nobody in particular


class Request:
    """One job.  Times in seconds; `accept_timeout` 0 waits for ever; `error_fd` gets the ancestor's lines."""

    def __init__(
        self,
        *,
        key: ClientKey,
        descriptors: list[Descriptor],
        groups: list[GroupEntry] | None,
        udp_port: int,
        ports: list[int] | None,
        accept_timeout: float,
        pingpong: float,
        error_fd: int | None = None,
        test_alert: bool = False,
        no_stdin: bool = False,
        retries: int = DEFAULT_RETRIES,
        spool: int = DEFAULT_SPOOL,
        hold: bool = False,
        keep_partial: bool = False,
        requirements: Requirements | None = None,
        weight: int = 1,
        environment: dict[str, bytes] | None = None,
        arguments: list[bytes] | None = None,
        chronicle: Chronicle | None = None,
        files: FilePlan | None = None,
        go_options: dict[str, str] | None = None,
        progress: bool = False,
    ) -> None:
        self.key = key
        self.descriptors = descriptors
        self.groups = groups
        self.udp_port = udp_port
        self.ports = ports
        self.accept_timeout = accept_timeout
        self.pingpong = pingpong
        self.error_fd = error_fd
        self.test_alert = test_alert
        self.no_stdin = no_stdin
        self.retries = retries
        self.spool = spool
        self.hold = hold
        self.keep_partial = keep_partial
        self.requirements = requirements
        self.weight = weight
        self.environment = environment or {}
        self.arguments = arguments or []
        self.chronicle = chronicle  # of --explain
        self.files = files  # of --send and --fetch
        self.go_options = go_options or {}  # limits and the like, for the worker
        self.progress = progress

    def go(self, job_id: bytes, attempt: int) -> Go:
        """What the worker that wins is told."""
        return Go(
            job_id=job_id,
            attempt=attempt,
            streams=[
                *(descriptor.stream() for descriptor in self.descriptors),
                *(self.files.streams() if self.files is not None else ()),
            ],
            arguments=self.arguments,
            environment=self.environment,
            options=self.go_options,
        )

    def check_size(self) -> None:
        """Raises `UsageError` when it is more than a worker can be told."""
        try:
            self.go(bytes(JOB_ID_SIZE), 1).encode()
        except ValueError as error:
            raise UsageError(f"{error}; give the rest as standard input") from None


class Client:
    """Runs one request."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._job_id = sodium.random_bytes(JOB_ID_SIZE)
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
                raise LocalError(f"a system call failed: {os.strerror(error.errno or 0).lower()}") from error
            if status is not None:
                return status
            self._number += 1
            self._started = monotonic()

    def _prepare(self) -> None:
        """Once a worker has been told to start the program, which takes as long as loading what comes next."""
        if self._prepared:
            return
        from cexec.client.inputs import Inputs
        from cexec.client.outputs import Outputs

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
        from cexec.client.job import ClientJob, RefusedError

        request = self._request
        job = ClientJob(winner, self._inputs, self._outputs, self._signals, request.files, request.chronicle)
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

    def _prepare_repetition(self, winner: Winner, job: ClientJob, error: CexecError) -> None:
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

    def _conclude(self, winner: Winner, job: ClientJob, result: Exit) -> int:
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
        if request.chronicle is not None:
            request.chronicle.note("attempt", number=attempt, port=listener.port)
        try:
            contest = Contest(
                key=request.key,
                sealed=SealedAnnouncement(
                    request.key,
                    job_id=self._job_id,
                    attempt=attempt,
                    weight=request.weight,
                    requirements=request.requirements,
                ),
                announcer=announcer,
                listener=listener,
                accept_timeout=request.accept_timeout,
                pingpong=request.pingpong,
                complain=self._complain,
                tell=self._tell,
                warn=_say,
                chronicle=request.chronicle,
            )
            return contest.run(request.go(self._job_id, attempt))
        except NoWorkerError:
            self._complain(CLUSTER, f"failed to respond after {request.accept_timeout:g} seconds")
            raise
        finally:
            announcer.close()

    def _alert(self, error: CexecError, winner: Winner | None, *, final: bool = False) -> None:
        """Tells the loggers, and the worker itself, that this attempt, or with `final` the job, has failed."""
        if self._announcer is None:
            return
        from cexec.client.alerts import send_alert  # a job that succeeds does without

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
        if self._request.chronicle is not None:
            self._request.chronicle.note("failed", reason=reason)

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
