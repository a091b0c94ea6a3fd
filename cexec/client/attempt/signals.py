"""Signals that reach cexec while its program runs elsewhere: they are passed on, as if the program ran here.

Contract: between `start()` and `stop()` the signals of FORWARDED are caught, unless they were ignored before (nohup).
Then `fileno()` becomes readable and `take()` returns their protocol numbers.  Before `start()` and after `stop()` they
have their usual effect on us.  docs/protocol.md section 4.2 (SIGNAL).
"""

from __future__ import annotations

import _signal  # `signal` costs 4 ms at start, most of them for enum
import os

from cexec.protocol.connection.options import HANGUP, INTERRUPT, QUIT, SIGNALS, TERMINATE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ENDING = (HANGUP, INTERRUPT, QUIT, TERMINATE)  # the signals that end a program which does not catch them
FORWARDED: dict[int, int] = {getattr(_signal, name): number for number, name in SIGNALS.items()}  # ours: the protocol's


class EndedBySignal(BaseException):
    """A signal has ended the job.  The command dies of the same signal, after its last messages."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Signals:
    """Catches the signals that are passed on."""

    def __init__(self) -> None:
        from cexec.system.io.wakeup import Wakeup  # not with this module, which is loaded before the announcement

        self._wakeup = Wakeup()
        self._before: dict[int, Any] = {}  # the former handlers of the signals that are caught now
        self.interrupted = False  # True after Ctrl-C

    def fileno(self) -> int:
        return self._wakeup.fileno()

    def start(self) -> None:
        from cexec.system.io.wakeup import do_nothing

        self._wakeup.start()
        for number in FORWARDED:
            if _signal.getsignal(number) != _signal.SIG_IGN:
                self._before[number] = _signal.signal(number, do_nothing) or _signal.SIG_DFL

    def stop(self) -> None:
        for number, handler in self._before.items():
            _signal.signal(number, handler)
        self._before.clear()
        self._wakeup.stop()

    def close(self) -> None:
        """Stops, and can catch no more."""
        self.stop()
        self._wakeup.close()

    def resign(self) -> None:
        """Gives signals their usual effect on us, because the program has ended; a late ending signal ends us now."""
        self.stop()
        for number in self.take():
            if number in ENDING:
                os.kill(os.getpid(), number)

    def take(self) -> list[int]:
        """Returns the protocol numbers of the signals that came, oldest first."""
        taken = [FORWARDED[number] for number in self._wakeup.take() if number in FORWARDED]
        self.interrupted = self.interrupted or INTERRUPT in taken
        return taken


def end_by_default(number: int) -> None:
    """Lets a signal end us without a traceback, unless it is ignored."""
    if _signal.getsignal(number) != _signal.SIG_IGN:
        _signal.signal(number, _signal.SIG_DFL)


def end_by_exception(number: int) -> None:
    """Lets a signal raise `EndedBySignal`, unless it is ignored."""
    if _signal.getsignal(number) != _signal.SIG_IGN:
        _signal.signal(number, _raise)


def suspend() -> None:
    """Stops this process until it is continued."""
    os.kill(os.getpid(), _signal.SIGSTOP)


def die_of(number: int) -> None:
    """Ends this process by a signal, so that a shell above ends its script, too."""
    _signal.signal(number, _signal.SIG_DFL)
    os.kill(os.getpid(), number)


def _raise(number: int, stack: object) -> None:
    raise EndedBySignal(number)
