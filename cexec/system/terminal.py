"""What a person sees on a terminal: colours, and a picture at its bottom above which all other output passes.

Contract: `Terminal(fd)` knows one descriptor.  `drawable` is true for a terminal that can do more than print lines
(TERM is set, and not dumb); `coloured` is true if NO_COLOR does not forbid colours there either.  Nothing else turns
escape sequences on: a file, a pipe and a dumb terminal never get any.  `paint` colours a text that is printable
already (`system.printable`), or returns it as it is.

`Painter(terminal)` has the only picture of this process: some lines at the bottom.  `draw(lines)` replaces them,
clipped to the window as it is now; the caller chooses among texts of different lengths with `fitting`, so that no
number is cut.  Whoever writes other bytes to a descriptor calls `give_way(fd)` before and `wrote(fd, data)` after: if
that is the same terminal, the picture goes out of the way and comes back below.  It waits while the last line has no
end yet, while another process group has the terminal, and while Ctrl-S holds it.  Without a painter both calls do
nothing.

Between two calls the cursor is at the first letter of the picture.  To erase is then to clear everything below the
cursor, however the terminal has wrapped the lines when its window was resized.

Only what every start of Python has loaded, and `select`, is imported here: `cexec` starts often.
"""

from __future__ import annotations

import os
import select

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

BOLD, DIM, RED, GREEN, YELLOW, BLUE, MAGENTA, CYAN = "1", "2", "31", "32", "33", "34", "35", "36"  # (ECMA-48) SGR
TAG_COLOURS = (CYAN, MAGENTA, YELLOW, BLUE, GREEN)  # (ours) of the tags of different tasks and workers, in turn
ESCAPE, RESET = "\x1b", "\x1b[0m"
CLEAR_LINE, CLEAR_BELOW = "\x1b[K", "\x1b[J"  # (ECMA-48) from the cursor on
USUAL_SIZE = (80, 24)  # columns and rows (ours) of a terminal that does not know its size
CONTROLLING = os.makedev(5, 0)  # /dev/tty
DUMB = ("", "dumb")  # values of TERM

_painter: Painter | None = None


class Terminal:
    """One descriptor, which need not be a terminal.  `environ` is for tests."""

    __slots__ = ("coloured", "drawable", "fd")

    def __init__(self, fd: int, environ: Mapping[str, str] | None = None) -> None:
        environ = os.environ if environ is None else environ
        self.fd = fd
        self.drawable = _is_terminal(fd) and environ.get("TERM", "") not in DUMB
        self.coloured = self.drawable and not environ.get("NO_COLOR")

    def size(self) -> tuple[int, int]:
        """Returns columns and rows of the window as it is now."""
        try:
            columns, rows = os.get_terminal_size(self.fd)
        except OSError:
            return USUAL_SIZE
        return columns or USUAL_SIZE[0], rows or USUAL_SIZE[1]

    def write(self, text: str) -> bool:
        """Writes all of it; returns False if the terminal has gone."""
        data = memoryview(text.encode("utf-8", "replace"))
        try:
            while data:
                data = data[os.write(self.fd, data) :]
        except OSError:
            return False
        return True

    def paint(self, text: str, *styles: str) -> str:
        """Returns the text in these styles if there are colours here."""
        return painted(text, *styles) if self.coloured and text else text


