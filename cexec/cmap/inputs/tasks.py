"""One task: the inputs of its job, the places of its results, its key in a journal, and its label for people.

Contract: values.  `key()` is the same for the same command and inputs, whatever the row's number and the content of
its files; `stamp()` tells when that has changed.  Results do not count.
"""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

from cexec.cmap.inputs.columns import variable_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from cexec.cmap.inputs.store import Spool

KEY_SIZE = 16  # bytes (ours)
PLACE_SIZE = 8  # bytes (ours)
NOTHING, DATA, BLOCK, PATH, SHARED = range(5)  # what standard input is: see TaskInput
STDOUT, STDERR, FILE = "stdout", "stderr", "file"


class TaskInput:
    """Standard input of a job: nothing, `data` (a text, or a block of --pipe), the file `path`, or `spool` (--tee).

    The `data` of a spool is a hash of it.
    """

    __slots__ = ("data", "kind", "path", "spool")

    def __init__(self, kind: int, *, data: bytes = b"", path: str = "", spool: Spool | None = None) -> None:
        self.kind = kind
        self.data = data
        self.path = path
        self.spool = spool


class Result:
    """A file that comes back: stdout or stderr, or the file that the job calls `name`; `path` is its place here."""

    __slots__ = ("kind", "name", "path")

    def __init__(self, kind: str, path: str, name: str = "") -> None:
        self.kind = kind
        self.path = path
        self.name = name


class Task:
    """`parameters`: the row by the names of its columns.  `label`: its inputs on one line; `tag`: what --tag shows.

    `sends`: name on the worker, path here.  `texts`: name on the worker, content.
    """

    __slots__ = (
        "arguments",
        "environment",
        "label",
        "number",
        "parameters",
        "results",
        "sends",
        "stdin",
        "tag",
        "texts",
    )

    def __init__(
        self,
        number: int,
        *,
        stdin: TaskInput,
        arguments: list[bytes] | None = None,
        environment: dict[str, bytes] | None = None,
        sends: list[tuple[str, str]] | None = None,
        texts: list[tuple[str, bytes]] | None = None,
        results: list[Result] | None = None,
        parameters: dict[str, str] | None = None,
        label: str = "",
        tag: str | None = None,
    ) -> None:
        self.number = number
        self.stdin = stdin
        self.arguments = arguments or []
        self.environment = environment or {}
        self.sends = sends or []
        self.texts = texts or []
        self.results = results or []
        self.parameters = parameters or {}
        self.label = label
        self.tag = label if tag is None else tag

    def key(self, application: bytes) -> bytes:
        """Returns the key by which a journal knows the task; a file counts by its name."""
        return self._digest(application, lambda path: (os.fsencode(path),))

    def old_key(self, application: bytes) -> bytes:
        """Returns the key that version 0.1.0 had for the task; a file counts by its name, size and time of change."""
        return self._digest(application, _file_identity)

    def stamp(self) -> str:
        """Returns size and time of change of the task's files: an input that has changed is another input."""
        return ",".join([b":".join(_file_identity(path)[1:]).decode() for path in self.input_files])

    def place(self, *, numbered: bool) -> str:
        """Returns a hash of the names of its results; empty if it has none.  `numbered`: its number is one, too."""
        names = [result.path for result in self.results] + ([str(self.number)] if numbered else [])
        text = "\0".join(names).encode("utf-8", "surrogateescape")
        return hashlib.blake2b(text, digest_size=PLACE_SIZE).hexdigest() if names else ""

    @property
    def input_files(self) -> list[str]:
        """The files that the task reads, its standard input first."""
        return [*([self.stdin.path] if self.stdin.path else ()), *(path for _, path in self.sends)]

    def _digest(self, application: bytes, identity: Callable[[str], tuple[bytes, ...]]) -> bytes:
        stdin = self.stdin
        digest = hashlib.blake2b(digest_size=KEY_SIZE)
        for part in (
            application,
            str(stdin.kind).encode(),
            stdin.data,
            *identity(stdin.path),
            str(len(self.arguments)).encode(),
            *self.arguments,
            str(len(self.environment)).encode(),
            *(part for name, value in sorted(self.environment.items()) for part in (name.encode(), value)),
            str(len(self.sends)).encode(),
            *(part for name, path in self.sends for part in (os.fsencode(name), *identity(path))),
            *(part for name, text in self.texts for part in (os.fsencode(name), text)),
        ):
            digest.update(len(part).to_bytes(8, "big"))
            digest.update(part)
        return digest.digest()

    def variables(self) -> dict[str, str]:
        """Returns the row for the environment of a program here, and its number as CMAP_TASK."""
        named = {variable_name(name): value.replace("\0", "") for name, value in self.parameters.items()}
        return {**named, "CMAP_TASK": str(self.number)}


def _file_identity(path: str) -> tuple[bytes, bytes, bytes]:
    """Returns name, size and time of change.  Errors are told when the file is opened."""
    if not path:
        return b"", b"", b""
    try:
        status = os.stat(path)
    except OSError:
        return os.fsencode(path), b"", b""
    return os.fsencode(path), str(status.st_size).encode(), str(status.st_mtime_ns).encode()
