"""A request to a client: one job, on one worker or on all.

Contract: values.  `Request.go` makes the frame that a worker gets; `from_environment` reads the settings that all
client commands share.  `NetworkSettings`, `Times` and `Target` also belong to the searches of `client.aio`.
`read_client_key`, `check_variable` and `check_size` make the checks that come before every job.
"""

from __future__ import annotations

from cexec.client.attempt.descriptors import Descriptor, look_again
from cexec.common_errors import CexecError, UsageError
from cexec.net.groups import groups_from_environment, udp_port_from_environment
from cexec.net.sockets import ports_from_environment
from cexec.protocol.base.client_key import ClientKey
from cexec.protocol.base.limits import DEFAULT_IDLE_TIMEOUT, IDENTITY_SIZE, LEAST_IDLE_TIMEOUT, MAXIMUM_GO
from cexec.protocol.connection.options import TIME_LIMIT
from cexec.system.storage.keyfile import read_key

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cexec.client.attempt.files import FilePlan
    from cexec.client.attempt.patience import Patience
    from cexec.client.search.trace import Trace
    from cexec.client.search.trust import Trust
    from cexec.net.groups import GroupEntry
    from cexec.protocol.connection.frames import Go
    from cexec.protocol.datagrams.requirements import Requirements

DEFAULT_ACCEPT_TIMEOUT = 60.0  # seconds (ours), as in the ancestor; CEXEC_TIMEOUT_ACCEPT
DEFAULT_RETRIES = 2  # (ours) repetitions of a job whose worker failed; --retries
NEVER = -1  # (ours) retries of a job that is not repeated, as everybody expects
DEFAULT_SPOOL = 16 * 1024 * 1024  # bytes (ours) of input that are kept for a repetition; CEXEC_SPOOL
DIED_OF_PIPE = 128 + 13  # the status that a shell shows for a program whose reader has gone
LEAST_PROGRESS_TIMEOUT = 1.0  # seconds (ours): less is the time that a busy host takes
CLUSTER = "[cluster]"  # the name that the ancestor puts where no single worker is meant
LONGEST_VARIABLE = 64  # characters (protocol) of a peer variable's name
MAXIMUM_RETRIES = 1000  # (ours)
SURELY_LESS = 300  # bytes (ours): the name and the lengths of one argument, variable or file take less in GO
MOST_TEXTS = 0xFFFF  # (protocol) arguments of a job, and variables
GIVE_REST = "give the rest as standard input"
NO_TERMINAL, IF_SUGGESTED, TERMINAL = range(3)  # (ours) if the program runs on a terminal, see `JobStreams`
UNATTENDED = 10.0  # seconds (ours) after which one line in a log says why the job waits; a person reads it sooner


class NetworkSettings:
    """Says where workers are looked for, and on which ports we listen for them.

    `groups`: None is the default group.  `ports`: None allows any port.
    """

    __slots__ = ("groups", "ports", "udp_port")

    def __init__(self, *, groups: list[GroupEntry] | None, udp_port: int, ports: list[int] | None = None) -> None:
        self.groups = groups
        self.udp_port = udp_port
        self.ports = ports

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> NetworkSettings:
        """Returns what CEXEC_GROUP, CEXEC_UDP_PORT and CEXEC_LISTEN_PORTS say; raises `UsageError`."""
        return cls(
            groups=groups_from_environment(environ),
            udp_port=udp_port_from_environment(environ),
            ports=ports_from_environment(environ),
        )


class Times:
    """Seconds.  `accept`: until a search gives up, 0 for never; `idle`: of silence, after which a worker is lost.

    `progress`: in which some byte must come or go while a worker has the job, 0 for any time.  `patience`: for which a
    worker is waited for that is there and fits, although it does not answer in the time of `accept`.
    """

    __slots__ = ("accept", "idle", "patience", "progress")

    def __init__(self, *, accept: float, idle: float, progress: float = 0.0, patience: float = 0.0) -> None:
        self.accept = accept
        self.patience = patience
        self.idle = idle
        self.progress = progress

    @classmethod
    def from_environment(cls, environ: Mapping[str, str], *, for_ever: bool, progress: float = 0.0) -> Times:
        """Returns what CEXEC_TIMEOUT_ACCEPT, unless the search lasts `for_ever`, and CEXEC_TIMEOUT_PINGPONG say."""
        accept = _seconds(environ, "CEXEC_TIMEOUT_ACCEPT", DEFAULT_ACCEPT_TIMEOUT)
        idle = _seconds(environ, "CEXEC_TIMEOUT_PINGPONG", DEFAULT_IDLE_TIMEOUT)
        return cls(accept=0.0 if for_ever else accept, idle=max(LEAST_IDLE_TIMEOUT, idle), progress=progress)


