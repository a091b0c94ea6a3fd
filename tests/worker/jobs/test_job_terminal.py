"""The terminal of a job at its worker, with a pump that is none."""

from __future__ import annotations

import os
import select
import termios
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from cexec.protocol.connection.terminal_request import TerminalRequest
from cexec.system.io.pseudo_terminal import raw_modes
from cexec.worker.jobs.job_terminal import LARGEST_REST, MOST_ENDS, JobTerminal, TerminalInput, TerminalOutput
from tests.waiting import wait_until


class Setting:
    """A terminal, what stands for the pump, and the program's end."""

    def __init__(self) -> None:
        self.closed: list[int] = []
        self.pump = SimpleNamespace(sources={}, sinks={}, close_sink=self._close_sink)
        self.terminal = JobTerminal(cast(Any, self.pump), TerminalRequest(10, 20, "vt100", {"eof": 4}))
        self.program = self.terminal.end()
        self.output: TerminalOutput = self.pump.sources[1]
        self.input: TerminalInput = self.pump.sinks[0]

    def _close_sink(self, stream: int) -> None:
        self.closed.append(stream)

    def shown(self, size: int = 4096) -> bytes | None:
        view = memoryview(bytearray(size))
        count = self.output.read_into(view)
        return None if count is None else bytes(view[:count])

    def due(self) -> bool:
        """Lets the terminal look if that is due; returns True if it will look again soon."""
        self.terminal.advance()
        return (self.terminal.next_timeout() or 0.0) < time.monotonic() + 0.3

    def unread(self) -> bool:
        return bool(select.select([self.program], [], [], 0)[0])

    def typed(self) -> bool:
        """Lets the terminal type what it owes: some time after a read, a thread of the kernel has made room."""
        self.terminal.advance()
        return self.unread()

    def read_keys(self) -> None:
        """The program reads single keys from now on."""
        termios.tcsetattr(self.program, termios.TCSANOW, raw_modes(termios.tcgetattr(self.program)))

    def close(self) -> None:
        self.terminal.hang_up()
        os.close(self.program)


@pytest.fixture
def setting() -> Iterator[Setting]:
    made = Setting()
    yield made
    made.close()


def test_keys_go_in_and_output_comes_out(setting: Setting) -> None:
    assert setting.input.write(memoryview(b"key\n")) == 4
    assert os.read(setting.program, 100) == b"key\n"
    assert setting.shown() == b"key\r\n"  # the echo
    assert setting.shown() is None
    assert termios.tcgetwinsize(setting.program) == (10, 20) and setting.terminal.name == os.ttyname(setting.program)


def test_variables_of_another_terminal_are_taken_away(setting: Setting) -> None:
    inherited = {b"TERM": b"xterm", b"LINES": b"99", b"TMUX": b"x", b"PATH": b"/bin"}
    assert setting.terminal.environment(inherited) == {b"TERM": b"vt100", b"PATH": b"/bin"}


@pytest.mark.parametrize(("keys", "lines"), [(b"", [b""]), (b"one\n", [b"one\n", b""]), (b"half", [b"half", b""])])
def test_the_end_of_the_keys_ends_the_programs_input(setting: Setting, keys: bytes, lines: list[bytes]) -> None:
    if keys:
        setting.input.write(memoryview(keys))
    setting.input.close()
    assert [os.read(setting.program, 100) for _ in lines] == lines


def test_the_end_is_typed_again_for_whoever_reads_next_but_not_for_ever(setting: Setting) -> None:
    setting.input.close()
    for number in range(1 + MOST_ENDS):
        if number == 3:
            setting.read_keys()
        wait_until(lambda: setting.due() and setting.unread())
        assert os.read(setting.program, 100) == (b"" if number < 3 else b"\x04")
        os.write(setting.program, b"x")
        setting.shown()
    assert setting.terminal.next_timeout() is None
    setting.due()
    assert not setting.unread()


def test_an_end_that_nobody_reads_is_not_typed_again(setting: Setting) -> None:
    setting.input.close()
    wait_until(lambda: not setting.due())
    assert os.read(setting.program, 100) == b""
    assert not setting.unread()


def test_keys_for_which_there_is_no_room_wait(setting: Setting) -> None:
    setting.read_keys()
    total = 0
    data = memoryview(bytes(65536))
    while size := setting.input.write(data):
        total += size
    assert total > 4000
    setting.input.close()
    assert setting.terminal.next_timeout() is not None
    found = b""
    while len(found) <= total:
        wait_until(setting.typed)
        found += os.read(setting.program, 65536)  # the end may come with the last keys
    assert found == bytes(total) + b"\x04"


def test_what_the_program_wrote_before_its_end_comes_and_then_the_end(setting: Setting) -> None:
    os.write(setting.program, b"last words")
    setting.terminal.program_ended()
    setting.terminal.program_ended()
    assert setting.output.fd == -1  # it is read without being waited for
    assert (setting.shown(), setting.shown()) == (b"last words", b"")


def test_what_others_write_after_the_programs_end_is_bounded(setting: Setting) -> None:
    setting.read_keys()
    setting.terminal.program_ended()
    taken = 0
    while True:
        os.write(setting.program, b"y" * 1000)
        data = setting.shown()
        assert data is not None
        if not data:
            break
        taken += len(data)
    assert taken == LARGEST_REST


def test_a_hang_up_closes_everything_once(setting: Setting) -> None:
    setting.terminal.hang_up()
    setting.terminal.hang_up()
    assert setting.closed == [0] and setting.pump.sources == {}
    setting.terminal.resize(1, 1)
    setting.terminal.advance()
    assert setting.terminal.foreground() == 0
    with pytest.raises(OSError):
        os.write(setting.program, b"x")


def test_when_nobody_looks_any_more_the_terminal_hangs_up(setting: Setting) -> None:
    setting.pump.sources.pop(1).abandon()
    assert setting.closed == [0]
