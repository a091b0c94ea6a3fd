"""What a client is asked to do: one job, on one worker or on all."""

from __future__ import annotations

from cexec.client.attempt.descriptors import Descriptor
from cexec.errors import UsageError
from cexec.protocol.base.limits import IDENTITY_SIZE
from cexec.protocol.connection.frames import Go

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cexec.client.attempt.files import FilePlan
    from cexec.client.search.trace import Trace
    from cexec.net.groups import GroupEntry
    from cexec.protocol.base.keys import ClientKey
    from cexec.protocol.datagrams.requirements import Requirements

DEFAULT_RETRIES = 2  # (ours) repetitions of a job whose worker failed; --retries
DEFAULT_SPOOL = 16 * 1024 * 1024  # bytes (ours) of input that are kept for a repetition; CEXEC_SPOOL
DIED_OF_PIPE = 128 + 13  # what a shell says of a program whose reader has gone
CLUSTER = "[cluster]"  # the ancestor's name for nobody in particular
IMPATIENT = 3  # Ctrl-C so often ends us even if the program, or the network, does not react


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
        idle_timeout: float,
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
        trace: Trace | None = None,
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
        self.idle_timeout = idle_timeout
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
        self.trace = trace  # of --explain
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
            self.go(bytes(IDENTITY_SIZE), 1).encode()
        except ValueError as error:
            raise UsageError(f"{error}; give the rest as standard input") from None
