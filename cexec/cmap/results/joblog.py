"""--joblog: a line for each task that has ended, in the columns of GNU parallel, so that its users' scripts work.

Contract: `line(outcome)` is one line with its end; a line end in the command is written as NUL, as GNU parallel does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cexec.cmap.inputs.tables import encode

if TYPE_CHECKING:
    from cexec.cmap.results.outcome import TaskOutcome

COLUMNS = ("Seq", "Host", "Starttime", "JobRuntime", "Send", "Receive", "Exitval", "Signal", "Command")
HEADER = "\t".join(COLUMNS).encode() + b"\n"


def fields(outcome: TaskOutcome) -> tuple[str, ...]:
    """Returns the columns' values; the worker of a task that had no worker is written as `-`."""
    return (
        str(outcome.number),
        outcome.worker or "-",
        f"{outcome.started:.3f}",
        f"{outcome.runtime:10.3f}",
        str(outcome.sent),
        str(outcome.received),
        str(outcome.exitval),
        str(outcome.signal),
        outcome.command(),
    )


def line(outcome: TaskOutcome) -> bytes:
    *others, command = fields(outcome)
    return encode("\t".join([*others, command.replace("\n", "\0")]) + "\n")
