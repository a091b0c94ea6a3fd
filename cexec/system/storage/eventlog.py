"""One line per event on a stream, for people or, as JSON, for programs.

Contract: `event(what, **fields)` never raises for a stream that cannot be written, and never lets text that a peer
supplied act on a terminal: what is not printable is escaped.  Inside `together()` lines wait for one another, and are
written at its end, also if that is an error.  With a `LogLines` as its stream a log never waits for its reader: who
owns the log waits for `masks` beside everything else, calls `flush` when they are ready, and `close` at the end.
"""

from __future__ import annotations

import json
import time
from contextlib import contextmanager
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING

from cexec.system.io.log_lines import LogLines, lines_lost
from cexec.system.printable import printable
from cexec.system.units import show_count

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import TextIO


_QUOTED = frozenset(' "=')


def still_run(jobs: int) -> str:
    """Says to somebody who has ended a service what it waits for."""
    verb, them = ("runs", "it") if jobs == 1 else ("run", "them")
    return f"{show_count(jobs, 'job')} still {verb}; Ctrl-C again ends {them} (or SIGTERM)"


def escape(text: str) -> str:
    """`text` with everything unprintable as an escape, and quoted where it has spaces or quotes."""
    plain = printable(text.replace("\\", "\\\\"))
    return json.dumps(plain, ensure_ascii=False) if not plain or not _QUOTED.isdisjoint(plain) else plain


class EventLog:
    """Writes events to `stream`, as `2026-11-29T12:03:04+01:00 what key=value ...` or as JSON lines."""

    def __init__(self, stream: TextIO | LogLines, *, as_json: bool = False) -> None:
        self._stream = stream
        self._buffer = stream if isinstance(stream, LogLines) else None
        if self._buffer is not None:
            self._buffer.lost_line = self._lost_line
        self._json = as_json
        self._lines: list[str] | None = None  # those that wait for others

    def event(self, what: str, **fields: object) -> None:
        """Fields that are None or empty are left out."""
        self._line(self._text(what, fields))

    def masks(self) -> dict[int, int]:
        """The descriptor on which there was no room, and what to wait for with poll(2)."""
        return {} if self._buffer is None else self._buffer.masks()

    def flush(self) -> None:
        """Writes what there is room for by now."""
        if self._buffer is not None:
            self._buffer.flush()

    def close(self) -> None:
        """Writes the rest, if somebody reads it."""
        if self._buffer is not None:
            self._buffer.close()

    def banner(self, text: str, **fields: object) -> None:
        """A sentence for people; as JSON the event `ready` with these fields."""
        if self._json:
            self.event("ready", **fields)
        else:
            self._line(text)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Writes all lines of a block with one system call."""
        lines: list[str] = []
        self._lines = lines
        try:
            yield
        finally:
            self._lines = None
            if lines:
                self._line("\n".join(lines))

    def _line(self, text: str) -> None:
        if self._lines is not None:
            self._lines.append(text)
            return
        try:
            self._stream.write(f"{text}\n")
            self._stream.flush()
        except (OSError, ValueError):
            pass  # a full disk or a closed terminal must not end the jobs

    def _text(self, what: str, fields: Mapping[str, object]) -> str:
        given = {name: value for name, value in fields.items() if value is not None and value != ""}
        if self._json:
            return json.dumps({"time": round(time.time(), 3), "event": what, **given})
        return f"{_local_time(int(time.time()))} {what}{_fields_text(given)}"

    def _lost_line(self, count: int) -> str:
        """Returns the line about lines that nobody has read, or for which the disk had no room."""
        return self._text("lost lines" if self._json else lines_lost(count), {"lines": count} if self._json else {})


@lru_cache(maxsize=1)  # a worker writes thousands of lines in a second
def _local_time(second: int) -> str:
    """Returns a time since 1970 as local time with its distance from UTC (ISO 8601).

    It is UTC where TZ tells a distance that ISO 8601 has not: a day or more, such as `UTC+99`.
    """
    try:
        return datetime.fromtimestamp(second).astimezone().isoformat(timespec="seconds")
    except ValueError:
        return time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(second))


def _fields_text(given: Mapping[str, object]) -> str:
    """Returns the fields as the rest of a line."""
    texts = {name: f"{value:.3g}" if isinstance(value, float) else str(value) for name, value in given.items()}
    plain = "".join([f" {name}={text}" for name, text in texts.items()])
    return plain if _is_plain(plain, len(texts)) else "".join(f" {name}={escape(texts[name])}" for name in texts)


def _is_plain(text: str, fields: int) -> bool:
    """Returns True if so many fields need no escape: one look at all of them is faster than one at each."""
    return (
        text.count(" ") == text.count("=") == fields
        and '"' not in text
        and "\\" not in text
        and "= " not in text
        and not text.endswith("=")
        and text.isprintable()
    )
