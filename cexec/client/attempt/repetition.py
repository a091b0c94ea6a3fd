"""Says if a job whose attempt has failed may have another one, and in words why not.

Contract: pure.  Each method is told what has happened to an attempt; it returns the event in words, and the error that
ends the job, or None if another attempt may follow.  `retries` counts only attempts that may have run; if it is
negative, nobody expects a repetition, and no reason against one is given.  A worker that
did not start the program, or took its offer back, costs none of them, but both happen only so often.
docs/protocol.md section 7, N3.
"""

from __future__ import annotations

from cexec.errors import CexecError, RefusedError, WithdrawnError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

MAXIMUM_REFUSALS = 5  # workers (ours) that may fail to start the program; more would hide a fault that all share
MAXIMUM_WITHDRAWALS = 100  # offers (ours) that may be taken back: no fault, but a worker could do that for ever


class Repetitions:
    """Counts what has happened to the attempts of one job."""

    __slots__ = ("_failures", "_refusals", "_retries", "_withdrawals")

    def __init__(self, retries: int) -> None:
        self._retries = retries
        self._failures = self._refusals = self._withdrawals = 0

    def withdrawn(self, who: str, error: WithdrawnError) -> tuple[str, CexecError | None]:
        """The worker has taken its offer back, or has returned the job."""
        self._withdrawals += 1
        reason = f"{who} has taken its offer back: {error}"
        return reason, None if self._withdrawals < MAXIMUM_WITHDRAWALS else WithdrawnError(reason)

    def refused(self, who: str, error: RefusedError) -> tuple[str, CexecError | None]:
        """The worker has not started the program."""
        self._refusals += 1
        reason = f"{who} refuses the job: {error}"
        may = not error.permanent and self._refusals < MAXIMUM_REFUSALS
        return reason, None if may else RefusedError(reason, error.permanent)

    def lost(
        self, who: str, error: CexecError, *, once: bool, obstacle: Callable[[], str]
    ) -> tuple[str, CexecError | None]:
        """The worker has failed, and the program may have run.

        `once`: its jobs must never be repeated.  `obstacle` returns why a repetition would be noticed, or nothing.
        """
        reason = f"{who} failed: {error}"
        if self._retries < 0:
            return reason, type(error)(reason)
        if once:
            why = "this service must not run a job twice (cservice --once)"
        elif self._failures == self._retries:
            why = f"{self._failures + 1} attempts are enough (--retries)" if self._failures else "--retries is 0"
        else:
            why = obstacle()
        if why:
            return reason, type(error)(f"{reason}; not repeated, because {why}")
        self._failures += 1
        return reason, None
