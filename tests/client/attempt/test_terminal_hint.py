"""Messages by which programs say that they miss a terminal."""

from __future__ import annotations

import errno
import os

import pytest

from cexec.client.attempt.terminal_hint import misses_terminal


@pytest.mark.parametrize(
    "said",
    [
        "top: failed tty get",
        "Vim: Warning: Output is not to a terminal",
        "Vim: Warning: Input is not from a terminal",
        "Error opening terminal: unknown.",
        f"stty: 'standard input': {os.strerror(errno.ENOTTY)}",
        "open terminal failed: not a terminal",
        "Must be connected to a terminal.",
        "the input device is not a TTY",
        f"sh: 1: cannot open /dev/tty: {os.strerror(errno.ENXIO)}",
        "sudo: a terminal is required to read the password; either use the -S option",
        "bash: no job control in this shell",
        "TERM environment variable not set.",
    ],
)
def test_a_complaint_is_known(said: str) -> None:
    assert misses_terminal(f"before\n{said}\nafter".encode())


@pytest.mark.parametrize("said", ["", "cat: x: No such file or directory", "terminal velocity", "stty", "pretty"])
def test_other_messages_mean_nothing(said: str) -> None:
    assert not misses_terminal(said.encode())
