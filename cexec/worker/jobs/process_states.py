"""The states of a process that carries jobs, as its worker sees them, and the moves between them.

Contract: TRANSITIONS is complete.  A report that is missing for the present state cannot come from a process that works
as it should; a word that is missing has no meaning there.  Every state also leads to GONE.  The classes below hold what
belongs to a connection, to a job and to a report.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from cexec.net.destinations import address_label
from cexec.worker.jobs.reports import (
    JOBS_AHEAD,
    Broken,
    Free,
    Idle,
    JobFinished,
    JobRefused,
    Over,
    ProgramStarted,
    Report,
    Starting,
    Stored,
    Taken,
    Word,
)

if TYPE_CHECKING:
    from cexec.net.groups import Sockaddr
    from cexec.protocol.base.certificate import Certificate
    from cexec.protocol.decisions.remembered import Origin
    from cexec.worker.discovery.alert_sender import AlertedJob, RunningJob


class State(enum.Enum):
    """The value completes the sentence "it is ...".  `moves` is the state's row of TRANSITIONS."""

    moves: dict[Move, State]

    SPARE = "without a connection"
    OFFERED = "offering itself"  # a slot is reserved; CONFIRM has been said, or will be
    TAKEN = "preparing a job"  # the client has given it; the slot is busy
    STARTING = "starting a job"  # its program may run
    RUNNING = "running a job"
    ENDED = "ending"  # the last job has ended, and perhaps something of it is still being ended
    WAITING = "waiting for a slot"  # the lease takes part in the lottery
    DISMISSED = "without a further job"  # the lease waited, and has been told not to
    BROKEN = "breaking off"  # the job was lost; its slot is busy until all of it has ended
    GONE = "gone"


class Act(enum.Enum):
    """A worker gives a process a connection."""

    GIVE = "give"


Move: TypeAlias = "type[Report] | Word | Act"

TRANSITIONS: dict[State, dict[Move, State]] = {
    State.SPARE: {Act.GIVE: State.OFFERED},
    State.OFFERED: {
        Taken: State.TAKEN,
        Over: State.ENDED,
        Word.LAST: State.OFFERED,
        Word.WITHDRAW: State.OFFERED,
    },
    State.TAKEN: {
        Stored: State.TAKEN,
        Word.FULL: State.TAKEN,
        Word.WANTED: State.TAKEN,
        Starting: State.STARTING,
        JobRefused: State.ENDED,
        Broken: State.BROKEN,
        Word.LAST: State.TAKEN,
    },
    State.STARTING: {
        Stored: State.STARTING,
        ProgramStarted: State.RUNNING,
        JobRefused: State.ENDED,
        Word.LAST: State.STARTING,
        Word.WANTED: State.STARTING,
    },
    State.RUNNING: {
        Stored: State.RUNNING,
        JobFinished: State.ENDED,
        Broken: State.BROKEN,
        Word.LAST: State.RUNNING,
        Word.WANTED: State.RUNNING,
    },
    State.ENDED: {Stored: State.ENDED, Idle: State.WAITING, Free: State.SPARE, Word.LAST: State.ENDED},
    State.WAITING: {Word.OFFER: State.OFFERED, Word.LAST: State.DISMISSED, Over: State.ENDED},
    State.DISMISSED: {Over: State.ENDED},
    State.BROKEN: {},
    State.GONE: {},
}
# A member's hash is a call of Python's, and until 3.12 its look-up in the class is one, too: too slow for the loop.
for _state, _moves in TRANSITIONS.items():
    _state.moves = _moves
SPARE, OFFERED, TAKEN, STARTING, RUNNING, ENDED, WAITING, DISMISSED, BROKEN, GONE = State

BUSY = (TAKEN, STARTING, RUNNING, ENDED, BROKEN)  # there is a job, or something is left of one


@dataclass(slots=True)
class CarriedConnection:
    """Holds what all jobs of one connection share, and the marks that they leave on it.

    `announced` is the mac1 of the announcement.  `fields` name the latest job in the log, at first the announced one.
    """

    announced: bytes
    weight: int
    origin: Origin
    client: Sockaddr
    certificate: Certificate  # of the client
    worker_address: str
    application: int  # its index
    fields: dict[str, object]
    latency: float  # seconds that the client took for its answer to the first flight
    finished: CurrentJob | None = None  # a job whose result the client has not acknowledged
    taken: bool = False  # at least one job has been given
    leased: bool = False  # it has waited for another job

    @property
    def peer(self) -> tuple[str, str]:
        """Who the client is: its certificate's name and its host, because many share a certificate."""
        return self.certificate.name, str(self.client[0])

    @property
    def name(self) -> str:
        """The client's name."""
        return self.certificate.name

    @property
    def label(self) -> str:
        """The client's address, for the log."""
        return address_label(self.client[0], "", self.client[1], 0)


@dataclass(slots=True)
class CurrentJob:
    """A job that a client has given.  It exists until it has ended, or its process has.

    `identity` is what the bidder calls it, `told` what the loggers are told of it, `fields` what the log says.
    """

    identity: bytes
    told: AlertedJob
    fields: dict[str, object]
    taken_at: float
    alert: RunningJob | None = None  # from the start of the program on

    def program_started(self, alert: RunningJob) -> None:
        self.alert = alert


@dataclass(slots=True)
class Gone:
    """The process has ended.  `reason` is empty unless it took something along that it had to report on."""

    reason: str


@dataclass(slots=True)
class ReportStep:
    """One report, with the state, the connection, the job and the ticket that the process had when it came.

    For `Taken` the job is the one that begins.  The ticket is what the bidder calls the connection's next job.
    """

    report: Report | Gone
    before: State
    connection: CarriedConnection | None
    job: CurrentJob | None
    ticket: bytes


@dataclass(slots=True)
class Credit:
    """The jobs that a process may still offer without an OFFER, as far as its worker knows.

    The process counts, too, and it may be ahead of its reports.  So `granted` stays set until an ASK has been said,
    although `left` may have come down to 0.
    """

    left: int = 0
    granted: bool = False

    def low(self) -> bool:
        """Returns True if it is time for another AHEAD.  Half is left then, so that the process need not wait."""
        return self.left <= JOBS_AHEAD // 2

    def grant(self) -> None:
        self.left, self.granted = JOBS_AHEAD, True

    def revoke(self) -> None:
        self.left, self.granted = 0, False

    def spend(self) -> None:
        self.left = max(0, self.left - 1)  # an ASK may have crossed the report
