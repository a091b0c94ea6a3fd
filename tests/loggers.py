"""Loggers for tests: a running `crat` whose lines can be waited for.

Contract: `Crat` is ended by `close()`, which raises AssertionError when it did not end well or has written a traceback.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.environment import clean_environment, command, local_environment
from tests.lab import Host
from tests.waiting import PATIENCE, wait_until


class Crat:
    """`crat --output DIRECTORY/crat.log ARGUMENTS...`, on `host` or else here, that hears the group."""

    def __init__(
        self,
        directory: Path,
        *arguments: object,
        host: Host | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.path = directory / "crat.log"
        argv = command("crat", "--output", self.path, *map(str, arguments))
        pipes: dict[str, Any] = {"stderr": subprocess.PIPE, "text": True}
        if host is None:
            self.process = subprocess.Popen(argv, env=local_environment(environment), **pipes)
        else:
            self.process = host.popen(argv, env=clean_environment(environment), **pipes)
        assert self.process.stderr is not None
        assert "listening" in self.process.stderr.readline()

    def lines(self) -> list[str]:
        """What it has written so far."""
        return self.path.read_text().splitlines()

    def events(self) -> list[dict[str, Any]]:
        """The same, when it was started with --json."""
        return [json.loads(line) for line in self.lines()]

    def wait_for(self, text: str, count: int = 1, timeout: float = PATIENCE) -> list[str]:
        """The lines that contain the text, once there are so many."""
        self.wait_until(lambda: sum(text in line for line in self.lines()) >= count, timeout)
        return [line for line in self.lines() if text in line]

    def wait_until(self, condition: Callable[[], bool], timeout: float = PATIENCE) -> None:
        """Raises AssertionError with what it has written."""
        wait_until(condition, timeout, explain=lambda: "\n".join(self.lines()))

    def close(self) -> None:
        """Ends it as a user would."""
        self.process.terminate()
        try:
            assert self.process.wait(PATIENCE) == 0
        finally:
            self.process.kill()
        assert self.process.stderr is not None
        assert "Traceback" not in self.process.stderr.read()
