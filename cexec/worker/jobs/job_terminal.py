"""The terminal of a job: a pseudo-terminal whose two directions are streams 0 and 1 of the connection.

Contract: `JobTerminal(pump, request)` makes the terminal and gives our end to the pump; `end()` returns a descriptor
for the program, which the caller closes.  `program_ended` is called when the session's leader has ended: what it wrote
is read, and then the output ends, although a process in the background may have the terminal open.  `hang_up` closes
the terminal, as the end of a line does: the foreground group gets SIGHUP.  `advance` and `next_timeout` as elsewhere.
Raises `OSError` from the constructor.  docs/protocol.md section 4.5.
"""

from __future__ import annotations

import errno
import os
from time import monotonic
from typing import TYPE_CHECKING

from cexec.protocol.connection.terminal_request import INPUT, OUTPUT
from cexec.system.io.fds import Sink, Source
from cexec.system.io.pseudo_terminal import PseudoTerminal, write_settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cexec.net.pump import Pump
    from cexec.protocol.connection.terminal_request import TerminalRequest

LARGEST_REST = 256 * 1024  # bytes (ours) that are read after the leader's end: more than a terminal can hold
MOST_ENDS = 16  # (ours) keys that are typed again for one end of the input; a shell can be told to ignore them
TYPE_AGAIN = 0.05  # seconds (ours) until the end of the input is tried again, and until the first look if it was read
LONGEST_PAUSE = 10.0  # seconds (ours) between two such looks, each of which comes after twice the time
# They describe the terminal at which cservice was started.  curses would take LINES and COLUMNS for the window's size.
OTHERS_VARIABLES = (
    b"COLORTERM", b"COLUMNS", b"GPG_TTY", b"LINES", b"SSH_TTY", b"STY", b"TERMCAP", b"TERM_PROGRAM",
    b"TERM_PROGRAM_VERSION", b"TMUX", b"TMUX_PANE", b"VTE_VERSION", b"WINDOW", b"WINDOWID",
)  # fmt: skip


class JobTerminal:
    """One of them."""

    def __init__(self, pump: Pump, request: TerminalRequest) -> None:
        self._pump = pump
        self._term = request.term
        self._terminal = PseudoTerminal()
        try:
            self._terminal.resize(request.rows, request.columns)
            write_settings(self._terminal.theirs, request.settings)
        except BaseException:
            self._terminal.close()
            raise
        self._input = TerminalInput(self._terminal)
        pump.sources[OUTPUT] = TerminalOutput(self, self._terminal.ours)
        pump.sinks[INPUT] = self._input

    @property
    def name(self) -> str:
        """The path of the program's end, such as /dev/pts/3."""
        return self._terminal.name

    def end(self) -> int:
        return os.dup(self._terminal.theirs)

    def environment(self, inherited: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
        """Returns the variables of a program that runs here."""
        kept = {name: value for name, value in inherited.items() if name not in OTHERS_VARIABLES}
        return kept | {b"TERM": self._term.encode()}

    def resize(self, rows: int, columns: int) -> None:
        if self._terminal.ours >= 0:
            self._terminal.resize(rows, columns)

    def foreground(self) -> int:
        """Returns the process group that Ctrl-C is for; 0 if that is not known."""
        return self._terminal.foreground() if self._terminal.ours >= 0 else 0

    def program_ended(self) -> None:
        """May be called again."""
        output = self._pump.sources.get(OUTPUT)  # not kept: it knows us, and a cycle would keep the connection's keys
        if isinstance(output, TerminalOutput):
            output.take_rest()

    def next_timeout(self) -> float | None:
        return self._input.next_timeout()

    def advance(self) -> None:
        """Follows each step of the pump."""
        self._input.advance()

    def shown(self) -> None:
        """The program has shown something."""
        self._input.look_soon()

    def hang_up(self) -> None:
        """May be called again."""
        if self._terminal.ours < 0:
            return
        self._pump.sources.pop(OUTPUT, None)
        self._terminal.close()
        self._pump.close_sink(INPUT)


class TerminalOutput(Source):
    """What the program shows."""

    def __init__(self, terminal: JobTerminal, fd: int) -> None:
        super().__init__(fd, shared=True)
        self._terminal = terminal
        self._ours = fd
        self._rest: int | None = None  # bytes that may still be read, once the leader of the session has ended

    def read_into(self, view: memoryview) -> int | None:
        """The kernel has all that a process wrote before its end when it says that there is nothing."""
        if self._rest is not None:
            view = view[: self._rest]
        try:
            size = os.readv(self._ours, [view]) if len(view) else 0
        except (BlockingIOError, InterruptedError):
            return None if self._rest is None else 0
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            return 0
        if self._rest is not None:
            self._rest -= size
        elif size:
            self._terminal.shown()
        return size

    def take_rest(self) -> None:
        """Ends when nothing more is there.  Without a descriptor it need not be readable to be read."""
        if self._rest is None:
            self._rest = LARGEST_REST
            self.fd = -1

    def abandon(self) -> None:
        """Nobody looks at the terminal any more."""
        self._terminal.hang_up()


class TerminalInput(Sink):
    """The keys.  At the end of the stream the key is typed that ends the input.

    A key that was typed in one mode means something else in another: to a shell that has just begun to edit its line it
    is nothing.  So once the key has been read it is typed again, for whoever reads next.
    """

    def __init__(self, terminal: PseudoTerminal) -> None:
        super().__init__(terminal.ours, shared=True)
        self._terminal = terminal
        self._last = b"\n"
        self._owed = b""  # what is to be typed as soon as there is room
        self._ends = 0  # keys that may still be typed for the end
        self._look_at: float | None = None  # when to look if the last one was read
        self._pause = 0.0

    def write(self, view: memoryview) -> int:
        try:
            size = os.write(self._terminal.ours, view)
        except (BlockingIOError, InterruptedError):
            return 0
        if size:
            self._last = bytes(view[size - 1 : size])
        self.count += size
        return size

    def close(self) -> None:
        """In the middle of a line that is edited here the key only ends the line, so it is typed twice."""
        if self.fd >= 0 and self._terminal.ours >= 0:
            key = self._terminal.end_of_file()
            self._owed = key * 2 if self._last not in b"\r\n" and self._terminal.reads_lines() else key
            self._ends = MOST_ENDS
            self.look_soon()
            self.advance()
        super().close()

    def next_timeout(self) -> float | None:
        return monotonic() + TYPE_AGAIN if self._owed else self._look_at

    def look_soon(self) -> None:
        """The program has done something: perhaps it reads."""
        if self._ends:
            self._pause = TYPE_AGAIN
            self._look_at = monotonic() + self._pause

    def advance(self) -> None:
        """Types what is due, as far as there is room."""
        if self._terminal.ours < 0:
            self._owed, self._look_at = b"", None
        elif not self._owed and self._look_at is not None and monotonic() >= self._look_at:
            self._look()
        if self._owed:
            try:
                self._owed = self._owed[os.write(self._terminal.ours, self._owed) :]
            except (BlockingIOError, InterruptedError):
                pass

    def _look(self) -> None:
        """Looks ever more seldom, until the program shows something."""
        if not self._terminal.unread():
            self._ends -= 1
            self._owed = self._terminal.end_of_file()
        self._pause *= 2
        self._look_at = monotonic() + self._pause if self._ends and self._pause < LONGEST_PAUSE else None
