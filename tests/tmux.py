"""A terminal that has all that people's terminals have, with a second screen, a mouse and keys of its own: tmux.

Contract: `Tmux(directory, argv, environment)` runs a command in a window of 80 columns and 24 rows.  `lines()` are the
rows that are not empty, `flags()` what programs have set.  `type` types, `wait_for` waits for a text.  A test that
uses it needs the tool tmux.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

from tests.needs import require_tool
from tests.waiting import wait_until

FLAGS = ("alternate_on", "cursor_flag", "mouse_any_flag", "keypad_cursor_flag", "keypad_flag", "insert_flag")
AT_REST = dict.fromkeys(FLAGS, "0") | {"cursor_flag": "1"}


class Tmux:
    """One window."""

    def __init__(self, directory: Path, argv: Sequence[str], environment: Mapping[str, str]) -> None:
        require_tool("tmux")
        self._command = ["tmux", "-S", str(directory / "tmux"), "-f", "/dev/null"]
        self._environment = {**environment, "TMUX_TMPDIR": str(directory), "LC_ALL": "C.UTF-8"}
        # It stays when the command has ended, so that a test can read it.
        self._do("new-session", "-d", "-x", "80", "-y", "24", *argv, ";", "set", "-g", "remain-on-exit", "on")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._do("kill-server")

    @property
    def pid(self) -> int:
        """The process that was started here."""
        return int(self._do("display-message", "-p", "#{pane_pid}"))

    def lines(self) -> list[str]:
        return [line.rstrip() for line in self._do("capture-pane", "-p").splitlines() if line.strip()]

    def flags(self) -> dict[str, str]:
        values = self._do("display-message", "-p", " ".join(f"#{{{name}}}" for name in FLAGS)).split()
        return dict(zip(FLAGS, values, strict=True))

    def type(self, keys: bytes) -> None:
        self._do("send-keys", "-H", *(f"{key:x}" for key in keys))

    def resize(self, columns: int, rows: int) -> None:
        self._do("resize-window", "-x", str(columns), "-y", str(rows))

    def wait_for(self, wanted: str | Callable[[list[str]], object]) -> list[str]:
        """Until a line has this text, or the function of the lines is true."""
        fits = (lambda lines: any(wanted in line for line in lines)) if isinstance(wanted, str) else wanted
        wait_until(lambda: fits(self.lines()), explain=lambda: "\n".join(self.lines()))
        return self.lines()

    def _do(self, *words: str) -> str:
        done = subprocess.run(
            [*self._command, *words], env=self._environment, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, (words, done.stderr)
        return done.stdout
