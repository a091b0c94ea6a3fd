"""The line of `--progress`, on a pseudo-terminal with a clock of ours."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from cexec.client.attempt.progress import Progress
from cexec.system.io.fds import EmptySource, FileSource, Source

END = b"\0"
BEGIN, DRAWN, ERASE = b"\r", b"\x1b[J\r", b"\r\x1b[J"
CAPABLE = {"TERM": "xterm"}


class Terminal:
    """A pseudo-terminal.  `fd` is for writing; `text` takes the text that was written."""

    def __init__(self) -> None:
        self.ours, self.fd = pty.openpty()

    def text(self) -> bytes:
        """Returns the text.  An end mark is written behind it, because the kernel passes bytes on later."""
        os.write(self.fd, END)
        data = b""
        while not data.endswith(END):
            data += os.read(self.ours, 10_000)
        return data.removesuffix(END)

    def width(self, columns: int) -> None:
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    made = Terminal()
    yield made
    for fd in (made.ours, made.fd):
        os.close(fd)


def test_what_it_says(terminal: Terminal) -> None:
    progress = Progress("linux-7", 100.0, fd=terminal.fd, environ=CAPABLE)
    progress.update(5_000_000, 12_345, 101.0)
    assert terminal.text() == BEGIN + b"linux-7  up 4.8 MiB 4.8 MiB/s  down 12.1 KiB 12.1 KiB/s  1.00 s" + DRAWN
    progress.update(5_000_000, 12_345, 3800.0)
    assert terminal.text().endswith(b"  1 h 01 min" + DRAWN)
    progress.clear()
    assert terminal.text() == ERASE


def test_at_most_five_times_a_second(terminal: Terminal) -> None:
    progress = Progress("w", 0.0, fd=terminal.fd, environ=CAPABLE)
    for step in range(1000):
        progress.update(step, 0, step / 1000)
    assert terminal.text().count(DRAWN) == 4


def test_a_short_job_has_none(terminal: Terminal) -> None:
    progress = Progress("w", 0.0, fd=terminal.fd, environ=CAPABLE)
    progress.update(1, 1, 0.1)
    progress.clear()
    assert terminal.text() == b""


def test_it_is_erased_once(terminal: Terminal) -> None:
    progress = Progress("w", 0.0, fd=terminal.fd, environ=CAPABLE)
    progress.update(1, 1, 1.0)
    progress.clear()
    terminal.text()
    progress.clear()
    assert terminal.text() == b""
    progress.update(1, 1, 2.0)
    assert terminal.text()


def test_the_rate_is_that_of_the_last_seconds(terminal: Terminal) -> None:
    progress = Progress("w", 0.0, fd=terminal.fd, environ=CAPABLE)
    for second in range(1, 11):
        progress.update(1_000_000 if second < 5 else 1_000_000 + (second - 4) * 1000, 0, float(second))
    assert terminal.text().split(DRAWN)[-2].startswith(BEGIN + b"w  up 982 KiB 1000 B/s")


def test_it_fits_the_terminal(terminal: Terminal) -> None:
    terminal.width(30)
    progress = Progress("a-worker-with-a-rather-long-name", 0.0, fd=terminal.fd, environ=CAPABLE)
    progress.update(1, 1, 1.0)
    assert terminal.text() == BEGIN + b"up 1 B  down 1 B  1.00 s" + DRAWN


@pytest.mark.parametrize(
    ("columns", "line"),
    [
        (100, "w  up 25 MiB of 100 MiB 25% 25 MiB/s 3.00 s left  down 0 B 0 B/s  1.00 s"),
        (60, "up 25 MiB of 100 MiB 25% 25 MiB/s 3.00 s left  down 0 B"),
        (20, "up 25% 3.00 s left"),
        (10, "up 25%"),
        (5, "25%"),
        (2, ""),
    ],
)
def test_an_upload_whose_size_is_known_shows_per_cent_and_time_left(
    terminal: Terminal, tmp_path: Path, columns: int, line: str
) -> None:
    (tmp_path / "input").write_bytes(b"")
    os.truncate(tmp_path / "input", 100 << 20)
    with open(tmp_path / "input", "rb") as file:
        terminal.width(columns)
        progress = Progress("w", 0.0, fd=terminal.fd, environ=CAPABLE)
        progress.expect([FileSource(file.fileno()), EmptySource()])
        progress.update(25 << 20, 0, 1.0)
        assert terminal.text() == BEGIN + line.encode() + DRAWN
        progress.update(100 << 20, 0, 2.0)
        assert b" left" not in terminal.text()
        progress.close()


def test_a_pipe_has_no_size(terminal: Terminal, tmp_path: Path) -> None:
    (tmp_path / "input").write_bytes(b"x" * 1000)
    reading, writing = os.pipe()
    with open(tmp_path / "input", "rb") as file, open(os.devnull, "rb") as null:
        progress = Progress("w", 0.0, fd=terminal.fd, environ=CAPABLE)
        progress.expect([FileSource(file.fileno()), Source(null.fileno(), shared=True)])
        progress.update(500, 0, 1.0)
        assert b"500 B of 1000 B 50% " in terminal.text()
        progress.expect([Source(reading, shared=True)])
        progress.update(600, 0, 2.0)
        assert b"%" not in terminal.text()
        progress.close()
    os.close(reading)
    os.close(writing)


def test_a_hostile_name_does_nothing_to_the_terminal(terminal: Terminal) -> None:
    progress = Progress("\x1b[2Jw\r\n", 0.0, fd=terminal.fd, environ=CAPABLE)
    progress.update(1, 1, 1.0)
    assert terminal.text().startswith(BEGIN + b"\\x1b[2Jw\\r\\n  up")


def test_without_a_terminal_nothing_is_written() -> None:
    reading, writing = os.pipe()
    progress = Progress("w", 0.0, fd=writing, environ=CAPABLE)
    progress.update(1, 1, 10.0)
    progress.clear()
    assert progress.next_timeout() is None
    os.close(writing)
    assert os.read(reading, 10) == b""
    os.close(reading)


def test_a_terminal_that_goes_is_no_failure() -> None:
    ours, fd = pty.openpty()
    progress = Progress("w", 0.0, fd=fd, environ=CAPABLE)
    os.close(ours)
    progress.update(1, 1, 1.0)
    assert progress.next_timeout() is None
    progress.clear()
    os.close(fd)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, b"0 B"),
        (999, b"999 B"),
        (1536, b"1.5 KiB"),
        (200 << 20, b"200 MiB"),
        (5 << 40, b"5 TiB"),
    ],
)
def test_bytes_are_shown_as_everywhere_else(terminal: Terminal, count: int, text: bytes) -> None:
    progress = Progress("w", 0.0, fd=terminal.fd, environ=CAPABLE)
    progress.update(0, count, 1.0)
    assert b"down " + text + b" " in terminal.text()
