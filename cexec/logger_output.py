"""Where a logger writes: standard output or a file, which may be moved away, and whose disk may be full.

Contract: `write` takes a line, `flush(now)` writes what can be written and never raises; what cannot waits, within
bounds, and what had to be dropped is told by a line of its own when there is room again.  Text that a peer supplied is
escaped before it gets here or by `escape` here.
"""

from __future__ import annotations

import json
import os
import sys

from cexec.errors import LocalError
from cexec.system.eventlog import escape

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cexec.logger_journal import Line

MAXIMUM_WAITING = 10_000  # lines (ours) that wait for a full disk
RETRY_INTERVAL = 1.0  # seconds (ours) between two attempts to write


class LogOutput:
    """One output.  `path` None: standard output."""

    def __init__(self, path: str | None, *, as_json: bool) -> None:
        self._path = path
        self._json = as_json
        self._fd = sys.stdout.fileno() if path is None else _open(path)
        self._waiting: list[bytes] = []
        self._dropped = 0
        self._retry: float | None = None
        self._complained = False

    def write(self, line: Line) -> None:
        if self._json:
            text = json.dumps({"event": line.text, **line.fields})
        else:
            text = " ".join([_printable(line.text), *(f"{name}={escape(str(v))}" for name, v in line.fields.items())])
        self._add(text)

    def write_table(self, rows: list[list[str]]) -> None:
        """Columns wide enough for what is in them; as JSON one object a row."""
        head, *rest = rows
        if self._json:
            for row in rest:
                self._add(json.dumps({"event": "statistics", **dict(zip(head, row, strict=True))}))
            return
        widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
        for row in rows:
            cells = [_printable(cell).ljust(width) for cell, width in zip(row, widths, strict=True)]
            self._add("  ".join(cells).rstrip())

    def flush(self, now: float) -> None:
        if self._retry is not None and now < self._retry:
            return
        self._retry = None
        while self._waiting:
            try:
                size = os.write(self._fd, self._waiting[0])
            except OSError as error:
                self._retry = now + RETRY_INTERVAL
                self._complain(error)
                return
            self._waiting[0] = self._waiting[0][size:]  # the rest of a line that was cut goes first next time
            if not self._waiting[0]:
                del self._waiting[0]
        self._complained = False
        if self._dropped:
            self._add(f"gap: {self._dropped} lines were dropped, because the output could not be written")
            self._dropped = 0

    def next_timeout(self) -> float | None:
        return self._retry

    def reopen(self) -> None:
        """The file has been moved away: goes on in a new one."""
        if self._path is None:
            return
        try:
            fd = _open(self._path)
        except LocalError as error:
            print(f"crat: {error}; going on with the old file", file=sys.stderr)
            return
        os.close(self._fd)
        self._fd = fd
        self._retry = None

    def _add(self, text: str) -> None:
        if len(self._waiting) >= MAXIMUM_WAITING:
            del self._waiting[1]
            self._dropped += 1
        self._waiting.append(text.encode("utf-8", "replace") + b"\n")

    def _complain(self, error: OSError) -> None:
        if not self._complained:
            self._complained = True
            reason = os.strerror(error.errno or 0).lower()
            print(f"crat: cannot write to {self._path or 'standard output'}: {reason}; waiting", file=sys.stderr)


def _open(path: str) -> int:
    try:
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise LocalError(f"cannot open {path}: {os.strerror(error.errno or 0).lower()}") from None


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
