"""What is kept of jobs, pools and changes of states: values, as clients are told them.

Contract: times are seconds since 1970; `document` has them as RFC 3339 texts.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum


class JobState(StrEnum):
    """The states of a job."""

    QUEUED = "queued"  # no worker has begun its program
    RUNNING = "running"  # its program runs
    SUCCEEDED = "succeeded"  # its program has ended with status 0
    FAILED = "failed"  # its program has ended otherwise, or could not be run to its end
    CANCELLED = "cancelled"  # somebody has ended it
    INTERRUPTED = "interrupted"  # the cgate that ran it was killed


OVER = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.INTERRUPTED})
TRANSITIONS = {  # from each state, those that can follow
    JobState.QUEUED: frozenset({JobState.RUNNING, *OVER}),
    JobState.RUNNING: frozenset({JobState.QUEUED, *OVER}),  # queued again: its worker was lost
    **dict.fromkeys(OVER, frozenset()),
}


@dataclass(frozen=True, slots=True)
class JobRecord:
    """A job.  `owner`: the name of the token that has started it; `instance`: the UUID of its worker, which is
    known from the beginning for a job of a pool.

    `exit_status`, `signal`: how its program has ended; `reason`: why it has ended otherwise; `attempts`: how many
    workers were given it; `expired`: when its outputs were removed; `files`: names that it has brought back,
    with the numbers of `OutputFiles.fetched`.
    """

    id: str
    app: str
    owner: str
    pool: str | None
    instance: str | None
    args: tuple[str, ...]
    state: JobState
    exit_status: int | None
    signal: str | None
    reason: str | None
    worker: str | None
    attempts: int
    submitted: float
    started: float | None
    ended: float | None
    expired: float | None
    files: dict[str, int]

    @property
    def over(self) -> bool:
        return self.state in OVER

    def document(self) -> dict[str, object]:
        """Returns the job as clients are told it."""
        return {
            "id": self.id,
            "app": self.app,
            "owner": self.owner,
            "pool": self.pool,
            "args": list(self.args),
            "state": self.state.value,
            "exit_status": self.exit_status,
            "signal": self.signal,
            "reason": self.reason,
            "worker": self.worker,
            "instance": self.instance,
            "attempts": self.attempts,
            "submitted": show_time(self.submitted),
            "started": show_time(self.started),
            "ended": show_time(self.ended),
            "files": list(self.files),
        }


@dataclass(frozen=True, slots=True)
class PoolRecord:
    """Jobs that were started together, one for each worker."""

    id: str
    number: int
    app: str
    owner: str
    submitted: float
    ended: float | None

    def document(self, jobs: list[JobRecord]) -> dict[str, object]:
        """Returns the pool as clients are told it."""
        return {
            "id": self.id,
            "app": self.app,
            "owner": self.owner,
            "state": self.state(jobs),
            "submitted": show_time(self.submitted),
            "ended": show_time(self.ended),
            "jobs": [one.document() for one in jobs],
        }

    def state(self, jobs: list[JobRecord]) -> str:
        """Returns "running" until all jobs are over, then "succeeded" if all have succeeded, else "failed"."""
        if self.ended is None:
            return JobState.RUNNING.value
        good = all(one.state == JobState.SUCCEEDED for one in jobs)
        return JobState.SUCCEEDED.value if good else JobState.FAILED.value


@dataclass(frozen=True, slots=True)
class EventRecord:
    """A change of a job's state; its ids only grow."""

    id: int
    at: float
    job: str
    pool: str | None
    app: str
    state: str
    exit_status: int | None
    signal: str | None
    worker: str | None

    def document(self) -> dict[str, object]:
        """Returns the data of the server-sent event."""
        return {
            "job": self.job,
            "pool": self.pool,
            "app": self.app,
            "state": self.state,
            "exit_status": self.exit_status,
            "signal": self.signal,
            "worker": self.worker,
            "at": show_time(self.at),
        }


def show_time(seconds: float | None) -> str | None:
    """Returns an RFC 3339 text with milliseconds."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
