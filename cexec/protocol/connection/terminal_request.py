"""The terminal that a job asks for: the value of GO's option `terminal`.

Contract: `TerminalRequest.encode` makes the text, `TerminalRequest.decode` reads it and raises `ProtocolError` for
everything else; what decodes encodes to the same text.  Pure.  docs/protocol.md section 4.5.

    24 80 xterm-256color echo=1 eof=4 erase=127 intr=3 ixon=1 utf8=1
    rows columns TERM, then settings in ascending order

A setting is a control character of the terminal (0: there is none), or a mode that is on (1) or off (0).  A worker
passes over a setting that it does not know, so that later versions can send more of them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cexec.errors import ProtocolError
from cexec.protocol.connection.frames import LARGEST_WINDOW
from cexec.protocol.connection.options import PIPE, READS, WRITES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cexec.protocol.connection.frames import Stream

INPUT, OUTPUT, ERROR = 0, 1, 2  # (protocol) the streams of a terminal, and the one that duplicates its output
CHARACTERS = (
    "eof",
    "erase",
    "intr",
    "kill",
    "lnext",
    "quit",
    "reprint",
    "start",
    "stop",
    "susp",
    "werase",
)  # (protocol)
# (protocol) keys are shown; flow control by `stop` and `start`; erasing deletes whole characters of UTF-8
MODES = ("echo", "ixon", "utf8")
DUMB = "dumb"  # (ours) the type of a terminal of which nothing is known
_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}\Z")  # it becomes a file's name, so it has no slash
_SETTING = re.compile(r"[a-z][a-z0-9]{0,15}\Z")
_NUMBER = re.compile(r"(0|[1-9][0-9]{0,4})\Z")


class TerminalRequest:
    """`rows` and `columns`: 0 if they are not known; `term`: the value of TERM; `settings`: by name."""

    __slots__ = ("columns", "rows", "settings", "term")

    def __init__(self, rows: int, columns: int, term: str, settings: Mapping[str, int] | None = None) -> None:
        """Numbers that are too large become the largest ones, and a wrong name of a terminal becomes DUMB."""
        self.rows = max(0, min(rows, LARGEST_WINDOW))
        self.columns = max(0, min(columns, LARGEST_WINDOW))
        self.term = term if _TYPE.match(term) else DUMB
        self.settings = dict(settings or {})

    def encode(self) -> str:
        settings = [f"{name}={value}" for name, value in sorted(self.settings.items())]
        return " ".join([str(self.rows), str(self.columns), self.term, *settings])

    @classmethod
    def decode(cls, text: str) -> TerminalRequest:
        words = text.split(" ")
        if len(words) < 3 or not _TYPE.match(words[2]):
            raise ProtocolError("terminal has no size, or a type that is no name")
        settings: dict[str, int] = {}
        last = ""
        for word in words[3:]:
            name, _, value = word.partition("=")
            if not _SETTING.match(name) or name <= last:
                raise ProtocolError("terminal has a setting without a name, or out of order")
            settings[name] = _number(value, 255)
            last = name
        return cls(_number(words[0], LARGEST_WINDOW), _number(words[1], LARGEST_WINDOW), words[2], settings)


def fits(streams: Iterable[Stream]) -> bool:
    """Returns True if a job with these streams can have a terminal: INPUT and OUTPUT are its two directions.

    The standard error is a duplicate of the standard output, because a terminal has one output.
    """
    by_number = {stream.number: stream for stream in streams}
    found = [by_number.get(number) for number in (INPUT, OUTPUT, ERROR)]
    shapes = [None if one is None else (one.directions, one.kind, one.same_as) for one in found]
    return shapes == [(READS, PIPE, INPUT), (WRITES, PIPE, OUTPUT), (WRITES, PIPE, OUTPUT)]


def _number(text: str, largest: int) -> int:
    if not _NUMBER.match(text) or int(text) > largest:
        raise ProtocolError("terminal has a number that is none, or too large")
    return int(text)
