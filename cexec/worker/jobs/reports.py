"""The messages between a worker and a process that carries its jobs: reports upwards, words downwards.

Contract: `encode(report)` returns at most MAXIMUM_REPORT bytes, whatever texts the report has.  `decode(data)` accepts
exactly the fields that a report of that name has, each with its type and in its range, and raises `ReportError` for
everything else: a process may be damaged by the program that it runs.  A report is one JSON array of its name and its
fields, and one message of a SOCK_SEQPACKET socketpair.  A short job has three of them, so they are read without loops
over names.
"""

from __future__ import annotations

import enum
import json
from dataclasses import dataclass, fields
from typing import Any, ClassVar, TypeAlias

from cexec.protocol.base.limits import IDENTITY_SIZE

MAXIMUM_REPORT = 4096  # bytes (ours) of one message: small enough for every socket's buffer; longer texts are cut
JOBS_AHEAD = 16  # (ours) jobs that one AHEAD allows: the worker reads together what it is told of them
LARGEST_ATTEMPT = 0xFFFF  # (protocol) GO and alerts have 16 bits for it
LARGEST_STATUS = 0xFF  # (protocol) EXIT and alerts have 8 bits for it
LARGEST_PID = 1 << 22  # PID_MAX_LIMIT of Linux
LARGEST_COUNT = (1 << 64) - 1  # (protocol) alerts have 64 bits for a number of bytes
LONGEST_TIME = 1e9  # seconds (ours), 31 years: more is no time that a job took


class ReportError(Exception):
    """A process has sent something that makes no sense.  It is out of order, and nothing that it says counts."""


class Word(enum.Enum):
    """The messages of a worker to a process.

    A process remembers each of them until it matters, so a word that crosses a report on its way does no harm.
    """

    OFFER = b"offer"  # a slot is reserved for the next job: say CONFIRM
    LAST = b"last"  # take no further job
    AHEAD = b"ahead"  # nobody else waits for the slot: the next jobs may be offered without an OFFER
    ASK = b"ask"  # somebody waits: every job needs an OFFER again
    FULL = b"full"  # the client has as many bytes of files here as it may: take no more of them


@dataclass(slots=True)
class Taken:
    """The client has sent GO."""

    name: ClassVar = "taken"
    job_id: bytes
    attempt: int


@dataclass(slots=True)
class ProgramStarted:
    """The program runs."""

    name: ClassVar = "started"
    pid: int


@dataclass(slots=True)
class Stored:
    """The files that the client has sent for its job take so many bytes on disk, as far as it matters."""

    name: ClassVar = "stored"
    size: int


@dataclass(slots=True)
class JobRefused:
    """The program has not been started.  `unfit`: it is the job that does not fit, so this worker is not to blame."""

    name: ClassVar = "refused"
    reason: str
    unfit: bool


@dataclass(slots=True)
class JobFinished:
    """The exit frame is on its way.

    `sent` and `received` count bytes, `cpu` and `duration` are in seconds.  `idle` stands for an `Idle` that follows at
    once, and `ahead` for an OFFER after that which the process has given itself: the two messages that are saved would
    cost more than the program `true` does.
    """

    name: ClassVar = "finished"
    status: int
    sent: int
    received: int
    cpu: float
    reason: str
    duration: float
    idle: bool
    ahead: bool


@dataclass(slots=True)
class Broken:
    """The job broke off: its client was lost, or something failed on this machine."""

    name: ClassVar = "broken"
    reason: str


@dataclass(slots=True)
class Idle:
    """Nothing is left of the last job, and its client may want another one."""

    name: ClassVar = "idle"


@dataclass(slots=True)
class Over:
    """No further job comes on this connection.  `reason` is empty unless the client broke the protocol.

    `released`: the client has let go, so it has the result of the last job.
    """

    name: ClassVar = "over"
    reason: str
    released: bool = False


@dataclass(slots=True)
class Free:
    """Nothing is left of the connection: the process can carry another one.  `released`: as of `Over`."""

    name: ClassVar = "free"
    released: bool = False


Report: TypeAlias = Taken | ProgramStarted | Stored | JobRefused | JobFinished | Broken | Idle | Over | Free

REPORTS: tuple[type[Report], ...] = (Taken, ProgramStarted, Stored, JobRefused, JobFinished, Broken, Idle, Over, Free)
_BY_NAME: dict[str, type[Report]] = {kind.name: kind for kind in REPORTS}
_NAMES = {kind: [field.name for field in fields(kind)] for kind in REPORTS}
_JSON = {"int": int, "float": float, "str": str, "bool": bool, "bytes": str}  # the type that a field has in JSON
_TYPES = {kind: [_JSON[str(field.type)] for field in fields(kind)] for kind in REPORTS}
_LARGEST: dict[str, float] = {
    "attempt": LARGEST_ATTEMPT,
    "status": LARGEST_STATUS,
    "pid": LARGEST_PID,
    "size": LARGEST_COUNT,
    "sent": LARGEST_COUNT,
    "received": LARGEST_COUNT,
    "cpu": LONGEST_TIME,
    "duration": LONGEST_TIME,
}
_BOUNDS = {
    kind: [(index, _LARGEST[name]) for index, name in enumerate(names) if name in _LARGEST]
    for kind, names in _NAMES.items()
}


def encode(report: Report) -> bytes:
    """Returns the message.  JSON makes six bytes of a control character, and peers choose what the texts say."""
    values: list[Any] = [report.name, *[getattr(report, name) for name in _NAMES[type(report)]]]
    if isinstance(report, Taken):
        values[1] = report.job_id.hex()
    data = json.dumps(values).encode()
    while len(data) > MAXIMUM_REPORT:
        longest = max(range(len(values)), key=lambda index: len(values[index]) if type(values[index]) is str else 0)
        values[longest] = values[longest][: len(values[longest]) // 2]  # the reason: no other text is long
        data = json.dumps(values).encode()
    return data


def decode(data: bytes) -> Report:
    """Returns the report in a message; raises `ReportError` if there is none."""
    try:
        values = json.loads(data.decode())
    except (ValueError, RecursionError):
        raise ReportError("it sent a report that cannot be read") from None
    name = values.pop(0) if type(values) is list and values else None
    kind = _BY_NAME.get(name) if type(name) is str else None
    if kind is None or len(values) != len(_TYPES[kind]):
        raise ReportError("it sent an unknown report")
    if list(map(type, values)) != _TYPES[kind]:  # not isinstance: True is an int
        raise ReportError("it sent a report with an impossible value")
    for index, largest in _BOUNDS[kind]:
        if not 0 <= values[index] <= largest:  # so written, NaN is refused, too
            raise ReportError("it sent a report with an impossible number")
    if kind is Taken:
        values[0] = _job_id(values[0])
    report: Report = kind(*values)
    if isinstance(report, JobFinished) and report.ahead and not report.idle:
        raise ReportError("it sent a report that contradicts itself")
    return report


def _job_id(digits: str) -> bytes:
    if len(digits) != 2 * IDENTITY_SIZE or not set(digits) <= set("0123456789abcdef"):
        raise ReportError("it sent a report with an impossible job id")
    return bytes.fromhex(digits)
