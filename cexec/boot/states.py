"""One host on its way: named states, events as classes, and the one table that says what follows what.

Contract: `Journey.apply(event)` moves to the state that TABLE has for the event and notes what it brings.  An event
that does not belong to the present state is a mistake of ours and raises `AssertionError`.  Pure: no clock, no I/O.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from cexec.boot.dummy_command import HostFacts
from cexec.boot.failures import HostFailure
from cexec.boot.hosts import Host


class HostState(StrEnum):
    """The words are those of tables and of --json."""

    WAITING = "waiting"
    CONNECTING = "connecting"
    PROBING = "probing"
    LOOKING = "looking"
    DECIDING = "deciding"
    GATHERING = "gathering wheels"
    INSTALLING = "installing"
    STARTING = "starting"
    ANSWERING = "starting to answer"
    STOPPING = "stopping"
    REMOVING = "removing"
    SERVING = "serving"
    STOPPED = "stopped"
    REMOVED = "removed"
    ABSENT = "absent"
    PLANNED = "planned"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class VisitBegan:
    """ssh was started."""


@dataclass(frozen=True, slots=True)
class SshConnected:
    """The dummy command has answered; `noise`: what the login shell has printed before, or nothing."""

    noise: str


@dataclass(frozen=True, slots=True)
class Probed:
    """The host has a Python that fits."""

    facts: HostFacts


@dataclass(frozen=True, slots=True)
class Looked:
    """The agent has described the host (`remote/main.py`, look)."""

    seen: dict[str, Any]


@dataclass(frozen=True, slots=True)
class WheelsWanted:
    """Its wheels are looked for."""


@dataclass(frozen=True, slots=True)
class Gathered:
    """All wheels are on this machine."""

    release: str
    size: int


@dataclass(frozen=True, slots=True)
class Installed:
    """The release is there.  `by`: the host with the same home that has installed it in this run, or nothing."""

    new: bool
    by: str


@dataclass(frozen=True, slots=True)
class WorkerStarted:
    """cservice serves, as the agent says; `record`: that of the worker.  `new`: it was started now."""

    record: dict[str, Any]
    new: bool


@dataclass(frozen=True, slots=True)
class CensusAnswered:
    """The worker has answered the census.  `trouble`: what is wrong with it, or nothing."""

    address: str
    trouble: str


@dataclass(frozen=True, slots=True)
class Stopping:
    """The worker is being stopped."""


@dataclass(frozen=True, slots=True)
class Stopped:
    """No worker of the application runs there; `ran`: one did before."""

    ran: bool


@dataclass(frozen=True, slots=True)
class Removing:
    """The agent removes."""


@dataclass(frozen=True, slots=True)
class Removed:
    """`workers`: how many; `left`: files that are not ours."""

    workers: int
    left: list[str]


@dataclass(frozen=True, slots=True)
class Planned:
    """`words`: what a run without --dry-run would do; `changes`: it would do something."""

    words: str
    changes: bool


@dataclass(frozen=True, slots=True)
class Missing:
    """There is no worker of the application."""


@dataclass(frozen=True, slots=True)
class Noted:
    """Something that people should know; the state stays."""

    words: str


@dataclass(frozen=True, slots=True)
class StepFailed:
    """A step has failed."""

    failure: HostFailure


@dataclass(frozen=True, slots=True)
class Again:
    """It is tried again from the beginning."""


Event = (
    VisitBegan | SshConnected | Probed | Looked | WheelsWanted | Gathered | Installed | WorkerStarted | CensusAnswered
    | Stopping | Stopped | Removing | Removed | Planned | Missing | Noted | StepFailed | Again
)  # fmt: skip

_S = HostState
UNDER_WAY = frozenset(
    {
        _S.CONNECTING, _S.PROBING, _S.LOOKING, _S.DECIDING, _S.GATHERING, _S.INSTALLING, _S.STARTING, _S.ANSWERING,
        _S.STOPPING, _S.REMOVING,
    }
)  # fmt: skip
TABLE: dict[type[Any], tuple[frozenset[HostState], HostState]] = {
    VisitBegan: (frozenset({_S.WAITING}), _S.CONNECTING),
    SshConnected: (frozenset({_S.CONNECTING}), _S.PROBING),
    Probed: (frozenset({_S.PROBING}), _S.LOOKING),
    Looked: (frozenset({_S.LOOKING}), _S.DECIDING),
    WheelsWanted: (frozenset({_S.DECIDING}), _S.GATHERING),
    Gathered: (frozenset({_S.GATHERING}), _S.INSTALLING),
    Installed: (frozenset({_S.INSTALLING}), _S.STARTING),
    WorkerStarted: (frozenset({_S.DECIDING, _S.INSTALLING, _S.STARTING}), _S.ANSWERING),
    CensusAnswered: (frozenset({_S.ANSWERING}), _S.SERVING),
    Stopping: (frozenset({_S.DECIDING}), _S.STOPPING),
    Stopped: (frozenset({_S.DECIDING, _S.STOPPING}), _S.STOPPED),
    Removing: (UNDER_WAY | {_S.SERVING}, _S.REMOVING),
    Removed: (frozenset({_S.DECIDING, _S.REMOVING}), _S.REMOVED),
    Planned: (frozenset({_S.DECIDING, _S.INSTALLING}), _S.PLANNED),
    Missing: (frozenset({_S.DECIDING}), _S.ABSENT),
    StepFailed: (UNDER_WAY | {_S.WAITING, _S.SERVING}, _S.FAILED),
    Again: (frozenset({_S.FAILED}), _S.WAITING),
}


@dataclass(slots=True)
class Journey:
    """What is known of one host.  `changed`: something was changed there; `notes`: what people should know."""

    host: Host
    state: HostState = HostState.WAITING
    facts: HostFacts | None = None
    seen: dict[str, Any] = field(default_factory=dict)
    release: str = ""
    record: dict[str, Any] = field(default_factory=dict)
    address: str = ""
    changed: bool = False
    notes: list[str] = field(default_factory=list)
    failure: HostFailure | None = None
    tries: int = 0

    def apply(self, event: Event) -> None:
        if isinstance(event, Noted):
            self.notes.append(event.words)
            return
        allowed, state = TABLE[type(event)]
        assert self.state in allowed, f"{type(event).__name__} in the state {self.state}"
        self.state = state
        self._note(event)

    @property
    def words(self) -> str:
        """Returns what people should know: why it failed, else the notes."""
        return self.failure.text if self.failure is not None else "; ".join(dict.fromkeys(self.notes))

    def _note(self, event: Event) -> None:
        match event:
            case VisitBegan():
                self.tries += 1
                self.failure = None
                self.notes.clear()
            case SshConnected(noise):
                if noise:
                    self.notes.append(f"its login shell prints {noise!r}, which is passed over")
            case Probed(facts):
                self.facts = facts
            case Looked(seen):
                self.seen = seen
            case Gathered(release, _):
                self.release = release
            case Installed(new, by):
                self.changed |= new
                if by:
                    self.notes.append(f"shares its home with {by}")
            case WorkerStarted(record, new):
                self.record = record
                self.changed |= new
            case CensusAnswered(address, trouble):
                self.address = address
                if trouble:
                    self.notes.append(trouble)
            case Stopped(ran):
                self.changed |= ran
                if not ran:
                    self.notes.append("it was not running")
            case Removed(workers, left):
                self.changed |= workers > 0
                if left:
                    shown = ", ".join(left[:3]) + (f" and {len(left) - 3} more" if len(left) > 3 else "")
                    self.notes.append(f"not removed, because cboot has not put it there: {shown}")
            case Planned(words, changes):
                self.changed = changes
                self.notes.append(words)
            case StepFailed(failure):
                self.failure = failure
