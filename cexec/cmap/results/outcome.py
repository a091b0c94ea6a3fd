"""The end of a task in the terms of joblog, journal and report.

Contract: a value.  `started` is the wall clock's time, `runtime` seconds; `sent` and `received` are bytes; `exitval`
and `signal` are as in GNU parallel: a program that died of a signal has the exit value 0, one that we ended -1.  A
result was `rejected` by --validate, or because a file of it is missing, although its program had succeeded.
`last_words` are the last lines of a failed task's standard error.  `command()` is the task's command line, made only
for those who write it down.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ENDED_BY_US = -1  # exit value (GNU parallel) of a task that ran into its time limit or lost all of its workers


@dataclass(slots=True)
class TaskOutcome:
    """`number` is the row's; `reason` says why the task failed, and is empty if it did not."""

    number: int
    _: KW_ONLY
    succeeded: bool
    command: Callable[[], str]
    worker: str = ""
    started: float = 0.0
    runtime: float = 0.0
    sent: int = 0
    received: int = 0
    exitval: int = 0
    signal: int = 0
    reason: str = ""
    rejected: bool = False
    last_words: Sequence[str] = ()
