"""--validate and --collect with a program or a function, which looks at the results of a task on this side.

Contract: a `Validator` is given each task's results in a directory: `stdout`, `stderr`, and the files that were fetched
under the job's names for them.  A command is run by sh in that directory, with the row as PARAM_name and the number as
CMAP_TASK in its environment; exit status 0 accepts, and one that is lost does not.  `module:function` is called with
the row, a dict of texts, and the directory's path; true accepts.  Whatever is wrong with either is the reason of a
`Verdict`, except a function that cannot be found: `UsageError`, when the `Validator` is made.  A command is in a
process group of its own: Ctrl-C is for us, and what runs is ended by `end`.
"""

from __future__ import annotations

import errno
import importlib
import os
import re
import signal
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING

from cexec.cmap.inputs.store import CHUNK
from cexec.cmap.results.attempt_files import FileOutput, Output
from cexec.errors import LocalError, UsageError
from cexec.system.reason import reason_of
from cexec.system.storage.temporary import no_temporary

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cexec.cmap.inputs.tasks import Task

_FUNCTION = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)", re.ASCII)
LONGEST_REASON = 200  # characters (ours) of what a command said on its standard error


class Verdict:
    """`reason` is empty if the results are accepted.  `output` is what a command wrote; the caller closes it."""

    __slots__ = ("output", "reason")

    def __init__(self, reason: str, output: Output) -> None:
        self.reason = reason
        self.output = output

    @property
    def accepted(self) -> bool:
        return not self.reason


class Validator:
    """One command or function for all tasks; `option` names it in errors.  Calls may come from several threads."""

    def __init__(self, text: str, option: str) -> None:
        self._text = text
        self._option = option
        self._running: set[subprocess.Popen[bytes]] = set()
        self._ended = False
        match = _FUNCTION.fullmatch(text)
        self._function = None if match is None else _find(match[1], match[2], option)

    @property
    def is_command(self) -> bool:
        """True if a program is given each row as variables."""
        return self._function is None

    def check(self, task: Task, outputs: Mapping[str, Output], extra: Mapping[str, str] | None = None) -> Verdict:
        """`extra` is added to a command's environment."""
        try:
            place = tempfile.TemporaryDirectory(prefix="cexec-results-")
        except OSError as error:
            raise no_temporary(f"keep results for {self._option}", error) from None
        with place as directory:
            try:
                _fill(directory, outputs)
            except OSError as error:
                raise LocalError(f"cannot write {directory}: {reason_of(error)}") from None
            if self._function is not None:
                return Verdict(self._call(self._function, task, directory), Output())
            return self._run(task, directory, extra or {})

    def end(self) -> None:
        """Kills the commands that run, and any that would."""
        self._ended = True
        for process in list(self._running):
            _kill_group(process)

    def _call(self, function: Callable[[dict[str, str], str], object], task: Task, directory: str) -> str:
        try:
            return "" if function(dict(task.parameters), directory) else f"{self._option} {self._text} said no"
        except Exception as error:
            return f"{self._option} {self._text}: {type(error).__name__}: {error}"

    def _run(self, task: Task, directory: str, extra: Mapping[str, str]) -> Verdict:
        output = Output()
        try:
            file = tempfile.TemporaryFile()  # noqa: SIM115 - in the next block
        except OSError as error:
            raise no_temporary(f"keep the standard error of {self._option}", error) from None
        with file as errors:
            try:
                process = subprocess.Popen(
                    ["/bin/sh", "-c", self._text],
                    cwd=directory,
                    env={**os.environ, **task.variables(), **extra},
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    process_group=0,
                )
            except OSError as error:
                if error.errno == errno.E2BIG:  # a row that is too long for an environment
                    return Verdict(f"{self._option}: {reason_of(error)}", output)
                raise LocalError(f"cannot run the command of {self._option}: {reason_of(error)}") from None
            with process:
                self._running.add(process)
                if self._ended:
                    _kill_group(process)
                assert process.stdout is not None
                while data := os.read(process.stdout.fileno(), CHUNK):
                    output.append(data)
                status = _wait(process)
            self._running.discard(process)
            if status == 0:
                return Verdict("", output)
            if status is None:
                return Verdict(f"{self._option} has ended, and its exit status is lost", output)
            errors.seek(0)
            said = errors.read(4 * LONGEST_REASON).decode(errors="replace").strip()[:LONGEST_REASON]
        how = f"exited with {status}" if status > 0 else f"died of signal {-status}"
        return Verdict(f"{self._option} {how}{': ' if said else ''}{said}", output)


def _wait(process: subprocess.Popen[bytes]) -> int | None:
    """Returns the exit status, negative for a signal; None if it is lost, which `subprocess` takes for a 0.

    The kernel keeps none for a Python program that ignores SIGCHLD.
    """
    try:
        _, status = os.waitpid(process.pid, 0)
    except ChildProcessError:
        process.returncode = 0  # so that `subprocess` does not wait for it again
        return None
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    if process.returncode is None:  # until then no other process can have its number
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def _fill(directory: str, outputs: Mapping[str, Output]) -> None:
    """Fills the directory: links to what is in a file already, copies of the rest."""
    for name, output in outputs.items():
        path = os.path.join(directory, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if isinstance(output, FileOutput):
            os.symlink(os.path.abspath(output.path), path)
            continue
        with open(path, "wb") as file:
            for piece in output.pieces():
                file.write(piece)


def _find(module: str, name: str, option: str) -> Callable[[dict[str, str], str], object]:
    """Imports a function, also from a module of the working directory."""
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except Exception as error:
        raise UsageError(f"{option} {module}:{name}: {type(error).__name__}: {error}") from None
    if not callable(found):
        raise UsageError(f"{option} {module}:{name} is no function")
    function: Callable[[dict[str, str], str], object] = found
    return function
