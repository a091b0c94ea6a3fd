"""What a call of ckeygen came to, for the tests of ckeygen(1)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path


class Ended:
    """What a call of ckeygen came to; it never prints a secret."""

    def __init__(self, status: int, output: str, errors: str) -> None:
        self.status = status
        self.output = output
        self.errors = errors


Run = Callable[..., Ended]


def contents() -> dict[str, bytes]:
    """The files of the current directory."""
    return {path.name: path.read_bytes() for path in Path().iterdir()}


def fails(ended: Ended, status: int, message: str) -> None:
    """One line in the project's style, and the exit status."""
    assert (ended.status, ended.output) == (status, "")
    assert ended.errors == f"ckeygen: {message}\n"
