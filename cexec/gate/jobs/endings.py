"""How the end of an errand is told: state, exit status, signal and reason.

Contract: pure.  A `JobEnding` says "succeeded" only for a program that has ended with status 0, all of whose outputs
and files are here.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cexec.errors import JobCancelledError
from cexec.gate.store.job_records import JobState
from cexec.protocol.connection.frames import EXITED

if TYPE_CHECKING:
    from cexec.gate.jobs.stored_errand import StoredErrand


@dataclass(frozen=True, slots=True)
class JobEnding:
    """`exit_status` and `signal`: how the program has ended, if it has."""

    state: JobState
    exit_status: int | None = None
    signal: str | None = None
    reason: str | None = None


def ending_of(errand: StoredErrand, decided: tuple[JobState, str] | None) -> JobEnding:
    """Returns the ending of an errand that is over; `decided`: state and reason of a caller who has ended it."""
    if errand.error is not None:
        if isinstance(errand.error, JobCancelledError):
            state, reason = decided or (JobState.CANCELLED, str(errand.error))
            return JobEnding(state, reason=reason)
        return JobEnding(JobState.FAILED, reason=errand.trouble or str(errand.error))
    result = errand.result
    assert result is not None
    if result.kind != EXITED:
        return JobEnding(JobState.FAILED, signal=signal_name(result.status), reason=result.message or None)
    state = JobState.SUCCEEDED if result.status == 0 else JobState.FAILED
    return JobEnding(state, exit_status=result.status, reason=result.message or None)


def signal_name(number: int) -> str:
    """Returns the name of a signal by Linux's number."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
