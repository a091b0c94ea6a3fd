"""Signals that reach cexec while its program runs elsewhere: they are passed on, as if the program ran here.

Contract: between `start()` and `stop()` the signals of FORWARDED are caught, unless they were ignored before (nohup).
Then `fileno()` becomes readable and `take()` returns their protocol numbers.  Before `start()` and after `stop()` they
have their usual effect on us.  In between SIGTTIN is ignored: a terminal may be another job's (`system.io.foreground`).
`Insistence` says when a signal that ends programs ends us, too.  docs/protocol.md section 4.2 (SIGNAL).
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


IMPATIENT = 3  # (ours) this many Ctrl-C end us even if the program, or the network, does not react
INSISTENT = 2  # (ours) the same for the other signals of ENDING, which nobody sends by mistake


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
        self.taken: set[int] = set()  # the protocol numbers of all that have come
        self.resized = False  # True after a change of the terminal's window, see `watch_size`

    def fileno(self) -> int:
        return self._wakeup.fileno()

    def start(self) -> None:
        from cexec.system.io.wakeup import do_nothing

        self._wakeup.start()
        self._before[_signal.SIGTTIN] = _signal.signal(_signal.SIGTTIN, _signal.SIG_IGN) or _signal.SIG_DFL
        for number in FORWARDED:
            if _signal.getsignal(number) != _signal.SIG_IGN:
                self._before[number] = _signal.signal(number, do_nothing) or _signal.SIG_DFL

    def watch_size(self) -> None:
        """Sets `resized` from now on, until `stop`."""
        from cexec.system.io.wakeup import do_nothing

        self._before[_signal.SIGWINCH] = _signal.signal(_signal.SIGWINCH, do_nothing) or _signal.SIG_DFL

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
        numbers = self._wakeup.take()
        taken = [FORWARDED[number] for number in numbers if number in FORWARDED]
        self.resized = self.resized or _signal.SIGWINCH in numbers
        self.taken.update(taken)
        return taken


class Insistence:
    """Counts the signals that end programs: the first is passed on to a program that runs, and the last is for us."""

    __slots__ = ("_interrupts", "_others")

    def __init__(self) -> None:
        self._interrupts = 0
        self._others = 0

    def ends(self, number: int, *, started: bool) -> bool:
        """Returns True if this signal of the protocol ends us.  `started`: a program runs that it can be meant for."""
        if number not in ENDING:
            return False
        if number == INTERRUPT:
            self._interrupts += 1
        else:
            self._others += 1
        return not started or self._interrupts >= IMPATIENT or self._others >= INSISTENT


def end_by_default(number: int) -> None:
    """Lets a signal end us without a traceback, unless it is ignored."""
    if _signal.getsignal(number) != _signal.SIG_IGN:
        _signal.signal(number, _signal.SIG_DFL)


def end_by_exception(number: int) -> None:
    """Lets a signal raise `EndedBySignal`, unless it is ignored."""
    if _signal.getsignal(number) != _signal.SIG_IGN:
        _signal.signal(number, _raise)


def suspend() -> None:
    """Stops this process until it is continued, or not at all where nobody could continue it.

    The kernel spares a process group without a shell that looks after it (`ssh -t`, `docker exec -it`, `script -c`)
    from SIGTSTP's default action, but not from SIGSTOP.
    """
    before = _signal.signal(_signal.SIGTSTP, _signal.SIG_DFL) or _signal.SIG_DFL
    os.kill(os.getpid(), _signal.SIGTSTP)
    _signal.signal(_signal.SIGTSTP, before)


def die_of(number: int) -> None:
    """Ends this process by a signal, so that a shell above ends its script, too."""
    _signal.signal(number, _signal.SIG_DFL)
    os.kill(os.getpid(), number)


def _raise(number: int, stack: object) -> None:
    raise EndedBySignal(number)
