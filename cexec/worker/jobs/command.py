"""The command of one job: what is executed, with which words and in which environment.

Contract: `command_of` is called in the directory in which the program will run.  argv[0] is what the worker's owner
wrote, because programs find themselves by it: a virtual environment's python its modules, busybox its purpose.  A
relative path means another file in a private directory, so it becomes an absolute one there.  In a sandbox it is always
the path of the file, because bwrap takes no other.  The command of a shell service is made by `shell`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cexec.worker.jobs import shell
from cexec.worker.jobs.sent_programs import PLACE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cexec.protocol.connection.frames import Go
    from cexec.worker.jobs.program import Program
    from cexec.worker.jobs.workplace import Workplace


def name_of(program: Program) -> str:
    """Returns the program's name, for messages."""
    return os.path.basename(program.executable).replace(PLACE, "program")


def command_of(
    program: Program, workplace: Workplace, go: Go, extra: Mapping[bytes, bytes]
) -> tuple[str, list[bytes | str], dict[bytes, bytes]]:
    """Returns the executable file, argv and the environment.  `extra` are the job's own variables."""
    if program.shell is not None:
        return _shell_command(program, program.shell, workplace, go, extra)
    executable, *given = workplace.command([program.executable, *program.arguments])
    words: list[bytes | str] = [_first_word(program, workplace, executable), *given, *go.arguments]
    if program.sandbox is not None:
        words = program.sandbox.command([executable, *words[1:]], os.getcwd(), private=workplace.private)
        executable = os.fsdecode(words[0])
    environment = {**program.environment, **extra}
    if workplace.private:
        environment[b"PWD"] = os.getcwdb()
    return executable, words, environment


def _shell_command(
    program: Program, found: shell.Shell, workplace: Workplace, go: Go, extra: Mapping[bytes, bytes]
) -> tuple[str, list[bytes | str], dict[bytes, bytes]]:
    words, environment = shell.command_of(found, go, extra)
    if program.sandbox is None:
        return found.path, words, environment
    inside = shell.without_first_word(words, found.path)
    words = program.sandbox.command(inside, os.getcwd(), private=workplace.private)
    return os.fsdecode(words[0]), words, environment


def _first_word(program: Program, workplace: Workplace, executable: str) -> str:
    if not program.written or program.executable == PLACE:
        return name_of(program)
    moved = workplace.private and "/" in program.written and not os.path.isabs(program.written)
    return executable if moved else program.written
