"""The driver of `cexec` for a job on a terminal: keys go to the program, and the person's terminal is given back.

Contract: as that of `driver`.  From STARTED to the last byte the terminal passes every key on.  However `run` ends, the
terminal is as before then; if the program has not ended by itself, the modes of the screen that it has set are undone,
too.  HUP and TERM end us at once: the worker hangs up the program's terminal.  A stop concerns this side only.  Once a
key was sent the job cannot be repeated.  `LeftByUser` is raised for `~.`.  docs/protocol.md section 4.5.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING

from cexec.client.attempt import attempt as meaning
from cexec.client.attempt.escape_keys import HELP, HELP_TEXT, LEAVE
from cexec.client.attempt.local_terminal import KeyboardSource, ScreenSink
from cexec.client.attempt.signals import suspend
from cexec.client.blocking.driver import BlockingDriver
from cexec.errors import InterruptedByUser, LeftByUser
from cexec.protocol.connection import frames
from cexec.protocol.connection.options import CONTINUE, HANGUP, SUSPEND, TERMINATE
from cexec.protocol.connection.session import RUNNING
from cexec.protocol.connection.terminal_request import INPUT, OUTPUT
from cexec.system.io.fds import EmptySource
from cexec.system.io.foreground import PAUSE

if TYPE_CHECKING:
    from typing import Any

    from cexec.client.attempt.attempt import AttemptEvent
    from cexec.client.attempt.local_terminal import LocalTerminal
    from cexec.protocol.connection.frames import Exit


class TerminalDriver(BlockingDriver):
    """One attempt."""

    carries = False  # a key may be a command

    def __init__(self, terminal: LocalTerminal, *arguments: Any) -> None:
        """`terminal` was added to the job; `arguments` are those of `BlockingDriver`."""
        super().__init__(*arguments)
        self._terminal = terminal
        self._keyboard: KeyboardSource | None = None
        self._waits = False  # somebody else is using the terminal
        if OUTPUT in self._pump.sinks:
            self._pump.sinks[OUTPUT] = ScreenSink(self._pump.sinks[OUTPUT], terminal)

    def run(self) -> Exit:
        result = None
        self._signals.watch_size()
        try:
            self._terminal.prepare()
            result = super().run()
            return result
        finally:
            if result is None or result.kind != frames.EXITED:
                self._terminal.show(self._terminal.modes.restoring())
            self._terminal.leave()

    def resign(self) -> None:
        """Signals stay ours until the terminal is given back."""

    def next_timeout(self) -> float | None:
        due = super().next_timeout()
        if not self._waits:
            return due
        again = monotonic() + PAUSE
        return again if due is None else min(due, again)

    def step(self) -> None:
        super().step()
        if self._waits:
            self._enter()
        keyboard = self._keyboard
        if keyboard is None:
            return
        if keyboard.typed and not self._forgotten:
            self._forgotten = True
            self._inputs.forget()
        commands, keyboard.commands = keyboard.commands, []
        for command in commands:
            if command == LEAVE:
                raise LeftByUser
            if command == HELP:
                self._terminal.show(HELP_TEXT.replace("\n", "\r\n").encode())
            else:
                self._suspend()

    def handle(self, event: AttemptEvent) -> None:
        super().handle(event)
        if isinstance(event, meaning.Began):
            source = self._pump.sources.setdefault(INPUT, EmptySource())  # it was closed here
            if self._terminal.keyboard:
                self._keyboard = self._pump.sources[INPUT] = KeyboardSource(source)
            self._enter()

    def _enter(self) -> None:
        """The terminal is ours again, unless somebody else is using it."""
        self._waits = not self._terminal.enter()
        self._tell_size()

    def _tell_size(self, *, told: bool = False) -> None:
        if self._session.state == RUNNING and (size := self._terminal.new_size(told=told)) is not None:
            self._session.window(*size)

    def pass_signals_on(self) -> None:
        for number in self._signals.take():
            if number in (HANGUP, TERMINATE) or self._insistence.ends(
                number, started=self._attempt.state == meaning.RUNNING
            ):
                raise InterruptedByUser(number)
            if number == SUSPEND:
                self._suspend()
            elif number == CONTINUE:  # after SIGSTOP
                self._enter()
            elif self._session.state == RUNNING:
                self._session.signal(number)
        if self._signals.resized:
            self._signals.resized = False
            self._tell_size()

    def _suspend(self) -> None:
        self._pump.flush()
        entered = self._terminal.entered
        self._terminal.leave()
        suspend()
        if entered:
            self._enter()
