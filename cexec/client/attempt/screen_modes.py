"""The modes into which a program has put the person's terminal, and the bytes that put it back.

Contract: pure.  `ScreenModes.feed(data)` is told every byte that the terminal is shown.  `restoring()` returns what
undoes the modes that are on: the second screen, a hidden cursor, reports of the mouse, and others of xterm.  A program
that was killed has not done so.  Modes that nobody set are not touched.  Memory is bounded.
"""

from __future__ import annotations

import re

# (DEC, xterm) private modes that are off at first.  The screens come last, because leaving them moves the cursor.
OFF_AT_FIRST = (
    2026,
    1,
    5,
    6,
    9,
    66,
    1000,
    1001,
    1002,
    1003,
    1004,
    1005,
    1006,
    1015,
    1016,
    2004,
    2031,
    2048,
    47,
    1047,
    1049,
)
ON_AT_FIRST = (7, 25)  # lines wrap, the cursor is seen
SCREENS = (47, 1047, 1049)
_LONGEST = 64  # bytes (ours) of a sequence that is looked for, however a terminal's output is cut
_SEQUENCE = re.compile(
    rb"\x1b(?:\[\?(?P<private>[0-9;]{1,40})(?P<way>[hl])|\[(?P<margins>[0-9;]{0,20})r|(?P<keypad>[=>])"
    rb"|\[>(?P<keys>[0-9;]{0,20})(?P<kind>[um])|(?P<reset>c))"
)
_CANCEL = b"\x18"  # (ECMA-48) ends a sequence that was cut
_PLAIN = b"\x1b[m\x0f\x1b(B"  # colours, and the set of letters
_KEYPAD, _MARGINS, _KITTY, _XTERM = b"\x1b>", b"\x1b7\x1b[r\x1b8", b"\x1b[<9u", b"\x1b[>4m"


class ScreenModes:
    """The modes of one terminal."""

    __slots__ = ("_changed", "_rest", "_undo", "_used", "at_line_start")

    def __init__(self) -> None:
        self.at_line_start = True  # the last byte has ended a line
        self._used = False  # there were escape sequences
        self._changed: set[int] = set()  # private modes that are not as at first
        self._undo: set[bytes] = set()  # what undoes other modes
        self._rest = b""  # the beginning of a sequence

    def feed(self, data: bytes | memoryview) -> None:
        data = bytes(data)
        if not data:
            return
        self.at_line_start = data[-1:] in b"\r\n"
        text, self._rest = self._rest + data, b""
        last = text.rfind(b"\x1b")
        if last < 0:
            return
        self._used = True
        end = last
        for found in _SEQUENCE.finditer(text):
            self._take(found)
            end = found.end()
        if end <= last and len(text) - last <= _LONGEST:
            self._rest = text[last:]

    def restoring(self) -> bytes:
        """Returns the bytes that make the terminal usable for a person, and bring the cursor to a line of its own."""
        off = [mode for mode in OFF_AT_FIRST if mode in self._changed]
        on = [mode for mode in ON_AT_FIRST if mode in self._changed]
        undone = b"".join(sorted(self._undo)) + b"".join(b"\x1b[?%dl" % mode for mode in off)
        undone += b"".join(b"\x1b[?%dh" % mode for mode in on)
        if not self._used:
            return b"" if self.at_line_start else b"\r\n"
        moved = any(mode in self._changed for mode in SCREENS)
        return _CANCEL + _PLAIN + undone + (b"\r" if self.at_line_start or moved else b"\r\n")

    def _take(self, found: re.Match[bytes]) -> None:
        if found["private"]:
            for word in found["private"].split(b";"):
                mode = int(word or 0)
                on = found["way"] == b"h"
                if mode in OFF_AT_FIRST or mode in ON_AT_FIRST:
                    (self._changed.add if on == (mode in OFF_AT_FIRST) else self._changed.discard)(mode)
        elif found["keypad"]:
            self._note(_KEYPAD, found["keypad"] == b"=")
        elif found["kind"] == b"u":
            self._note(_KITTY, True)
        elif found["kind"] == b"m" and found["keys"].startswith(b"4"):
            self._note(_XTERM, found["keys"] not in (b"4", b"4;0", b"4;"))
        elif found["margins"] is not None:
            self._note(_MARGINS, found["margins"] not in (b"", b";"))
        elif found["reset"]:
            self._changed.clear()
            self._undo.clear()

    def _note(self, undoing: bytes, on: bool) -> None:
        (self._undo.add if on else self._undo.discard)(undoing)
