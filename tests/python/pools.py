"""A service of `cexec.pool` for tests of `Executor`.

Contract: `PoolService` serves with the Python of the tests.  `wait_until_free` waits until no slot is taken and the log
has told the end of every job; `python` runs a script as a user would, and `interrupt` presses Ctrl-C in one.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from tests.environment import local_environment
from tests.service import Application, Service
from tests.waiting import PATIENCE, wait_until

PROGRAM = (sys.executable, "-m", "cexec.pool")

_OF_A_JOB = re.compile(r" (started|finished|broken) .*\bjob=(\w+)")


class PoolService:
    """A `cservice` with a key of its own."""

    def __init__(
        self,
        directory: Path,
        *,
        slots: int = 2,
        program: Sequence[str] = PROGRAM,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.application = Application(directory, "pool")
        self.key = self.application.public
        self.service = Service(self.application, program, ("-j", str(slots)), environment=environment)

    def __enter__(self) -> PoolService:
        return self

    def __exit__(self, *_: object) -> None:
        self.service.close()

    def keepers(self) -> list[psutil.Process]:
        """The processes of `cexec.pool` that run for it: keepers, and their runners."""
        children = psutil.Process(self.service.process.pid).children(recursive=True)
        return [one for one in children if _command_line(one)[1:] == list(PROGRAM[1:])]

    def wait_until_free(self) -> None:
        wait_until(lambda: not self.keepers() and not self._open_jobs())

    def _open_jobs(self) -> set[str]:
        """The jobs that have started and whose closing line has not come: it comes after the end of their processes."""
        started: set[str] = set()
        ended: set[str] = set()
        for line in self.service.lines:
            if match := _OF_A_JOB.search(line):
                (started if match[1] == "started" else ended).add(match[2])
        return started - ended

    def interrupt(self, code: str, directory: Path) -> None:
        """Runs a program whose arguments are the key and a file, and sends it SIGINT: nothing of it goes on.

        A call of the program has to write the number of its process into the file, as a line, and to stay.
        """
        script, path = directory / "script.py", directory / "running"
        script.write_text(code)
        process = subprocess.Popen(
            [sys.executable, script, self.key, path], env=local_environment(), stderr=subprocess.PIPE, text=True
        )
        wait_until(lambda: path.exists() and path.read_text().endswith("\n"))
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=PATIENCE)
        assert "KeyboardInterrupt" in errors
        wait_until(lambda: not psutil.pid_exists(int(path.read_text())))
        self.wait_until_free()

    def python(
        self, script: Path, *arguments: str | os.PathLike[str], timeout: float = PATIENCE
    ) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, script, *arguments]
        return subprocess.run(argv, env=local_environment(), capture_output=True, text=True, timeout=timeout)


def _command_line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []
