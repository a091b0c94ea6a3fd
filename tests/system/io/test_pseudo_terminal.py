"""Terminals that are made for programs, and the settings of those that exist."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator

import pytest

from cexec.system.io.pseudo_terminal import (
    PseudoTerminal,
    become_terminal,
    plain_output,
    raw_modes,
    read_settings,
    write_settings,
)

# Leads a session on the terminal that is descriptor 0, and waits for SIGHUP.
LEADER = """
import signal, sys
signal.signal(signal.SIGHUP, lambda *_: sys.exit(9))
print("ready", flush=True)
signal.pause()
"""


@pytest.fixture
def terminal() -> Iterator[PseudoTerminal]:
    made = PseudoTerminal()
    yield made
    made.close()


def test_settings_are_written_as_they_were_read(terminal: PseudoTerminal) -> None:
    found = read_settings(terminal.theirs)
    assert found["intr"] == 3 and found["eof"] == 4 and found["ixon"] == 1
    changed = {**found, "intr": 24, "erase": 8, "ixon": 0, "utf8": 1, "susp": 0}
    write_settings(terminal.theirs, changed)
    assert read_settings(terminal.theirs) == changed


def test_a_setting_that_is_not_known_changes_nothing(terminal: PseudoTerminal) -> None:
    before = termios.tcgetattr(terminal.theirs)
    write_settings(terminal.theirs, {"beep": 1, "a1": 255})
    assert termios.tcgetattr(terminal.theirs) == before


def test_the_key_that_ends_the_input(terminal: PseudoTerminal) -> None:
    assert terminal.end_of_file() == b"\x04"
    write_settings(terminal.theirs, {"eof": 26})
    assert terminal.end_of_file() == b"\x1a"
    write_settings(terminal.theirs, {"eof": 0})
    assert terminal.end_of_file() == b""


def test_in_raw_mode_each_key_is_a_byte_and_each_byte_is_shown(terminal: PseudoTerminal) -> None:
    assert terminal.reads_lines()
    termios.tcsetattr(terminal.theirs, termios.TCSANOW, raw_modes(termios.tcgetattr(terminal.theirs)))
    assert not terminal.reads_lines()
    every = bytes(range(256))
    os.write(terminal.ours, every)
    assert os.read(terminal.theirs, 1000) == every
    os.write(terminal.theirs, every)
    assert os.read(terminal.ours, 1000) == every


def test_plain_output_changes_the_output_alone(terminal: PseudoTerminal) -> None:
    before = termios.tcgetattr(terminal.theirs)
    changed = plain_output(before)
    termios.tcsetattr(terminal.theirs, termios.TCSANOW, changed)
    os.write(terminal.theirs, b"a\nb")
    assert os.read(terminal.ours, 100) == b"a\nb"
    assert terminal.reads_lines() and changed[2:] == before[2:] and changed[0] == before[0]


def test_raw_modes_leave_the_modes_that_they_are_given(terminal: PseudoTerminal) -> None:
    before = termios.tcgetattr(terminal.theirs)
    raw_modes(before)
    assert termios.tcgetattr(terminal.theirs) == before


def test_sizes(terminal: PseudoTerminal) -> None:
    for size in ((0, 0), (24, 80), (4096, 4096)):
        terminal.resize(*size)
        assert termios.tcgetwinsize(terminal.theirs) == size


def test_the_leader_of_its_session_hears_the_end_of_a_terminal(terminal: PseudoTerminal) -> None:
    assert terminal.foreground() == 0
    leader = subprocess.Popen(
        [sys.executable, "-c", LEADER], stdin=terminal.theirs, stdout=subprocess.PIPE, start_new_session=True,
        preexec_fn=lambda: become_terminal(0),
    )  # fmt: skip
    with leader:
        assert leader.stdout is not None and leader.stdout.readline() == b"ready\n"
        assert terminal.foreground() == leader.pid
        terminal.close()
        assert leader.wait(30) == 9


def test_job_control_works_where_our_parent_ignores_it() -> None:
    before = signal.signal(signal.SIGTSTP, signal.SIG_IGN)
    made = PseudoTerminal()
    try:
        told = subprocess.run(
            ["sh", "-c", "grep SigIgn /proc/self/status"], stdin=made.theirs, start_new_session=True,
            preexec_fn=lambda: become_terminal(0), capture_output=True, text=True,
        )  # fmt: skip
    finally:
        signal.signal(signal.SIGTSTP, before)
        made.close()
    assert not int(told.stdout.split()[1], 16) >> (signal.SIGTSTP - 1) & 1


def test_closing_again_is_no_harm(terminal: PseudoTerminal) -> None:
    terminal.close()
    terminal.close()
    assert terminal.ours == terminal.theirs == -1
