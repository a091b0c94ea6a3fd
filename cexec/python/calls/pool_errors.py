"""What a caller of an `Executor` is told, in classes that programs for concurrent.futures know.

Contract: messages are as in `cexec.errors`.
"""

from __future__ import annotations

import signal
from concurrent.futures import BrokenExecutor
from typing import TYPE_CHECKING

from cexec.errors import CexecError, NoWorkerError

if TYPE_CHECKING:
    from collections.abc import Sequence


class LostCallError(CexecError, BrokenExecutor):
    """Processes have ended while they ran this call, more often than it may be repeated; the pool goes on."""


class InitializerError(CexecError, BrokenExecutor):
    """The initializer has raised, or its process has ended: no call can run in this executor."""


class ArrayNotKeptError(CexecError):
    """A worker cannot keep an array that calls share."""


class NoPoolError(NoWorkerError):
    """There are workers, but what they serve is not `cexec.pool`, or not one that fits to this Python."""


class NotThisWorkerError(CexecError):
    """The worker answers, but cannot run calls of this program; `is_pool`: although it serves `cexec.pool`."""

    def __init__(self, worker: str, reason: str, *, is_pool: bool) -> None:
        super().__init__(f"{worker} {reason}")
        self.worker = worker
        self.is_pool = is_pool


def describe_status(status: int) -> str:
    """Returns the end of a process in words; a signal is below zero."""
    if status >= 0:
        return f"its process has exited with status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    hint = ", perhaps because the memory is used up" if -status == signal.SIGKILL else ""
    return f"its process was ended by {name}{hint}"


def lost_call(name: str, arguments: str, crashes: Sequence[tuple[str, str]]) -> LostCallError:
    """`arguments`: as text, shortened."""
    told = "; ".join(f"at {worker} {reason}" for worker, reason in crashes)
    lost = "was lost once" if len(crashes) == 1 else f"was lost {len(crashes)} times"
    return LostCallError(f"the call {name}({arguments}) {lost}: {told}")


def lacking_array(name: str, worker: str, problem: str) -> ArrayNotKeptError:
    why = problem or "its file is removed again and again"
    return ArrayNotKeptError(
        f"an array of the call {name} cannot be kept at {worker}: {why}; with max_nbytes=None each call carries its own"
    )
