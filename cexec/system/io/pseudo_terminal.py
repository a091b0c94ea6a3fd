"""Terminals that this process makes for a program, and the system calls on a terminal that exists already.

Contract: `PseudoTerminal` makes a pair; `ours` is the end that this process reads and writes without waiting,
`theirs` the program's.  `become_terminal` is called in a new process that leads its session.  `read_settings` and
`write_settings` translate between a terminal and the settings of `protocol.connection.terminal_request`.  Raises
`OSError`, and `termios.error` where a descriptor is no terminal.  docs/protocol.md section 4.5.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import termios
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

_INPUT_MODES, _LOCAL_MODES, _CHARACTERS = 0, 3, 6  # places in the list of tcgetattr
_UTF8 = getattr(termios, "IUTF8", 0x4000)  # Linux and macOS; Python knows the name from 3.13 on
_PLACES = {
    name: getattr(termios, constant)
    for name, constant in {
        "eof": "VEOF", "erase": "VERASE", "intr": "VINTR", "kill": "VKILL", "lnext": "VLNEXT", "quit": "VQUIT",
        "reprint": "VREPRINT", "start": "VSTART", "stop": "VSTOP", "susp": "VSUSP", "werase": "VWERASE",
    }.items()
    if hasattr(termios, constant)
}  # fmt: skip
_MODES = {  # place and flag
    "echo": (_LOCAL_MODES, termios.ECHO), "ixon": (_INPUT_MODES, termios.IXON), "utf8": (_INPUT_MODES, _UTF8),
}  # fmt: skip
_JOB_CONTROL = (signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)


class PseudoTerminal:
    """A new terminal.  Our own descriptor of the program's end keeps it alive while no process has it open."""

    __slots__ = ("ours", "theirs")

    def __init__(self) -> None:
        self.ours, self.theirs = os.openpty()
        os.set_blocking(self.ours, False)

    @property
    def name(self) -> str:
        """The path of the program's end."""
        return os.ttyname(self.theirs)

    def resize(self, rows: int, columns: int) -> None:
        """Sets the size of the window; if that changes, the foreground group gets SIGWINCH."""
        termios.tcsetwinsize(self.ours, (rows, columns))

    def end_of_file(self) -> bytes:
        """Returns the key that ends the input now, or nothing if there is none."""
        key: Any = termios.tcgetattr(self.theirs)[_CHARACTERS][termios.VEOF]
        key = bytes([key]) if isinstance(key, int) else bytes(key)
        return b"" if key[0] == os.fpathconf(self.theirs, "PC_VDISABLE") else key

    def reads_lines(self) -> bool:
        """Returns True if the terminal edits lines, and False if the program reads single keys."""
        modes: Any = termios.tcgetattr(self.theirs)
        return bool(modes[_LOCAL_MODES] & termios.ICANON)

    def unread(self) -> bool:
        """Returns True if a program that reads now need not wait: there are keys, or the end of the input."""
        poll = select.poll()
        poll.register(self.theirs, select.POLLIN)
        return bool(poll.poll(0))

    def foreground(self) -> int:
        """Returns the process group that the keys are for; 0 if the system does not say."""
        try:
            return os.tcgetpgrp(self.ours)
        except OSError:
            return 0

    def close(self) -> None:
        """Hangs up: the session's leader and the foreground group get SIGHUP."""
        for fd in (self.ours, self.theirs):
            if fd >= 0:
                os.close(fd)
        self.ours = self.theirs = -1


def become_terminal(fd: int) -> None:
    """Makes a terminal the controlling one of this process, whose keys send signals from now on."""
    fcntl.ioctl(fd, termios.TIOCSCTTY, 0)
    for number in _JOB_CONTROL:  # our own parent may ignore them
        signal.signal(number, signal.SIG_DFL)


def read_settings(fd: int) -> dict[str, int]:
    """Returns the settings of a terminal."""
    modes: Any = termios.tcgetattr(fd)
    nothing = os.fpathconf(fd, "PC_VDISABLE")
    keys = {name: modes[_CHARACTERS][place][0] for name, place in _PLACES.items()}
    found = {name: 0 if key == nothing else key for name, key in keys.items()}
    return found | {name: int(bool(modes[place] & flag)) for name, (place, flag) in _MODES.items()}


def write_settings(fd: int, settings: Mapping[str, int]) -> None:
    """Sets those that are known here."""
    modes: Any = termios.tcgetattr(fd)
    nothing = os.fpathconf(fd, "PC_VDISABLE")
    for name, value in settings.items():
        if name in _PLACES:
            modes[_CHARACTERS][_PLACES[name]] = bytes([value or nothing])
        elif name in _MODES:
            place, flag = _MODES[name]
            modes[place] = modes[place] & ~flag | (flag if value else 0)
    termios.tcsetattr(fd, termios.TCSANOW, modes)


def plain_output(modes: list[Any]) -> list[Any]:
    """Returns these modes of tcgetattr, changed so that every byte is shown as it is."""
    return [modes[0], modes[1] & ~termios.OPOST, *modes[2:]]


def raw_modes(modes: list[Any]) -> list[Any]:
    """Returns these modes of tcgetattr, changed so that every key is a byte and every byte is shown as it is."""
    raw = [*modes[:_CHARACTERS], [*modes[_CHARACTERS]]]
    raw[0] = modes[0] & ~(
        termios.BRKINT | termios.ICRNL | termios.IGNCR | termios.INLCR | termios.INPCK | termios.ISTRIP | termios.IXANY
        | termios.IXOFF | termios.IXON | termios.PARMRK
    ) | termios.IGNPAR  # fmt: skip
    raw[1] = modes[1] & ~termios.OPOST
    raw[2] = modes[2] & ~(termios.CSIZE | termios.PARENB) | termios.CS8
    raw[3] = modes[3] & ~(
        termios.ECHO | termios.ECHONL | termios.ICANON | termios.IEXTEN | termios.ISIG
    )  # fmt: skip
    raw[_CHARACTERS][termios.VMIN], raw[_CHARACTERS][termios.VTIME] = 1, 0
    return raw