class Painter:
    """The picture of this process; a second painter takes the place of the first."""

    def __init__(self, terminal: Terminal) -> None:
        global _painter
        self._terminal = terminal
        self._lines: list[str] = []  # what was to be drawn last
        self._visible = False
        self._line_begun = False  # somebody's last line has no end yet
        self._same: dict[int, bool] = {}  # descriptors: which of them lead to this terminal
        self._works = terminal.drawable
        _painter = self

    @property
    def works(self) -> bool:
        """False if nothing will be drawn any more: it is no terminal for this, or has gone."""
        return self._works

    def draw(self, lines: Iterable[str]) -> None:
        """Shows these lines in place of the last ones."""
        self._lines = list(lines)
        fd = self._terminal.fd
        if self._works and not self._line_begun and in_foreground(fd) and _takes_more(fd):
            self._write(self._picture() + self._back())
            self._visible = True

    def erase(self) -> None:
        """Takes the picture away.  The cursor is where the picture began."""
        if self._visible:
            self._visible = False
            self._write("\r" + CLEAR_BELOW)

    def close(self, *, keep: bool = False) -> None:
        """Ends the picture; with `keep` the last one stays, above what comes next."""
        global _painter
        if keep and self._works and self._line_begun:
            self._end_line()
            self.draw(self._lines)
        if keep and self._visible and self._lines:
            self._write(self._picture() + "\r\n")
            self._visible = False
        self.erase()
        self._works = False
        if _painter is self:
            _painter = None

    def give_way(self, fd: int) -> None:
        if self._visible and self._leads_here(fd):
            self.erase()

    def begin_line(self, fd: int) -> None:
        self.give_way(fd)
        if self._line_begun and self._works and self._leads_here(fd):
            self._end_line()

    def wrote(self, fd: int, data: bytes | memoryview) -> None:
        if len(data) and self._works and self._leads_here(fd):
            self._line_begun = data[-1] != ord("\n")
            if not self._line_begun and self._lines:
                self.draw(self._lines)

    def _end_line(self) -> None:
        self._line_begun = False
        self._write("\r\n")

    def _leads_here(self, fd: int) -> bool:
        found = self._same.get(fd)
        if found is None:
            same = _device(fd) in (_device(self._terminal.fd), CONTROLLING)
            found = self._same[fd] = _is_terminal(fd) and same
        return found

    def _picture(self) -> str:
        return f"{CLEAR_LINE}\r\n".join(["\r" + line for line in self._clipped()]) + CLEAR_BELOW

    def _back(self) -> str:
        up = len(self._clipped()) - 1
        return f"\r{ESCAPE}[{up}A" if up > 0 else "\r"

    def _clipped(self) -> list[str]:
        columns, rows = self._terminal.size()
        # One column stays free: at the last one some terminals wrap.  One row is left to what passes above.
        return [clip(line, columns - 1) for line in self._lines[: max(1, rows - 1)]]

    def _write(self, text: str) -> None:
        if not self._terminal.write(text):
            self._works = self._visible = False


def give_way(fd: int) -> None:
    """Call this before writing to a descriptor that may be the terminal."""
    if _painter is not None:
        _painter.give_way(fd)


def begin_line(fd: int) -> None:
    """Likewise, for a line of our own: a line of somebody else that has no end yet gets one, if we know of it."""
    if _painter is not None:
        _painter.begin_line(fd)


def wrote(fd: int, data: bytes | memoryview) -> None:
    """Call this after `data` was written to a descriptor that may be the terminal; its last byte is what counts."""
    if _painter is not None:
        _painter.wrote(fd, data)


def painted(text: str, *styles: str) -> str:
    """Returns a text in these styles, for whatever shows it."""
    return f"{ESCAPE}[{';'.join(styles)}m{text}{RESET}" if styles else text


def width(text: str) -> int:
    """Returns the columns that a line takes; our own escape sequences take none."""
    if text.isascii() and ESCAPE not in text:
        return len(text)
    return sum(columns for _, columns in _letters(text))


def clip(line: str, columns: int) -> str:
    """Returns as much of a line as so many columns show, with its colours ended."""
    if width(line) <= columns:
        return line
    shown, used = [], 0
    for piece, size in _letters(line):
        if used + size > columns:
            break
        used += size
        shown.append(piece)
    return "".join(shown) + (RESET if ESCAPE in line else "")


def fitting(texts: Sequence[str], columns: int) -> str:
    """Returns the first of these texts that fits into so many columns; empty if none does."""
    return next((text for text in texts if width(text) <= columns), "")


def _letters(text: str) -> Iterable[tuple[str, int]]:
    """Yields letters and escape sequences (`paint`) with the number of columns of each."""
    from unicodedata import category, east_asian_width  # most lines need neither

    place = 0
    while place < len(text):
        letter = text[place]
        end = text.find("m", place) + 1 if letter == ESCAPE else 0
        if end > 0:
            yield text[place:end], 0
            place = end
            continue
        place += 1
        if letter.isascii():
            yield letter, 1
        elif category(letter) in ("Mn", "Me", "Cf"):
            yield letter, 0
        else:
            yield letter, 2 if east_asian_width(letter) in "WF" else 1


def in_foreground(fd: int) -> bool:
    """Returns False if this terminal is ours and a shell has given it to another process group."""
    try:
        return os.tcgetpgrp(fd) == os.getpgrp()
    except OSError:
        return True  # somebody else's terminal, to which we were told to write


def _takes_more(fd: int) -> bool:
    """Returns False while Ctrl-S holds a terminal: a picture is no reason to stop with everything."""
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    return bool(poll.poll(0))


def _is_terminal(fd: int) -> bool:
    try:
        return os.isatty(fd)
    except (OSError, ValueError, OverflowError):
        return False


def _device(fd: int) -> int:
    try:
        return os.fstat(fd).st_rdev
    except OSError:
        return -1
