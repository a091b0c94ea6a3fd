"""Signals that reach cexec while its program runs elsewhere: passed on, as if the program ran here.

Contract: between `start()` and `stop()` the signals in FORWARDED are caught, unless they were ignored already (nohup);
`fileno()` becomes readable and `take()` returns their protocol numbers.  Before and after, they do to us what they do
to any program.  docs/protocol.md section 4.2 (SIGNAL).
"""

from __future__ import annotations

import _signal  # `signal` costs 4 ms at start, most of them for enum
import os

from cexec.protocol.connection.options import HANGUP, INTERRUPT, QUIT, SIGNALS, TERMINATE
from cexec.system.io.wakeup import Wakeup, do_nothing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ENDING = (HANGUP, INTERRUPT, QUIT, TERMINATE)  # the signals that end a program which does not catch them
FORWARDED: dict[int, int] = {getattr(_signal, name): number for number, name in SIGNALS.items()}  # ours: the protocol's


class EndedBySignal(BaseException):
    """What was under way is over, and this process is to die of the signal once all has been said."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Signals:
    """Catches what is to be passed on."""

    def __init__(self) -> None:
        self._wakeup = Wakeup()
        self._before: dict[int, Any] = {}  # what was done with those that are caught now
        self.interrupted = False  # Ctrl-C has come

    def fileno(self) -> int:
        return self._wakeup.fileno()

    def start(self) -> None:
        self._wakeup.start()
        for number in FORWARDED:
            if _signal.getsignal(number) != _signal.SIG_IGN:
                self._before[number] = _signal.signal(number, do_nothing) or _signal.SIG_DFL

    def stop(self) -> None:
        for number, handler in self._before.items():
            _signal.signal(number, handler)
        self._before.clear()
        self._wakeup.stop()

    def resign(self) -> None:
        """The program has ended: signals, also those that came too late for it, now do to us what they did to it."""
        self.stop()
        for number in self.take():
            if number in ENDING:
                os.kill(os.getpid(), number)

    def take(self) -> list[int]:
        """The protocol numbers of what came, oldest first."""
        taken = [FORWARDED[number] for number in self._wakeup.take() if number in FORWARDED]
        self.interrupted = self.interrupted or INTERRUPT in taken
        return taken


def end_by_default(number: int) -> None:
    """This signal ends us as it ends any program, without a traceback."""
    if _signal.getsignal(number) != _signal.SIG_IGN:
        _signal.signal(number, _signal.SIG_DFL)


def end_by_exception(number: int) -> None:
    """This signal ends what is under way with `EndedBySignal`, unless it is ignored."""
    if _signal.getsignal(number) != _signal.SIG_IGN:
        _signal.signal(number, _raise)


def suspend() -> None:
    """Stops this process until it is continued."""
    os.kill(os.getpid(), _signal.SIGSTOP)


def die_of(number: int) -> None:
    """Ends by a signal, so that the shell above knows that the person wanted the whole script to end."""
    _signal.signal(number, _signal.SIG_DFL)
    os.kill(os.getpid(), number)


def _raise(number: int, stack: object) -> None:
    raise EndedBySignal(number)
