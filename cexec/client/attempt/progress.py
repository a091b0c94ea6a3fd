"""`cexec --progress`: one line at the bottom of the terminal that shows the progress of a job while it runs.

Contract: `Progress.update` may be called after every step of the pump.  It draws at most five times a second, and only
if standard error is a terminal that is not dumb.  `next_timeout` tells when to call it although no bytes have moved, so
that the seconds count on.  `clear` removes the line for a while, `close` for good.  `shown` wraps the sinks that may
lead to the same terminal: their bytes pass above the line.  `expect` is told the sources of everything that goes to the
worker: if all of them have a size, the share that is sent and the time that is left are shown.  Of several forms of the
line the longest that the window has room for is drawn, so that no number is cut.
"""

from __future__ import annotations

import os

from cexec.system.io.fds import EmptySource, FileSource, Sink
from cexec.system.printable import printable
from cexec.system.terminal import Painter, Terminal, fitting, give_way, wrote
from cexec.system.units import show_duration, show_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cexec.system.io.fds import Source

_INTERVAL = 0.2  # seconds (ours) between two lines
_IDLE_INTERVAL = 1.0  # seconds (ours) between two lines while no bytes move
_SMOOTHING = 2.0  # seconds (ours) over which a rate is averaged: less makes it jump, more makes it stale


class Progress:
    """The line of one attempt.  `sent` and `received` are bytes of all streams since its start."""

    __slots__ = ("_next", "_painter", "_samples", "_start", "_terminal", "_total", "_worker")

    def __init__(self, worker: str, now: float, *, fd: int = 2, environ: Mapping[str, str] | None = None) -> None:
        self._worker = printable(worker)
        self._terminal = Terminal(fd, environ)
        self._painter = Painter(self._terminal) if self._terminal.drawable else None
        self._start = now
        self._next = now + _INTERVAL  # a shorter job needs no line
        self._total: int | None = 0  # bytes that are to be sent; None if nobody knows
        self._samples = [(now, 0, 0)]  # of the last seconds, oldest first

    def expect(self, sources: Iterable[Source]) -> None:
        """Takes further sources of what is sent."""
        for source in sources:
            size = _size_of(source)
            self._total = None if self._total is None or size is None else self._total + size

    def shown(self, sinks: Mapping[int, Sink]) -> dict[int, Sink]:
        """Returns the sinks; those of terminals are such that their bytes pass above the line."""
        return {number: _ShownSink(sink) if _is_terminal(sink.fd) else sink for number, sink in sinks.items()}

    def next_timeout(self) -> float | None:
        """Returns when to call `update` although no bytes have moved; None if it never draws."""
        return None if self._painter is None or not self._painter.works else self._next + _IDLE_INTERVAL

    def update(self, sent: int, received: int, now: float) -> None:
        """Draws the line again if that is due.  `sent` and `received`: bytes since the start."""
        if self._painter is None or now < self._next:
            return
        self._next = now + _INTERVAL
        while len(self._samples) > 1 and now - self._samples[1][0] >= _SMOOTHING:
            del self._samples[0]
        then, sent_then, received_then = self._samples[0]
        self._samples.append((now, sent, received))
        seconds = max(now - then, _INTERVAL)
        rates = (sent - sent_then) / seconds, (received - received_then) / seconds
        texts = self._texts(sent, received, rates, show_duration(now - self._start))
        self._painter.draw([fitting(texts, self._terminal.size()[0] - 1)])

    def _texts(self, sent: int, received: int, rates: tuple[float, float], took: str) -> list[str]:
        """Returns the line in all of its lengths."""
        up, down = f"up {show_size(sent)}", f"down {show_size(received)}"
        rate, down_rate = f"{show_size(rates[0])}/s", f"{show_size(rates[1])}/s"
        if not self._total or sent > self._total:
            return [
                f"{self._worker}  {up} {rate}  {down} {down_rate}  {took}", f"{up} {rate}  {down} {down_rate}  {took}",
                f"{up}  {down}  {took}", f"{up}  {down}", took,
            ]  # fmt: skip
        share = f"{100 * sent // self._total}%"
        left = f" {show_duration((self._total - sent) / rates[0])} left" if rates[0] > 0 and sent < self._total else ""
        part = f"{up} of {show_size(self._total)} {share}"
        return [
            f"{self._worker}  {part} {rate}{left}  {down} {down_rate}  {took}",
            f"{part} {rate}{left}  {down} {down_rate}  {took}",
            f"{part} {rate}{left}  {down}", f"{part}{left}", f"up {share}{left}", f"up {share}", share,
        ]  # fmt: skip

    def clear(self) -> None:
        """Removes the line from the terminal until the next `update`."""
        if self._painter is not None:
            self._painter.erase()

    def close(self) -> None:
        """Removes it for good."""
        if self._painter is not None:
            self._painter.close()
            self._painter = None


class _ShownSink(Sink):
    """A sink that may lead to the terminal with the line."""

    def __init__(self, inner: Sink) -> None:
        super().__init__(inner.fd, shared=True)
        self._inner = inner

    def write(self, view: memoryview) -> int:
        give_way(self.fd)
        size = self._inner.write(view)
        wrote(self.fd, view[:size])
        self.count += size
        return size

    def close(self) -> None:
        self._inner.close()
        super().close()


def _size_of(source: Source) -> int | None:
    """Returns how many bytes a source will give; None if that is not known."""
    if isinstance(source, FileSource):
        return source.size
    if isinstance(source, EmptySource):
        return 0
    try:
        return 0 if os.path.samestat(os.fstat(source.fd), os.stat(os.devnull)) else None
    except OSError:
        return None


def _is_terminal(fd: int) -> bool:
    try:
        return os.isatty(fd)
    except OSError:
        return False
