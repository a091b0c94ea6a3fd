"""Makes the lines that cservice writes when it starts: the first one, and warnings.

Contract: each function writes to the log; `containment` returns words, and `check_private_directories` may raise.
cservice(1).
"""

from __future__ import annotations

import os
import pwd
from typing import TYPE_CHECKING

from cexec.errors import LocalError
from cexec.system.process import job_group, process_tree
from cexec.system.storage.user_files import quoted
from cexec.worker.jobs import private_directory

if TYPE_CHECKING:
    from cexec.net.group_sockets import GroupSockets
    from cexec.protocol.base.keys import WorkerKey
    from cexec.system.storage.eventlog import EventLog
    from cexec.worker.jobs.program import Program

POOL = "cexec.pool"  # the module that `cexec.Executor` speaks with


def tell_that_it_serves(
    log: EventLog,
    keys: list[WorkerKey],
    slots: int,
    groups: GroupSockets,
    held_by: list[str],
    app: str,
    program: Program,
) -> None:
    """The first line: what is served, where it is heard, what holds the processes of jobs, and the client's command.

    A pool for Python calls and a shell service say what their keys are worth.
    """
    client = app if app.endswith(".pub") else f"{app.removesuffix('.worker')}.pub"
    name = keys[0].identity.certificate.name
    command, use = f"cexec {client}", f"run a job with: cexec {client}"
    if program.shell is not None:
        command = f"CEXEC_SSH_KEY={quoted(client)} cexec-ssh {quoted(name)} COMMAND"
        use = f"whoever holds {client} has this account, {program.shell.account}; run a command with: {command}"
    elif is_pool(program):
        command = f'cexec.Executor("{client}")'
        use = f"whoever holds {client} has this account, {account_name()}; use it in Python: {command}"
    plural = "slot" if slots == 1 else "slots"
    fingerprints = [key.fingerprint for key in keys]
    log.banner(
        f"cservice: serving {' and '.join(fingerprints)} with {slots} {plural}, listening on {groups.description()}; "
        f"jobs are held by {', '.join(held_by)}; "
        f"{use}",
        fingerprint=fingerprints[0],
        also=fingerprints[1:] or None,
        name=name,
        slots=slots,
        addresses=groups.addresses(),
        containment=held_by,
        command=command,
    )


def is_pool(program: Program) -> bool:
    """Returns True if it is `python3 -m cexec.pool`, which runs whatever code its clients send."""
    words = [program.written, *program.arguments]
    return any(words[place : place + 2] == ["-m", POOL] for place in range(len(words)))


def account_name() -> str:
    """Returns the name of the user that jobs run as, or the number if it has none."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return f"number {os.geteuid()}"


def containment(program: Program) -> list[str]:
    """Names, for people, the means that end the processes of a job with it."""
    found = ["process tree" if process_tree.trees_are_seen() else "process group"]
    if job_group.place is not None:
        found.append("control group")
    if program.sandbox is not None:
        found.append("isolation with the network" if program.sandbox.network else "isolation")
    return found


def check_private_directories(needed: bool) -> list[tuple[str, str, str]]:
    """Raises `LocalError` if no job can have a directory of its own and every job needs one.

    Returns what the log is to be told otherwise: events, each with the name and the value of a field.
    """
    found = private_directory.problem()
    if found and needed:
        raise LocalError(f"--private-dir: {found}")
    return [("warning", "reason", f"jobs that bring or fetch files will be refused: {found}")] if found else []


def warn_of_home(log: EventLog, program: Program) -> None:
    """Says so if the account of a shell service has no home."""
    if program.shell is not None and not os.path.isdir(program.shell.home):
        home = program.shell.home
        log.event("warning", reason=f"there is no directory {home}, the home of this account; commands run in /")


def warn_of_root(log: EventLog, program: Program) -> None:
    """Says so if root runs what clients choose."""
    if os.geteuid() == 0 and program.sandbox is None and (program.allow_arguments or program.programs is not None):
        what = "commands" if program.shell is not None else "arguments" if program.programs is None else "programs"
        log.event("warning", reason=f"clients choose {what} that root runs; add --user NAME or --isolate")
