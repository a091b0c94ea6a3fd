"""The result of a job, as `subprocess` would give it, with what only a cluster can tell.

Contract: `Completed` is a `subprocess.CompletedProcess`: `args` are the job's arguments, `returncode` is negative for a
signal, also for that by which a limit has ended the program.  `stdout` and `stderr` are bytes, or text if that was
asked for, or None for a job whose caller has read them.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from cexec.protocol.connection.frames import EXITED

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from cexec.protocol.connection.frames import Exit

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Usage:
    """What the program and its children have used there.  Times in seconds; `memory`: largest resident set in bytes."""

    user_time: float
    system_time: float
    memory: int


@dataclass(frozen=True, slots=True)
class Circumstances:
    """How a job came to its end.

    `worker`: name@address; `attempts`: how many there were; `duration`: seconds from the program's begin to its end, in
    the last attempt; `message`: the worker's words about it, for example which limit has ended it, mostly empty.
    """

    worker: str
    attempts: int
    duration: float
    usage: Usage
    message: str


class Completed(subprocess.CompletedProcess[T], Generic[T]):
    """The result of a job.  `files`: what `fetch` has brought, by name: bytes, or the path of the file here."""

    def __init__(
        self,
        args: Sequence[str | bytes],
        returncode: int,
        stdout: T,
        stderr: T,
        *,
        files: Mapping[str, bytes | Path],
        circumstances: Circumstances,
    ) -> None:
        super().__init__(args, returncode, stdout, stderr)
        self.files = dict(files)
        self.worker = circumstances.worker
        self.attempts = circumstances.attempts
        self.duration = circumstances.duration
        self.usage = circumstances.usage
        self.message = circumstances.message

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]}, worker={self.worker!r}, attempts={self.attempts})"


def usage_of(result: Exit) -> Usage:
    """Returns what the exit frame says that the program has used."""
    return Usage(result.user_time / 1e6, result.system_time / 1e6, result.memory * 1024)


def returncode_of(result: Exit) -> int:
    """Returns the exit status, or for signal n: -n."""
    return result.status if result.kind == EXITED else -result.status
