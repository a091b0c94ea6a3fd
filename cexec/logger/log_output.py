"""The output of a logger: standard output or a file, which may be moved away and whose disk may be full.

Contract: `write` takes a line, `flush(now)` writes as much as possible and never waits for a reader.  The rest waits,
within bounds; lines that had to be dropped are reported by a line of their own once there is room again.  `masks` says
what to wait for with poll(2) before the next `flush`.  `close()` writes the rest, as long as somebody reads it.  Raises
`LocalError` if the reader of standard output has gone, or if lines are left at the close.  Text that a peer supplied is
escaped before it gets here or by `escape` here.
"""

from __future__ import annotations

import errno
import json
import os
import select
import sys

from cexec.errors import LocalError
from cexec.system.io.fds import Sink
from cexec.system.io.log_lines import offer
from cexec.system.io.opened_fds import open_sink
from cexec.system.io.wakeup import wait_ready
from cexec.system.printable import printable
from cexec.system.reason import reason_of
from cexec.system.storage.eventlog import escape
from cexec.system.storage.own_files import open_output

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from cexec.logger.reporter import Line

MAXIMUM_WAITING = 10_000  # lines (ours) that wait for a full disk
RETRY_INTERVAL = 1.0  # seconds (ours) between two attempts to write to a full disk
CLOSE_PATIENCE = 2.0  # seconds (ours) in which a reader has to take something, at the end


class LogOutput:
    """One output.  `path` None: standard output."""

    def __init__(self, path: str | None, *, as_json: bool) -> None:
        self._path = path
        self._json = as_json
        self._sink = open_sink(sys.stdout.fileno()) if path is None else _open(path)
        self._sink.keep_size()
        self._full = False  # it takes nothing at the moment
        self._waiting: list[bytes] = []
        self._dropped = 0
        self._retry: float | None = None
        self._complained = False

    def write(self, line: Line) -> None:
        self._add_line(line.text, line.fields)

    def write_table(self, rows: list[list[str]]) -> None:
        """Writes columns that are as wide as their cells need, or one JSON object a row."""
        head, *rest = rows
        if self._json:
            for row in rest:
                self._add(json.dumps({"event": "statistics", **dict(zip(head, row, strict=True))}))
            return
        widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
        for row in rows:
            cells = [printable(cell).ljust(width) for cell, width in zip(row, widths, strict=True)]
            self._add("  ".join(cells).rstrip())

    def flush(self, now: float) -> None:
        if self._retry is not None and now < self._retry:
            return
        self._retry = None
        try:
            self._write_out()
        except OSError as error:
            self._retry = now + RETRY_INTERVAL
            self._complain(error)

    def close(self) -> None:
        """Writes all lines that wait, without regard to the retry interval; may be called again."""
        try:
            self._write_out()
            while self._full:
                wait_ready(self.masks(), CLOSE_PATIENCE)
                before = self._sink.count
                self._write_out()
                if self._sink.count == before:
                    raise self._lost("nobody reads it")
        except OSError as error:
            raise self._lost(reason_of(error)) from None
        finally:
            self._sink.close()

    def masks(self) -> dict[int, int]:
        """Returns the descriptors to wait for with poll(2); none if all is written, or if only time can help."""
        return {self._sink.fileno(): select.POLLOUT} if self._full else {}

    def _lost(self, reason: str) -> LocalError:
        lines = len(self._waiting) + self._dropped
        return LocalError(f"cannot write to {self._name}: {reason}; lines lost: {lines}")

    def _write_out(self) -> None:
        self._full = False
        while self._waiting or self._dropped:
            if not self._waiting:
                text = f"gap: {self._dropped} lines were dropped, because the output could not be written"
                self._add_line(text, {"dropped": self._dropped})
                self._dropped = 0
            size = self._sink.write(memoryview(self._waiting[0]))
            self._full = not size
            if self._full:
                return
            self._waiting[0] = self._waiting[0][size:]  # the rest of a line that was cut goes first next time
            if not self._waiting[0]:
                del self._waiting[0]
        self._complained = False

    def next_timeout(self) -> float | None:
        return self._retry

    def reopen(self) -> None:
        """Continues in a new file, because the old one was moved away."""
        if self._path is None:
            return
        try:
            sink = _open(self._path)
        except LocalError as error:
            _tell(f"crat: {error}; going on with the old file")
            return
        self._sink.close()
        self._sink = sink
        self._full = False
        self._retry = None

    def _add_line(self, text: str, fields: Mapping[str, object]) -> None:
        if self._json:
            self._add(json.dumps({"event": text, **fields}))
        else:
            self._add(" ".join([printable(text), *(f"{name}={escape(str(v))}" for name, v in fields.items())]))

    def _add(self, text: str) -> None:
        if len(self._waiting) >= MAXIMUM_WAITING:
            del self._waiting[1]
            self._dropped += 1
        self._waiting.append(text.encode("utf-8", "replace") + b"\n")

    def _complain(self, error: OSError) -> None:
        if self._path is None and error.errno == errno.EPIPE:
            raise LocalError(f"cannot write to {self._name}: {reason_of(error)}") from None
        if not self._complained:
            self._complained = True
            _tell(f"crat: cannot write to {self._name}: {reason_of(error)}; waiting")

    @property
    def _name(self) -> str:
        return self._path or "standard output"


def _open(path: str) -> Sink:
    """Opens it so that neither this nor a write waits for the reader of a named pipe."""
    try:
        return Sink(open_output(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK, 0o644))
    except OSError as error:
        reason = "nobody reads this pipe" if error.errno == errno.ENXIO else reason_of(error)
        raise LocalError(f"cannot open {path}: {reason}") from None


def _tell(text: str) -> None:
    offer(2, f"{printable(text)}\n", 0.0)
