"""A target: a parser, what it may raise, and what has to hold of what it accepts.

Contract: `@target(allowed...)` names a function after itself and puts it into TARGETS.  `run(data)` calls it: an
exception that its contract allows is swallowed, every other one, and an `AssertionError`, is a finding.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

Body = Callable[[bytes], object]


@dataclass(frozen=True, slots=True)
class Target:
    """`about`: what it reads, for the table of docs/reliability.md."""

    name: str
    body: Body
    allowed: tuple[type[Exception], ...]
    about: str

    def run(self, data: bytes) -> bool:
        """Returns True if the data was accepted."""
        try:
            self.body(data)
        except self.allowed:
            return False
        return True


TARGETS: dict[str, Target] = {}


def target(*allowed: type[Exception]) -> Callable[[Body], Body]:
    """Makes a target of a function; its docstring says what is read."""

    def register(body: Body) -> Body:
        name = body.__name__
        assert name not in TARGETS, name
        TARGETS[name] = Target(name, body, allowed, (body.__doc__ or "").split("\n")[0].rstrip("."))
        return body

    return register


def pieces(data: bytes) -> list[bytes]:
    """`data` cut where it says: a length of two bytes before each piece; the last one may be shorter."""
    found = []
    while data:
        size = int.from_bytes(data[:2], "big")
        found.append(data[2 : 2 + size])
        data = data[2 + size :]
    return found


def words(data: bytes) -> str:
    """Bytes as Python gives us the words of a command line."""
    return data.decode("utf-8", "surrogateescape").replace("\0", "")


_temporary: list[tempfile.TemporaryDirectory[str]] = []  # the last one is in use


def scratch() -> Path:
    """A directory for the files of targets, which goes when the interpreter ends.

    It is made anew when it is missing: a process that another test has forked from this one removes it at its own end.
    """
    if not _temporary or not os.path.isdir(_temporary[-1].name):
        _temporary.append(tempfile.TemporaryDirectory(prefix="cexec-fuzz-", ignore_cleanup_errors=True))
    return Path(_temporary[-1].name)
