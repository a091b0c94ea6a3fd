"""The keys that a person presses, one by one and without echo, while a command shows something on the terminal.

Contract: between `start` and `stop` the terminal is in cbreak mode (Ctrl-C and Ctrl-Z still are signals), and `take`
returns what was typed, without waiting.  `filenos` is what to wait for: nothing where `fd` is no terminal, where
another process group has it, or once nobody types there any more.  `stop` may be called again.
"""

from __future__ import annotations

import os
import select
import termios
import tty
from typing import Any

MOST_KEYS = 256  # bytes (ours) taken at once


class Keyboard:
    def __init__(self, fd: int = 0) -> None:
        self._fd = fd
        self._saved: list[Any] | None = None
        self._ended = False

    def start(self) -> None:
        try:
            if self._ended or not os.isatty(self._fd) or os.tcgetpgrp(self._fd) != os.getpgrp():
                return
            saved = termios.tcgetattr(self._fd)
            tty.setcbreak(self._fd, termios.TCSANOW)
        except (OSError, termios.error):
            return  # somebody else's terminal
        self._saved = saved

    def stop(self) -> None:
        saved, self._saved = self._saved, None
        if saved is not None:
            try:
                termios.tcsetattr(self._fd, termios.TCSANOW, saved)
            except (OSError, termios.error):
                pass  # the terminal has gone

    def filenos(self) -> list[int]:
        return [] if self._saved is None or self._ended else [self._fd]

    def take(self) -> str:
        if not self.filenos() or not select.select([self._fd], [], [], 0)[0]:
            return ""
        try:
            data = os.read(self._fd, MOST_KEYS)
        except OSError:
            data = b""
        self._ended = not data
        return data.decode("ascii", "replace")
