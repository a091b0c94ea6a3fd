"""The messages between a worker and a process that carries its jobs: reports upwards, words downwards.

Contract: `encode(report)` returns at most MAXIMUM_REPORT bytes, whatever texts the report has.  `decode(data)` accepts
exactly the fields that a report of that name has, each with its type and in its range, and raises `ReportError` for
everything else: a process may be damaged by the program that it runs.  A report is one JSON object, and one message of
a SOCK_SEQPACKET socketpair.
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


@dataclass(slots=True)
class Taken:
    """The client has sent GO."""

    name: ClassVar = "taken"
    job_id: bytes
    attempt: int


@dataclass(slots=True)
class Started:
    """The program runs."""

    name: ClassVar = "started"
    pid: int


@dataclass(slots=True)
class Refused:
    """The program has not been started.  `everywhere`: every worker would refuse this job."""

    name: ClassVar = "refused"
    reason: str
    everywhere: bool


@dataclass(slots=True)
class Finished:
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
    """No further job comes on this connection.  `reason` is empty unless the client broke the protocol."""

    name: ClassVar = "over"
    reason: str


@dataclass(slots=True)
class Free:
    """Nothing is left of the connection: the process can carry another one."""

    name: ClassVar = "free"


Report: TypeAlias = Taken | Started | Refused | Finished | Broken | Idle | Over | Free

REPORTS: tuple[type[Report], ...] = (Taken, Started, Refused, Finished, Broken, Idle, Over, Free)
_BY_NAME: dict[str, type[Report]] = {kind.name: kind for kind in REPORTS}
_TYPES = {"int": int, "float": float, "str": str, "bool": bool, "bytes": str}  # what JSON has for each
_FIELDS = {kind: {one.name: _TYPES[str(one.type)] for one in fields(kind)} for kind in REPORTS}
_LARGEST: dict[str, float] = {
    "attempt": LARGEST_ATTEMPT,
    "status": LARGEST_STATUS,
    "pid": LARGEST_PID,
    "sent": LARGEST_COUNT,
    "received": LARGEST_COUNT,
    "cpu": LONGEST_TIME,
    "duration": LONGEST_TIME,
}
_BOUNDS = {kind: [(name, _LARGEST[name]) for name in _FIELDS[kind] if name in _LARGEST] for kind in REPORTS}


def encode(report: Report) -> bytes:
    """The message.  JSON makes six bytes of a control character, and peers choose what the texts say."""
    values: dict[str, Any] = {"event": report.name}
    for name in _FIELDS[type(report)]:
        values[name] = getattr(report, name)
    if isinstance(report, Taken):
        values["job_id"] = report.job_id.hex()
    data = json.dumps(values).encode()
    while len(data) > MAXIMUM_REPORT:
        values["reason"] = values["reason"][: len(values["reason"]) // 2]  # the only text without a bound
        data = json.dumps(values).encode()
    return data


def decode(data: bytes) -> Report:
    """The report in a message; raises `ReportError` if there is none."""
    try:
        values = json.loads(data.decode())
    except (ValueError, RecursionError):
        raise ReportError("it sent a report that cannot be read") from None
    name = values.pop("event", None) if isinstance(values, dict) else None
    kind = _BY_NAME.get(name) if isinstance(name, str) else None
    if kind is None or values.keys() != _FIELDS[kind].keys():
        raise ReportError("it sent an unknown report")
    for field, wanted in _FIELDS[kind].items():
        if type(values[field]) is not wanted:  # not isinstance: True is an int
            raise ReportError("it sent a report with an impossible value")
    for field, largest in _BOUNDS[kind]:
        if not 0 <= values[field] <= largest:  # so written, NaN is refused, too
            raise ReportError("it sent a report with an impossible number")
    if kind is Taken:
        values["job_id"] = _job_id(values["job_id"])
    return kind(**values)


def _job_id(digits: str) -> bytes:
    if len(digits) != 2 * IDENTITY_SIZE or not set(digits) <= set("0123456789abcdef"):
        raise ReportError("it sent a report with an impossible job id")
    return bytes.fromhex(digits)
