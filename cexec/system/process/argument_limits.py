"""What Linux lets a program be started with: for longer arguments and variables `execve` fails with E2BIG.

Contract: `too_long` says in words which string is longer than any program can be given, on this machine or on a worker;
empty if none is.  `too_much` does so for all of them together, by the limits of this process.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

LONGEST_STRING = 32 * 4096 - 1  # bytes (Linux, MAX_ARG_STRLEN) of an argument or of NAME=VALUE, with pages of 4 KiB
_LARGEST_TOTAL = 6 << 20  # bytes (Linux): three quarters of _STK_LIM, however large the stack may grow
_ROOM = 8192  # bytes (ours) for the program's name, its other arguments and what the kernel adds
_POINTER = 8  # bytes


def too_long(arguments: Iterable[bytes], variables: Mapping[str, bytes]) -> str:
    """`variables` by their whole names."""
    for number, argument in enumerate(arguments, 1):
        if len(argument) > LONGEST_STRING:
            return f"argument {number} is {len(argument)} bytes and can be {LONGEST_STRING}"
    for name, value in variables.items():
        if len(name) + 1 + len(value) > LONGEST_STRING:
            return f"variable {name} is {len(value)} bytes and can be {LONGEST_STRING - len(name) - 1}"
    return ""


def too_much(variables: Mapping[str, bytes]) -> str:
    """`variables` are those that a program of ours gets besides our own."""
    everything = [*os.environb.items(), *((name.encode(), value) for name, value in variables.items())]
    size = sum(len(name) + len(value) + len(b"=\0") + _POINTER for name, value in everything)
    most = min(_LARGEST_TOTAL, os.sysconf("SC_ARG_MAX")) - _ROOM
    return f"variables are {size} bytes together and can be {most}" if size > most else ""
