"""Runs of cmap that are large or interrupted: workers that die again and again, and coordinators that are killed.

Contract: `Assassin` kills one of its workers every `period` seconds and starts another in its place, as long as its
`with` lasts.  `run_killed` runs a command that keeps a journal, kills it when so many results are there, and goes on
until it ends by itself.
"""

from __future__ import annotations

import csv
import os
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

from tests.environment import clean_environment, command
from tests.lab import Host
from tests.service import Application, Service
from tests.waiting import wait_until

DEADLINE = 90.0  # seconds until something must have happened


class Assassin:
    """Kills workers by SIGKILL, with all that they have started."""

    def __init__(self, start: Callable[[int], Service], number: int, period: float) -> None:
        """`start(n)` starts worker n, from 0 up to `number`."""
        self.killed = 0
        self._start = start
        self._period = period
        self._services = [start(n) for n in range(number)]
        self._done = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join(DEADLINE)
        for service in self._services:
            service.kill()
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            while not self._done.wait(self._period):
                place = self.killed % len(self._services)
                self._services[place].kill()
                self.killed += 1
                self._services[place] = self._start(place)
        except BaseException as error:
            self._failure = error


def cmap(application: Application, *words: str | os.PathLike[str]) -> list[str]:
    """argv of `cmap APP.pub WORDS...`."""
    return command("cmap", application.public, *words)


def run(host: Host, argv: Sequence[str], directory: Path, timeout: float = DEADLINE) -> str:
    """Runs it to its end, which must be a success; what it said on stderr."""
    result = host.run(argv, env=clean_environment(), cwd=directory, capture_output=True, text=True, timeout=timeout)
    assert result.returncode == 0, result.stderr
    return str(result.stderr)


def run_killed(
    host: Host, argv: Sequence[str], directory: Path, done: Callable[[], int], kill_at: Sequence[int]
) -> None:
    """`done` counts results: at each number of `kill_at` it is killed, and gone on with by --resume."""
    words = list(argv)
    for number in kill_at:
        process = host.popen(words, env=clean_environment(), cwd=directory, stderr=subprocess.PIPE, text=True)
        wait_until(lambda: done() >= number or process.poll() is not None, DEADLINE, pause=0.01)  # noqa: B023
        assert process.poll() is None, process.communicate()[1]
        process.kill()
        process.communicate()
        if words == list(argv):
            words = [*words[:3], "--resume", *words[3:]]
    run(host, words, directory)


def check_joblog(path: Path, rows: int) -> None:
    """Each row is there as done exactly once, and none as failed."""
    with path.open(newline="") as file:
        lines = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    assert Counter(line["Seq"] for line in lines) == Counter(str(number) for number in range(1, rows + 1))
    assert {line["Exitval"] for line in lines} == {"0"}