class Target:
    """`requirements`: those that a worker must meet.  `weight`: the job's share of the turns where jobs wait.

    `open_trust` returns the verdicts about revoked workers; all searches of a program share them.
    """

    __slots__ = ("open_trust", "requirements", "weight")

    def __init__(
        self,
        requirements: Requirements | None = None,
        weight: int = 1,
        open_trust: Callable[[], Trust] | None = None,
    ) -> None:
        self.requirements = requirements
        self.weight = weight
        self.open_trust = open_trust


class JobStreams:
    """The job's descriptors and files here.  `files`: of --send, --fetch and --program.  `no_stdin`: stdin is empty.

    `passed_over` has a text for each descriptor that does not go with the job because of what it is.

    `terminal`: IF_SUGGESTED gives the program a terminal if its worker says that it wants one and a person is at one
    here, TERMINAL in any case.
    """

    __slots__ = ("descriptors", "files", "no_stdin", "passed_over", "terminal")

    def __init__(
        self,
        descriptors: list[Descriptor],
        *,
        files: FilePlan | None = None,
        no_stdin: bool = False,
        passed_over: list[str] | None = None,
        terminal: int = NO_TERMINAL,
    ) -> None:
        self.descriptors = descriptors
        self.files = files
        self.no_stdin = no_stdin
        self.passed_over = passed_over or []
        self.terminal = terminal

    def look_again(self) -> list[str]:
        """Takes away descriptors that have failed meanwhile; returns the texts about those."""
        gone: list[str] = []
        self.descriptors = look_again(self.descriptors, gone)
        return gone


class Invocation:
    """The texts that GO gives to the worker.  `options`: limits and the like, for the worker itself."""

    __slots__ = ("arguments", "environment", "options")

    def __init__(
        self,
        *,
        arguments: list[bytes] | None = None,
        environment: dict[str, bytes] | None = None,
        options: dict[str, str] | None = None,
    ) -> None:
        self.arguments = arguments or []
        self.environment = environment or {}
        self.options = options or {}


class Repetition:
    """The rules for a worker or a program that fails.

    `retries`: further attempts after a worker has failed; NEVER if nobody expects one.
    `spool`: bytes of input that are kept for them.
    `hold`: output is written only after a success.  `keep_partial`: output of a failed job stays.
    """

    __slots__ = ("hold", "keep_partial", "retries", "spool")

    def __init__(
        self,
        *,
        retries: int = DEFAULT_RETRIES,
        spool: int = DEFAULT_SPOOL,
        hold: bool = False,
        keep_partial: bool = False,
    ) -> None:
        self.retries = retries
        self.spool = spool
        self.hold = hold
        self.keep_partial = keep_partial


class Reports:
    """The messages that are wanted.  `error_fd` gets lines in the ancestor's words, with `test_alert` one per worker.

    `trace` is set by --explain, `progress` by --progress.  `command` is the name before each message; `quiet` leaves
    those out that are for a person who waits, and `hint` lets NO_TERMINAL have the one for programs that miss it.
    `prepare` loads what the caller needs for its own words, as soon as the job has to wait.
    """

    __slots__ = ("command", "error_fd", "hint", "prepare", "progress", "quiet", "test_alert", "trace")

    def __init__(
        self,
        *,
        error_fd: int | None = None,
        test_alert: bool = False,
        progress: bool = False,
        trace: Trace | None = None,
        command: str = "cexec",
        quiet: bool = False,
        hint: bool = False,
        prepare: Callable[[], None] = lambda: None,
    ) -> None:
        self.prepare = prepare
        self.command = command
        self.hint = hint
        self.quiet = quiet
        self.error_fd = error_fd
        self.test_alert = test_alert
        self.progress = progress
        self.trace = trace


