"""`cexec --progress`: one line on the terminal that shows the progress of a job while it runs.

Contract: `Progress.update` may be called after every step of the pump.  It writes at most five times a second, and only
if standard error is a terminal.  `next_timeout` tells when to call it although no bytes have moved, so that the seconds
count on.  `clear` removes the line; it must be called before other text is written there, and at the end.
"""

from __future__ import annotations

import os

from cexec.system.printable import printable
from cexec.system.units import show_duration, show_size

_INTERVAL = 0.2  # seconds (ours) between two lines
_IDLE_INTERVAL = 1.0  # seconds (ours) between two lines while no bytes move
_SMOOTHING = 2.0  # seconds (ours) over which a rate is averaged: less makes it jump, more makes it stale
_ERASE = b"\r\x1b[K"  # ECMA-48: to the first column, erase to the end of the line
_NARROWEST = 20  # columns (ours): the line is not cut shorter, because no number would be left


class Progress:
    """The line of one attempt.  `sent` and `received` are bytes of all streams since its start."""

    __slots__ = ("_fd", "_next", "_samples", "_shown", "_start", "_worker")

    def __init__(self, worker: str, now: float, *, fd: int = 2) -> None:
        self._worker = printable(worker)
        self._fd = fd if os.isatty(fd) else -1
        self._start = now
        self._next = now + _INTERVAL  # a shorter job needs no line
        self._shown = False
        self._samples = [(now, 0, 0)]  # of the last seconds, oldest first

    def next_timeout(self) -> float | None:
        """Returns when to call `update` although no bytes have moved; None if it never writes."""
        return None if self._fd < 0 else self._next + _IDLE_INTERVAL

    def update(self, sent: int, received: int, now: float) -> None:
        """Writes the line again if that is due.  `sent` and `received`: bytes since the start."""
        if self._fd < 0 or now < self._next:
            return
        self._next = now + _INTERVAL
        while len(self._samples) > 1 and now - self._samples[1][0] >= _SMOOTHING:
            del self._samples[0]
        then, sent_then, received_then = self._samples[0]
        self._samples.append((now, sent, received))
        seconds = max(now - then, _INTERVAL)
        parts = (
            self._worker,
            f"up {show_size(sent)} {show_size((sent - sent_then) / seconds)}/s",
            f"down {show_size(received)} {show_size((received - received_then) / seconds)}/s",
            show_duration(now - self._start),
        )
        self._write(_ERASE + "  ".join(parts)[: max(_NARROWEST, _columns(self._fd) - 1)].encode())
        self._shown = True

    def clear(self) -> None:
        """Removes the line from the terminal."""
        if self._shown:
            self._shown = False
            self._write(_ERASE)

    def _write(self, data: bytes) -> None:
        try:
            os.write(self._fd, data)
        except OSError:
            self._fd = -1  # the terminal is closed


def _columns(fd: int) -> int:
    try:
        return os.get_terminal_size(fd).columns or 80
    except OSError:
        return 80
