"""Tasks as commands for a shell, which run the same job with cexec(1).

Contract: pure, without quotes that only one shell understands: sh and bash do the same.  `shell_command` is for
--dry-run and complete: nothing of it reads the standard input of the shell, which may be the script itself.
`short_command` is for people, for the joblog and the journal: it leaves out the content of files.
"""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cexec.cmap.inputs.tables import decode
from cexec.cmap.inputs.tasks import BLOCK, DATA, FILE, NOTHING, PATH, SHARED, STDERR, STDOUT
from cexec.errors import UsageError

if TYPE_CHECKING:
    from cexec.cmap.inputs.store import Spool
    from cexec.cmap.inputs.tasks import Task

LONGEST_SHARED = 1 << 16  # bytes (ours) of standard input that are repeated in each command
_REDIRECTIONS = {STDOUT: ">", STDERR: "2>"}
_OCTAL_MINUS = "\\055"  # a format that begins with - would be an option
_DIRECTORY = '"$t"'  # of files that a command makes for itself


@dataclass(slots=True, frozen=True)
class Call:
    """Holds what all tasks' commands share: `options` of cexec, and the path of `shared` input (--tee).

    Without a path the input is in the commands themselves, if they are to be `complete`.
    """

    application: str
    options: tuple[str, ...] = ()
    shared: str = ""
    complete: bool = True


def shell_command(task: Task, call: Call) -> str:
    made = [f"{_DIRECTORY}/{number}" for number in range(1, len(task.texts) + 1)]
    files = [f"--send {path}={shlex.quote(_escaped(name))}" for path, (name, _) in zip(made, task.texts, strict=True)]
    command = _whole(task, call, files)
    if not made:
        return command
    steps = ["t=$(mktemp -d)", "trap 'rm -rf \"$t\"' EXIT"]
    steps += [f"{_printf(text)} > {path}" for path, (_, text) in zip(made, task.texts, strict=True)]
    return f"({' && '.join([*steps, command])})"


def short_command(task: Task, application: str) -> str:
    return _whole(task, Call(application, complete=False), [f"--input {shlex.quote(name)}" for name, _ in task.texts])


def _whole(task: Task, call: Call, files: list[str]) -> str:
    """Returns the call with its input and outputs.  `files` are the words for files that are made from templates."""
    own = [call.application, *(f"{name}={decode(value)}" for name, value in task.environment.items())]
    arguments = ["--", *map(decode, task.arguments)] if task.arguments else []
    line = " ".join([shlex.join(["cexec", *_options(task, call)]), *files, shlex.join([*own, *arguments])])
    stdin = task.stdin
    if stdin.kind == DATA and stdin.data:
        line = f"{_printf(stdin.data)} | {line}"
    elif stdin.kind == PATH:
        line += f" < {shlex.quote(stdin.path)}"
    elif stdin.kind == SHARED and call.shared:
        line += f" < {shlex.quote(call.shared)}"
    elif stdin.kind == SHARED and call.complete and stdin.spool is not None:
        line = f"{_printf(_content(stdin.spool))} | {line}"
    elif stdin.kind == BLOCK:
        line += f" < block-{task.number}"
    redirected = [result for result in task.results if result.kind in _REDIRECTIONS]
    return line + "".join(f" {_REDIRECTIONS[r.kind]} {shlex.quote(r.path)}" for r in redirected)


def _content(spool: Spool) -> bytes:
    """Returns all of standard input, which each command is to write again."""
    if spool.size > LONGEST_SHARED:
        raise UsageError(
            f"--dry-run with --tee needs standard input from a file, as in: < FILE; it is {spool.size} bytes"
        )
    return spool.read(0, spool.size)


def _options(task: Task, call: Call) -> list[str]:
    words = list(call.options)
    if task.stdin.kind == NOTHING or (task.stdin.kind == DATA and not task.stdin.data):
        words.append("-n")
    for name, path in task.sends:
        plain = name == os.path.basename(path)
        words += ["--send", _escaped(path) if plain else f"{_escaped(path, before=True)}={_escaped(name)}"]
    fetched = [result for result in task.results if result.kind == FILE]
    for result in fetched:
        words += ["--fetch", f"{_escaped(result.name, before=True)}={_escaped(result.path)}"]
    if fetched:
        words.append("--no-fetch-on-failure")
    return words


def _printf(data: bytes) -> str:
    """Returns the command that writes these bytes; printf is a part of the shell, so there may be many."""
    if b"\0" not in data:
        return f"printf %s {shlex.quote(decode(data))}"
    text = decode(data).replace("\\", "\\\\").replace("%", "%%").replace("\0", "\\000")
    return f"printf {shlex.quote(text.replace('-', _OCTAL_MINUS, 1) if text.startswith('-') else text)}"


def _escaped(text: str, *, before: bool = False) -> str:
    r"""Returns a name as `cexec --send` and `--fetch` read it: `\=` is an equals sign.  `before` one that separates."""
    escaped = re.sub(r"(\\*)=", lambda match: f"{match[1] * 2}\\=", text)
    return escaped + "\\" * (len(text) - len(text.rstrip("\\"))) if before else escaped
