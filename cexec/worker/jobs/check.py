"""The reasons for which a worker does not start a job, before it has opened anything for it.

Contract: `check(go, program)` returns the limits of the job, or the refusal that its client is told; after that
`terminal_of(go)` returns the terminal that the job asks for, if it does.  They look at values only.  docs/protocol.md
sections 4.2 (GO) and 4.5.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cexec.errors import ProtocolError
from cexec.protocol.connection import options
from cexec.protocol.connection.frames import HERE, PERMANENT, Go, Refusal
from cexec.protocol.connection.program_offer import is_option
from cexec.protocol.connection.terminal_request import TerminalRequest, fits
from cexec.system.process.resource_limits import Limits
from cexec.worker.jobs import shell
from cexec.worker.jobs.sent_programs import check_program

if TYPE_CHECKING:
    from cexec.worker.jobs.program import Program

VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}\Z")  # a peer variable's name, docs/protocol.md section 4.2
MAXIMUM_DIRECTORIES = 10_000  # (ours) in the names of a job's files: making them takes a fraction of a second
KNOWN_OPTIONS = {*options.LIMITS, options.FETCH_ON_FAILURE, options.LEASE, options.TELL_WANTED, options.TERMINAL,
                 options.SUBSYSTEM}  # fmt: skip


def check(go: Go, program: Program) -> Limits | Refusal:
    """Returns the stricter ones of the worker's and the client's limits if the job may be started."""
    if go.arguments and not program.allow_arguments:
        return Refusal(
            PERMANENT, "arguments are not allowed here; the owner can allow them with: cservice --allow-args"
        )
    bad = next((name for name in go.environment if not VARIABLE.match(name)), None)
    if bad is not None:
        return Refusal(PERMANENT, f"{bad[:80]!r} cannot be a variable's name")
    if sum(stream.name.count("/") for stream in go.streams) > MAXIMUM_DIRECTORIES:
        return Refusal(
            PERMANENT, f"the names of its files have more than {MAXIMUM_DIRECTORIES} directories; send one archive"
        )
    unknown = {name for name in go.options.keys() - KNOWN_OPTIONS if not is_option(name)}
    if unknown:
        return Refusal(HERE, f"option {min(unknown)} is not known here; update cexec on this worker")
    try:
        limits = program.limits.stricter(Limits.from_options(go.options))
    except ValueError as error:
        return Refusal(PERMANENT, str(error))
    return (
        shell.check(go, program.shell) or _check_terminal(go, program) or check_program(go, program.programs) or limits
    )


def terminal_of(go: Go) -> TerminalRequest | None:
    """Returns the terminal of a job that may be started."""
    text = go.options.get(options.TERMINAL)
    return None if text is None else TerminalRequest.decode(text)


def _check_terminal(go: Go, program: Program) -> Refusal | None:
    if options.TERMINAL not in go.options:
        return None
    if not program.terminal:
        return Refusal(HERE, "no terminal is given here: cservice was started with --no-tty")
    try:
        terminal_of(go)
    except ProtocolError as error:
        return Refusal(PERMANENT, str(error))
    if not fits(go.streams):
        return Refusal(PERMANENT, "a terminal has the standard input, and the standard output and error in one stream")
    return None
