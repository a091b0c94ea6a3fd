"""The client: finds a worker for one job, runs it there, and tells the truth about how it went.

Contract: `Client(request).run()` returns the exit status that counts: the program's own, 128 + n for a death by a
signal.  Every failure of ours or of a worker's is a `CexecError` with one line.  docs/protocol.md sections 2, 3 and 7.
"""

from __future__ import annotations

import os

from cexec.client_descriptors import Descriptor
from cexec.client_job import ClientJob, RefusedError
from cexec.client_race import Contest, Winner
from cexec.errors import CexecError, DisconnectedError, LocalError, NoWorkerError, ProtocolError, VerifyError
from cexec.protocol import sodium
from cexec.protocol.announcement import JOB_ID_SIZE, SealedAnnouncement
from cexec.protocol.frames import Go
from cexec.system.datagrams import Announcer
from cexec.system.sockets import open_listener

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cexec.protocol.keys import ClientKey
    from cexec.system.groups import GroupEntry

MAXIMUM_REFUSALS = 5  # workers (ours) that may fail to start the program before we give up
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
        environment: dict[str, bytes] | None = None,
        arguments: list[bytes] | None = None,
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
        self.environment = environment or {}
        self.arguments = arguments or []


class Client:
    """Runs one request."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._job_id = sodium.random_bytes(JOB_ID_SIZE)
        self._talks = os.isatty(2)

    def run(self) -> int:
        """Attempts the job until it has been done or cannot be."""
        attempt = 1
        while True:
            winner = self._find_worker(attempt)
            if self._request.test_alert:
                self._complain(winner.address, "test alert")
            try:
                job = ClientJob(winner, self._request.descriptors, no_stdin=self._request.no_stdin)
                result = job.run()
            except RefusedError as error:
                self._complain(winner.address, f"refused: {error}")
                if error.permanent or attempt == MAXIMUM_REFUSALS:
                    raise CexecError(f"worker {winner.hello.name} refuses the job: {error}") from None
                attempt += 1
                self._tell(f"worker {winner.hello.name} refuses the job: {error}; trying another one")
                continue
            except LocalError:
                raise
            except CexecError as error:
                self._complain(winner.address, _ancestors_words(error))
                raise type(error)(f"worker {winner.hello.name} at {winner.address}: {error}") from None
            if result.exit_status:
                self._complain(winner.address, f"exited with code {result.exit_status}")
            return result.exit_status

    def _find_worker(self, attempt: int) -> Winner:
        request = self._request
        announcer = Announcer(request.groups, request.udp_port)
        listener = open_listener(request.ports, loopback=announcer.loopback, ipv6=announcer.ipv6)
        try:
            contest = Contest(
                key=request.key,
                sealed=SealedAnnouncement(request.key, job_id=self._job_id, attempt=attempt),
                announcer=announcer,
                listener=listener,
                accept_timeout=request.accept_timeout,
                pingpong=request.pingpong,
                complain=self._complain,
                tell=self._tell,
            )
            return contest.run(self._go(attempt))
        except NoWorkerError:
            self._complain(CLUSTER, f"failed to respond after {request.accept_timeout:g} seconds")
            raise
        finally:
            announcer.close()

    def _go(self, attempt: int) -> Go:
        request = self._request
        return Go(
            job_id=self._job_id,
            attempt=attempt,
            streams=[descriptor.stream() for descriptor in request.descriptors],
            arguments=request.arguments,
            environment=request.environment,
        )

    def _complain(self, who: str, text: str) -> None:
        """A line in the ancestor's words, for the descriptor that asked for them."""
        if self._request.error_fd is not None:
            _write(self._request.error_fd, f"{who} {text}\n")

    def _tell(self, text: str) -> None:
        """A line for the person at the terminal, who waits."""
        if self._talks:
            _write(2, f"cexec: {text}\n")


def _ancestors_words(error: CexecError) -> str:
    if isinstance(error, VerifyError):
        return "signature didn't verify"
    if isinstance(error, ProtocolError):
        return "violated protocol"
    if isinstance(error, DisconnectedError):
        return "disconnected unexpectedly"
    return str(error)


def _write(fd: int, text: str) -> None:
    try:
        os.write(fd, text.encode())
    except OSError:
        pass  # nobody is there to read it
