"""Tells from its messages if a program misses a terminal; nothing else of that can be seen from outside.

Contract: `misses_terminal(said)` takes bytes of standard error.  The words are those of the C library (ENOTTY, and
ENXIO of /dev/tty), of curses, and of well-known programs.  cexec(1), TERMINALS.
"""

from __future__ import annotations

WORDS = (
    b"/dev/tty",
    b"cannot set terminal process group",  # bash -i
    b"connected to a terminal",  # screen
    b"error opening terminal",  # curses
    b"failed tty get",  # top
    b"inappropriate ioctl for device",  # ENOTTY
    b"no job control in this shell",
    b"no tty present",  # sudo
    b"not a terminal",  # tmux, nano
    b"not a tty",
    b"not from a terminal",  # vim
    b"not to a terminal",
    b"requires a terminal",
    b"term environment variable not set",
    b"terminal is required",  # sudo
)


def misses_terminal(said: bytes) -> bool:
    """Returns True if one of the words is there."""
    lower = said.lower()
    return any(word in lower for word in WORDS)
