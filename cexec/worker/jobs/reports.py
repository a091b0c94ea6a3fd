"""The messages between a worker and a process that carries its jobs: reports upwards, words downwards.

Contract: `encode(report)` returns at most MAXIMUM_REPORT bytes, whatever texts the report has.  `decode(data)` accepts
exactly the fields that a report of that kind has, each in its range, and raises `ReportError` for everything else: a
process may be damaged by the program that it runs.  A report is the number of its kind, its fields in the order of the
class, and its text, if it has one, as the rest.  It is written into the memory of `report_memory`.  The words are
messages of a SOCK_SEQPACKET socketpair.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass
from typing import ClassVar, TypeAlias, TypeVar

from cexec.protocol.base.limits import IDENTITY_SIZE

MAXIMUM_REPORT = 2048  # bytes (ours) of one report; longer texts are cut
WAKE = b"!"  # the only message of a process to its worker: there are reports to be read
JOBS_AHEAD = 16  # (ours) jobs that one AHEAD allows: the worker reads together what it is told of them
LARGEST_PID = 1 << 22  # PID_MAX_LIMIT of Linux
LONGEST_TIME = 1e9  # seconds (ours), 31 years: more is no time that a job took


_Number = TypeVar("_Number", int, float)


class ReportError(Exception):
    """A process has sent something that makes no sense.  It is out of order, and nothing that it says counts."""


class Word(enum.Enum):
    """The messages of a worker to a process.

    A process remembers each of them until it matters, so a word that crosses a report on its way does no harm.
    """

    OFFER = b"offer"  # a slot is reserved for the next job: say CONFIRM
    WITHDRAW = b"withdraw"  # another client waits: take the offer back, unless the job has come
    LAST = b"last"  # take no further job
    AHEAD = b"ahead"  # nobody else waits for the slot: the next jobs may be offered without an OFFER
    ASK = b"ask"  # somebody waits: every job needs an OFFER again
    FULL = b"full"  # the client has as many bytes of files here as it may: take no more of them
    WANTED = b"wanted"  # another client waits for the slot of the job that runs, whose client wants to hear that


@dataclass(slots=True)
class Taken:
    """The client has sent GO.  `hears`: it wants to hear when another client waits for the slot."""

    name: ClassVar = "taken"
    job_id: bytes
    attempt: int
    hears: bool = False


@dataclass(slots=True)
class Starting:
    """The program is about to be started: from here on it may run, although nobody has told so yet."""

    name: ClassVar = "starting"


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


Report: TypeAlias = Taken | Starting | ProgramStarted | Stored | JobRefused | JobFinished | Broken | Idle | Over | Free

REPORTS: tuple[type[Report], ...] = (
    Taken, Starting, ProgramStarted, JobRefused, JobFinished, Broken, Idle, Over, Free, Stored,
)  # fmt: skip
_TAKEN, _STARTING, _STARTED, _REFUSED, _FINISHED, _BROKEN, _IDLE, _OVER, _FREE, _STORED = range(1, len(REPORTS) + 1)
# The number of the kind and the fields, without texts.  Bits and numbers that no alert can carry cannot be written.
_TAKEN_FORM = struct.Struct(f"<B{IDENTITY_SIZE}sHB")
_STARTED_FORM = struct.Struct("<BI")
_STORED_FORM = struct.Struct("<BQ")
_FINISHED_FORM = struct.Struct("<BBQQddBB")
_FLAG_FORM = struct.Struct("<BB")


def encode(report: Report) -> bytes:
    """Returns the bytes of a report; its text is cut if it is too long."""
    if isinstance(report, Taken):
        return _TAKEN_FORM.pack(_TAKEN, report.job_id, report.attempt, report.hears)
    if isinstance(report, ProgramStarted):
        return _STARTED_FORM.pack(_STARTED, report.pid)
    if isinstance(report, Stored):
        return _STORED_FORM.pack(_STORED, report.size)
    if isinstance(report, JobFinished):
        front = _FINISHED_FORM.pack(
            _FINISHED, report.status, report.sent, report.received, report.cpu, report.duration, report.idle,
            report.ahead,
        )  # fmt: skip
        return front + _text(report.reason, len(front))
    if isinstance(report, JobRefused):
        return _FLAG_FORM.pack(_REFUSED, report.unfit) + _text(report.reason, _FLAG_FORM.size)
    if isinstance(report, Broken):
        return bytes([_BROKEN]) + _text(report.reason, 1)
    if isinstance(report, Over):
        return _FLAG_FORM.pack(_OVER, report.released) + _text(report.reason, _FLAG_FORM.size)
    if isinstance(report, Free):
        return _FLAG_FORM.pack(_FREE, report.released)
    return bytes([_IDLE if isinstance(report, Idle) else _STARTING])


def _text(text: str, size: int) -> bytes:
    """Returns a text that fits behind `size` bytes."""
    return text.encode("utf-8", "replace")[: MAXIMUM_REPORT - size].decode("utf-8", "ignore").encode()


def decode(data: bytes) -> Report:
    """Returns the report that the bytes are; raises `ReportError` if they are none."""
    kind = data[0] if 0 < len(data) <= MAXIMUM_REPORT else 0
    try:
        if kind == _TAKEN:
            _, job_id, attempt, hears = _TAKEN_FORM.unpack(data)
            return Taken(job_id, attempt, _flag(hears))
        if kind == _STARTED:
            return ProgramStarted(_bounded(_STARTED_FORM.unpack(data)[1], LARGEST_PID))
        if kind == _STORED:
            return Stored(_STORED_FORM.unpack(data)[1])
        if kind == _FINISHED:
            return _finished(data)
        if kind == _BROKEN:
            return Broken(data[1:].decode())
        if kind in (_STARTING, _IDLE) and len(data) == 1:
            return Starting() if kind == _STARTING else Idle()
        if kind in (_REFUSED, _OVER, _FREE):
            flag, text = _flag(data[1]), data[_FLAG_FORM.size :].decode()
            if kind == _REFUSED:
                return JobRefused(text, unfit=flag)
            if kind == _OVER:
                return Over(text, released=flag)
            if not text:
                return Free(released=flag)
    except (struct.error, IndexError, UnicodeDecodeError):
        raise ReportError("it sent a report with an impossible value") from None
    raise ReportError("it sent an unknown report")


def _finished(data: bytes) -> JobFinished:
    _, status, sent, received, cpu, duration, idle, ahead = _FINISHED_FORM.unpack_from(data)
    report = JobFinished(
        status=status,
        sent=sent,
        received=received,
        cpu=_bounded(cpu, LONGEST_TIME),
        reason=data[_FINISHED_FORM.size :].decode(),
        duration=_bounded(duration, LONGEST_TIME),
        idle=_flag(idle),
        ahead=_flag(ahead),
    )
    if report.ahead and not report.idle:
        raise ReportError("it sent a report that contradicts itself")
    return report


def _bounded(value: _Number, largest: float) -> _Number:
    if not 0 <= value <= largest:  # so written, NaN is refused, too
        raise ReportError("it sent a report with an impossible number")
    return value


def _flag(value: int) -> bool:
    return bool(_bounded(value, 1))
