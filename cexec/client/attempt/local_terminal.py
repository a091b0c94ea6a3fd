"""The person's terminal while a program runs on a terminal at its worker.

Contract: `LocalTerminal` knows descriptors 0 and 1, which need not be terminals.  `add_to(go)` makes a job ask for a
terminal like this one.  `prepare` lets every byte be shown as it is, and `enter` lets every key pass as a byte, too, if
the terminal is ours to change; `leave` gives it back as it was, and may be called at any time.  `KeyboardSource` passes
keys on; `ScreenSink` enters before it shows anything, and notes what it has shown.  docs/protocol.md section 4.5.
"""

from __future__ import annotations

import os
import signal
import termios
from typing import TYPE_CHECKING, Any

from cexec.client.attempt.escape_keys import EscapeKeys
from cexec.client.attempt.screen_modes import ScreenModes
from cexec.protocol.connection.frames import Stream
from cexec.protocol.connection.options import PIPE, READS, TERMINAL, WRITES
from cexec.protocol.connection.terminal_request import ERROR, INPUT, OUTPUT, TerminalRequest
from cexec.system.io.fds import Sink, Source
from cexec.system.io.foreground import in_foreground
from cexec.system.io.opened_fds import open_sink
from cexec.system.io.pseudo_terminal import plain_output, raw_modes, read_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cexec.protocol.connection.frames import Go

LONGEST_READ = 4096  # bytes (ours) of keys at once: all that a terminal holds


class LocalTerminal:
    """`keyboard` and `screen`: descriptors 0 and 1 are terminals."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self.keyboard = _is_terminal(INPUT)
        self.screen = _is_terminal(OUTPUT)
        self.modes = ScreenModes()
        self._fd = INPUT if self.keyboard else OUTPUT  # whose modes are changed
        self._saved: list[Any] | None = None  # the modes before `prepare` and `enter`
        self._size = (0, 0)  # that the worker knows

    def add_to(self, go: Go) -> None:
        """Makes this job ask for a terminal."""
        self._size = rows, columns = self._look()
        settings: dict[str, int] = {}
        for fd in (INPUT, OUTPUT):
            if not settings and _is_terminal(fd):
                settings = read_settings(fd)
                if not in_foreground(fd):
                    settings.pop("echo", None)  # the shell in front edits its line itself, without it
        request = TerminalRequest(rows, columns, self._environ.get("TERM", ""), settings)
        go.options = {**go.options, TERMINAL: request.encode()}
        go.streams = _with_terminal(go.streams)

    def new_size(self, *, told: bool) -> tuple[int, int] | None:
        """Returns rows and columns if they have changed since the last call; `told`: also if they have not."""
        size = self._look()
        if size == self._size and not told:
            return None
        self._size = size
        return size

    @property
    def entered(self) -> bool:
        return self._saved is not None

    def prepare(self) -> None:
        """Ctrl-C is still for us, because no program runs yet; its first byte may come with the word that it runs."""
        self._apply(plain_output)

    def enter(self) -> bool:
        """Returns False if somebody else is using the terminal.  Called again, it repeats what a shell has undone."""
        return self._apply(raw_modes if self.keyboard else plain_output)

    def _apply(self, changed: Callable[[list[Any]], list[Any]]) -> bool:
        if not self.keyboard and not self.screen:
            return True
        if not in_foreground(self._fd):
            return False
        try:
            if self._saved is None:
                self._saved = termios.tcgetattr(self._fd)
            _change(self._fd, changed(self._saved))
        except (OSError, termios.error):
            self._saved = None  # it has gone
        return True

    def leave(self) -> None:
        """If somebody else is using the terminal, a shell has seen to that already."""
        saved, self._saved = self._saved, None
        if saved is not None and in_foreground(self._fd):
            try:
                _change(self._fd, saved)
            except (OSError, termios.error):
                pass  # it has gone

    def show(self, data: bytes) -> None:
        """Shows some bytes of ours, as far as there is room: a terminal that takes nothing is no reason to wait."""
        if self.screen and data:
            sink = open_sink(OUTPUT)
            try:
                sink.write(memoryview(data))
            except OSError:
                pass  # it has gone
            finally:
                sink.close()

    def _look(self) -> tuple[int, int]:
        for fd in (OUTPUT, INPUT, ERROR):
            try:
                return termios.tcgetwinsize(fd)
            except (OSError, termios.error):
                pass
        return 0, 0


class KeyboardSource(Source):
    """Keys.  `commands` are those that were meant for us; `typed` is true once a key has gone to the program."""

    def __init__(self, inner: Source) -> None:
        super().__init__(inner.fd, shared=True)
        self.commands: list[str] = []
        self.typed = False
        self._inner = inner
        self._keys = EscapeKeys()

    def read_into(self, view: memoryview) -> int | None:
        # A key that was held back comes with the next one.
        buffer = memoryview(bytearray(min(len(view) - 1, LONGEST_READ)))
        size = self._inner.read_into(buffer)
        self.fd, self.later = self._inner.fd, self._inner.later
        if not size:
            return size
        keys, commands = self._keys.feed(bytes(buffer[:size]))
        self.commands += commands
        view[: len(keys)] = keys
        self.typed = self.typed or bool(keys)
        return len(keys) or None

    def close(self) -> None:
        self._inner.close()
        super().close()


class ScreenSink(Sink):
    """Shows the program's output.

    The terminal passes keys on before the first byte is shown, because whoever sees a prompt may type at once.
    """

    def __init__(self, inner: Sink, terminal: LocalTerminal) -> None:
        super().__init__(inner.fd, shared=True)
        self._inner = inner
        self._terminal = terminal

    def write(self, view: memoryview) -> int:
        if not self.count:
            self._terminal.enter()
        size = self._inner.write(view)
        if self._terminal.screen:
            self._terminal.modes.feed(view[:size])
        self.count += size
        return size

    def close(self) -> None:
        self._inner.close()
        super().close()


def _with_terminal(streams: list[Stream]) -> list[Stream]:
    """Returns the streams of a job whose standard descriptors are a terminal, whatever they are here.

    Descriptors that shared a file with standard error share the terminal.
    """
    standard = [
        Stream(INPUT, READS, PIPE), Stream(OUTPUT, WRITES, PIPE), Stream(ERROR, WRITES, PIPE, OUTPUT),
    ]  # fmt: skip
    others = [one for one in streams if one.number > ERROR]
    return standard + [
        Stream(one.number, WRITES, PIPE, OUTPUT) if one.same_as == ERROR else one for one in others
    ]  # fmt: skip


def _change(fd: int, modes: list[Any]) -> None:
    """At once, because a terminal that takes no bytes would make us wait; from the background without being stopped."""
    before = signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    try:
        termios.tcsetattr(fd, termios.TCSANOW, modes)
    finally:
        signal.signal(signal.SIGTTOU, before)


def _is_terminal(fd: int) -> bool:
    try:
        return os.isatty(fd)
    except OSError:
        return False