class Request:
    """One job."""

    __slots__ = ("invocation", "key", "network", "repetition", "reports", "streams", "target", "times")

    def __init__(
        self,
        key: ClientKey,
        *,
        network: NetworkSettings,
        times: Times,
        target: Target,
        streams: JobStreams,
        invocation: Invocation,
        repetition: Repetition,
        reports: Reports,
    ) -> None:
        self.key = key
        self.network = network
        self.times = times
        self.target = target
        self.streams = streams
        self.invocation = invocation
        self.repetition = repetition
        self.reports = reports

    def go(self, job_id: bytes, attempt: int) -> Go:
        """Returns the frame that gives the job to a worker; made after the announcement, while workers think."""
        from cexec.protocol.connection.frames import Go

        return Go(
            job_id=job_id,
            attempt=attempt,
            streams=[
                *(descriptor.stream() for descriptor in self.streams.descriptors),
                *(self.streams.files.streams() if self.streams.files is not None else ()),
            ],
            arguments=self.invocation.arguments,
            environment=self.invocation.environment,
            options=self.invocation.options,
        )

    def patience(self, now: float) -> Patience | None:
        """Returns the time that a worker has which gets the job now; None if nothing limits it."""
        time_limit = self.invocation.options.get(TIME_LIMIT)
        if not self.times.progress and not time_limit:
            return None
        from cexec.client.attempt.patience import Patience

        return Patience(progress=self.times.progress, time_limit=float(time_limit or 0.0), began=now)

    def check_size(self) -> None:
        """Raises `TooLongError` if GO would be longer than the protocol or the kernel allows."""
        files = self.streams.files
        names = 0 if files is None else len(files.streams())
        check_size(self.invocation, lambda: self.go(bytes(IDENTITY_SIZE), 1), names)


def check_size(invocation: Invocation, make_go: Callable[[], Go], files: int) -> None:
    """Raises `TooLongError` if GO would be longer than the protocol or the kernel allows.

    A short one is not made for that.  `files`: how many go with the job.
    """
    count = len(invocation.arguments) + len(invocation.environment) + files
    rough = sum(map(len, invocation.arguments)) + sum(map(len, invocation.environment.values()))
    if rough + SURELY_LESS * count < MAXIMUM_GO // 2:
        return
    from cexec.errors import TooLongError  # a short one, which nearly all are, has returned

    if count > MOST_TEXTS:
        raise TooLongError(f"arguments and variables are {count} and at most {MOST_TEXTS} fit; {GIVE_REST}")
    try:
        make_go().encode()
    except ValueError as error:
        raise TooLongError(f"{error}; {GIVE_REST}") from None
    from cexec.system.process.argument_limits import too_long

    variables = {f"PEER_{name}": value for name, value in invocation.environment.items()}
    if problem := too_long(invocation.arguments, variables):
        raise TooLongError(f"{problem}; {GIVE_REST}")


def is_variable(name: str) -> bool:
    """Returns True if a peer variable may be called so."""
    plain = name.isascii() and name.replace("_", "a").isalnum() and not name[:1].isdigit()
    return plain and len(name) <= LONGEST_VARIABLE


def check_variable(name: str) -> None:
    """Raises `UsageError` unless a peer variable may be called so."""
    if not is_variable(name):
        raise UsageError(
            f"{name!r} cannot be a variable's name: letters, digits and _, at most {LONGEST_VARIABLE} of them"
        )


def read_client_key(path: str, who: str) -> ClientKey:
    """Returns the client key at `path`, which is valid now; the errors say which file `who` needs instead."""
    from time import time

    key = read_key(path, (ClientKey,), f"{who} needs the client key that ckeygen wrote beside it (APP.pub)")
    try:
        key.identity.certificate.check_dates(time())  # said here, and not after a minute of silence
    except CexecError as error:
        raise type(error)(f"{path}: {error}; ask its owner for a new one, or set the clock") from None
    return key


def trust_opener(key: ClientKey, path: str, *, required: bool) -> Callable[[], Trust]:
    """Returns a function that reads the list beside the key at `path` when it is first called, and keeps it."""
    opened: list[Trust] = []

    def open_trust() -> Trust:
        if not opened:
            from cexec.client.search.trust import Trust  # while workers think about the announcement

            opened.append(Trust(key, path, required=required))
        return opened[0]

    return open_trust


def _seconds(environ: Mapping[str, str], name: str, default: float) -> float:
    text = environ.get(name, "").strip()
    if not text:
        return default
    from cexec.system.units import parse_duration  # most calls have no such variable

    return parse_duration(text, name)
