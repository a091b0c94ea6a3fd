"""One worker on this machine, and calls of `cmap` that use it.

Contract: the worker has four slots and evaluates PEER_RUN, if there is one, and echoes its input otherwise.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests import preloaded
from tests.environment import command, local_environment
from tests.service import Application, Service
from tests.waiting import PATIENCE

DEADLINE = PATIENCE  # seconds for whatever a test waits for
WAITING = re.compile(r"^cmap: (?:no worker of \S+ has answered|\d+ workers?, .* busy).*\n", re.MULTILINE)


class Cluster:
    """A worker with four slots that evaluates PEER_RUN, if there is one, and echoes its input otherwise."""

    def __init__(self, directory: Path) -> None:
        self.application = Application(directory)
        program = ["sh", "-c", 'eval "${PEER_RUN:-cat}"', "sh"]
        options = ["-j", "4", "--allow-args", "--private-dir"]
        self.service = Service(self.application, program, options)

    def argv(self, *words: str | os.PathLike[str]) -> list[str]:
        return command("cmap", self.application.public, *words)

    def run(self, *words: str | os.PathLike[str], input: bytes = b"", **options: Any) -> Result:
        argv, environment = self.argv(*words), local_environment()
        if options:
            return Result(
                subprocess.run(argv, input=input, capture_output=True, env=environment, timeout=DEADLINE, **options)
            )
        return Result(preloaded.run(argv, input=input, env=environment, timeout=DEADLINE))

    def start(
        self, *words: str | os.PathLike[str], environment: Mapping[str, str] | None = None, **options: Any
    ) -> Any:
        pipes: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(self.argv(*words), env=local_environment(environment), **pipes, **options)


class Result:
    """What a call did; `err` is without the notes for a person who waits, which a slow machine brings out anywhere."""

    def __init__(self, result: subprocess.CompletedProcess[bytes]) -> None:
        self.status = result.returncode
        self.out = result.stdout.decode()
        self.err = WAITING.sub("", result.stderr.decode())

    @property
    def lines(self) -> list[str]:
        """In no order."""
        return sorted(self.out.splitlines())
