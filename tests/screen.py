"""A terminal with a screen that a test can read: what a person would see, as pyte understands the bytes.

Contract: `Screen(columns, rows)` is a pseudo-terminal; `theirs` is the descriptor that a command or a painter writes
to.  `lines()` are the rows that are not empty, after everything that was written so far; `raw` has the bytes.
`resize` changes the window.  `run(argv, ...)` starts a command as the foreground job of this terminal.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import pyte

from tests.lab import Host
from tests.waiting import PATIENCE

# The child makes the terminal its own, as a login does, and becomes the command.
BECOME = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execvp(sys.argv[1], sys.argv[1:])"


class _PyteScreen(pyte.HistoryScreen):
    """pyte takes xterm's `CSI > 4 ; 2 m`, which is about keys, for a colour, and fails."""

    def select_graphic_rendition(self, *attributes: int, private: str | bool = False) -> None:
        if not private:
            super().select_graphic_rendition(*attributes)


class Screen:
    """One terminal."""

    def __init__(self, columns: int = 80, rows: int = 24) -> None:
        self.raw = b""
        self.status: int | None = None  # of a command, for a test that wants to know it later
        self.ours, self.theirs = os.openpty()
        os.set_blocking(self.ours, False)
        self._screen = _PyteScreen(columns, rows, history=10_000)
        self._stream = pyte.ByteStream(self._screen)
        self.resize(columns, rows)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for fd in (self.ours, self.theirs):
            if fd >= 0:
                os.close(fd)

    def resize(self, columns: int, rows: int) -> None:
        self.read()
        fcntl.ioctl(self.ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self._screen.resize(rows, columns)

    def read(self) -> None:
        """Takes what was written so far."""
        while select.select([self.ours], [], [], 0)[0]:
            try:
                data = os.read(self.ours, 65536)
            except OSError:
                return  # nobody has it open any more
            if not data:
                return
            self.raw += data
            self._stream.feed(data)

    def lines(self) -> list[str]:
        """The rows of the window that are not empty."""
        self.read()
        return [line.rstrip() for line in self._screen.display if line.strip()]

    def story(self) -> list[str]:
        """Everything that a person could scroll back to, and the window."""
        window = self.lines()
        past = ["".join(row[column].data for column in range(self._screen.columns)) for row in self._screen.history.top]
        return [*(line.rstrip() for line in past), *window]

    def colours(self, text: str) -> set[str]:
        """The colours of the letters of the first line that has this text."""
        self.read()
        for row, line in enumerate(self._screen.display):
            if (place := line.find(text)) >= 0:
                return {self._screen.buffer[row][place + number].fg for number in range(len(text))}
        raise AssertionError(f"no {text!r} on the screen: {self.lines()}")

    def modes(self) -> list[Any]:
        """How the terminal treats keys and output, as tcgetattr tells it."""
        return termios.tcgetattr(self.theirs)

    def type(self, keys: bytes) -> None:
        os.write(self.ours, keys)

    def wait_for(self, wanted: str | Callable[[list[str]], object]) -> list[str]:
        """Until a line has this text, or the function of the lines is true."""
        fits = (lambda lines: any(wanted in line for line in lines)) if isinstance(wanted, str) else wanted
        deadline = time.monotonic() + PATIENCE
        while not fits(lines := self.lines()):
            assert time.monotonic() < deadline, f"the screen shows {lines}; raw: {self.raw[-2000:]!r}"
            select.select([self.ours], [], [], 0.05)
        return lines

    def run(
        self,
        argv: Sequence[str],
        environment: Mapping[str, str],
        redirections: Mapping[int, Any] | None = None,
        host: Host | None = None,
    ) -> subprocess.Popen[bytes]:
        """Starts a command here, on `host`.  `redirections`: what subprocess takes, for descriptors 1 and 2."""
        pipes = {1: self.theirs, 2: self.theirs, **(redirections or {})}
        return (subprocess.Popen if host is None else host.popen)(
            [sys.executable, "-S", "-c", BECOME, *argv],
            stdin=self.theirs,
            stdout=pipes[1],
            stderr=pipes[2],
            env={"TERM": "xterm-256color", **environment},
            start_new_session=True,
        )

    def end(self, process: subprocess.Popen[bytes]) -> int:
        """The exit status; what is written meanwhile is read, so that nobody waits for us."""
        deadline = time.monotonic() + PATIENCE
        while process.poll() is None:
            if time.monotonic() > deadline:
                process.send_signal(signal.SIGKILL)
                raise AssertionError(f"it does not end; the screen shows {self.lines()}")
            select.select([self.ours], [], [], 0.05)
            self.read()
        self.read()
        return process.returncode
