"""One open file at two descriptors of the client: its input arrives whole, and what the program writes leaves whole.

Regression: standard input that was a terminal or a socket and open above 2 as well (`exec 3>&1`, `socat - EXEC:...`)
was read by two streams.  The program got a part of its input and the job ended with status 0.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import socket
import subprocess
import sys
import threading
import tty
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.service import Shell

NUMBERS = (0, 1, 2, 3, 9)
PAIRS = list(itertools.combinations(NUMBERS, 2))
READ = (0, 3, 9)  # the numbers that a program reads
WRITTEN = (1, 2, 3, 9)
AMOUNT = 400_000
TIMEOUT = 30.0
TWO_WAY = ("tty", "socketpair", "tcp")
FARTHEST = 9
HIGH = 100  # from here on are the numbers of the object in the process that becomes the client


class Object:
    """One end for the client (`open` gives a descriptor for each of its numbers), and the far end for the test."""

    def __init__(self, kind: str, path: Path, reads: bool) -> None:
        self.ours = -1  # what the test reads and writes
        self._stack = ExitStack()
        self._reopened = 0  # flags
        if kind == "tty":
            self.ours, theirs = os.openpty()
            tty.setraw(theirs)
        elif kind == "socketpair":
            one, other = socket.socketpair()
            self.ours, theirs = one.detach(), other.detach()
        elif kind == "tcp":
            with socket.create_server(("127.0.0.1", 0)) as listener:
                other = socket.create_connection(listener.getsockname())
                self.ours, theirs = listener.accept()[0].detach(), other.detach()
        elif kind == "pipe":
            reading, writing = os.pipe()
            self.ours, theirs = (writing, reading) if reads else (reading, writing)
        elif kind == "fifo":
            os.mkfifo(path)
            keeper = os.open(path, os.O_RDWR)
            self._stack.callback(os.close, keeper)
            theirs = os.open(path, os.O_RDONLY | os.O_NONBLOCK if reads else os.O_WRONLY)
            os.set_blocking(theirs, True)
            self.ours = os.open(path, os.O_WRONLY if reads else os.O_RDONLY)
            self._reopened = os.O_RDWR if reads else os.O_WRONLY
        else:
            path.write_bytes(b"x" * AMOUNT if reads else b"")
            theirs = os.open(path, os.O_RDONLY if reads else os.O_RDWR)
            self.ours = -1 if reads else os.open(path, os.O_RDONLY)
        self.theirs = theirs
        self._path = path
        if self.ours >= 0:
            self._stack.callback(os.close, self.ours)

    def second(self) -> int:
        """A duplicate; for a FIFO one more open file of it, which is as good."""
        return os.open(self._path, self._reopened) if self._reopened else os.dup(self.theirs)

    def close(self) -> None:
        self._stack.close()


def run(shell: Shell, script: str, thing: Object, pair: tuple[int, int]) -> subprocess.Popen[bytes]:
    """A client whose descriptors of `pair` are the object; the other standard ones are /dev/null or pipes to us."""
    argv, environment = shell.client(script)
    both = (thing.theirs, thing.second())
    first, second = (fcntl.fcntl(fd, fcntl.F_DUPFD, HIGH) for fd in both)
    for fd in both:
        os.close(fd)
    outer = (
        "import os, sys\n"
        f"os.dup2({first}, {pair[0]}); os.dup2({second}, {pair[1]}); os.close({first}); os.close({second})\n"
        "os.execv(sys.argv[1], sys.argv[1:])"
    )
    process = subprocess.Popen(
        [sys.executable, "-S", "-c", outer, *argv],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        pass_fds=[first, second],
    )
    os.close(first)
    os.close(second)
    return process


def in_background(what: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=what, daemon=True)
    thread.start()
    return thread


def write_all(fd: int) -> None:
    left = AMOUNT
    while left:
        left -= os.write(fd, b"x" * min(left, 4096))


def read_all(fd: int, amount: int) -> int:
    """How much comes, up to `amount`."""
    count = 0
    while count < amount:
        try:
            data = os.read(fd, 65536)
        except OSError:
            break
        if not data:
            break
        count += len(data)
    return count


def readable_cases() -> list[tuple[str, tuple[int, int]]]:
    return [
        (kind, pair)
        for kind in (*TWO_WAY, "pipe", "fifo", "file")
        for pair in PAIRS
        if set(pair) <= set(READ) or (kind in TWO_WAY and set(pair) & set(READ))
    ]


def writable_cases() -> list[tuple[str, tuple[int, int]]]:
    return [
        (kind, pair)
        for kind in (*TWO_WAY, "pipe", "fifo", "file")
        for pair in PAIRS
        if set(pair) <= set(WRITTEN) or (kind in TWO_WAY and set(pair) & set(WRITTEN))
    ]


@pytest.mark.parametrize(("kind", "pair"), readable_cases())
def test_input_that_is_open_twice_arrives_whole(shell: Shell, tmp_path: Path, kind: str, pair: tuple[int, int]) -> None:
    thing = Object(kind, tmp_path / "object", reads=True)
    number = min(set(pair) & set(READ))
    # The count comes by standard output, or by the object itself where that is standard output.
    process = run(shell, f"head -c {AMOUNT} <&{number} | wc -c", thing, pair)
    feeding = in_background(lambda: write_all(thing.ours)) if kind != "file" else None
    assert process.stdout is not None
    if 1 in pair:
        assert int(os.read(thing.ours, 100)) == AMOUNT
    else:
        assert int(process.stdout.read()) == AMOUNT
    if feeding is not None:
        feeding.join(TIMEOUT)
        assert not feeding.is_alive()
    thing.close()
    process.kill()  # the program has ended; where a terminal stays open, the client may wait for its input
    process.communicate()


@pytest.mark.parametrize(("kind", "pair"), writable_cases())
def test_output_that_is_open_twice_leaves_whole(shell: Shell, tmp_path: Path, kind: str, pair: tuple[int, int]) -> None:
    thing = Object(kind, tmp_path / "object", reads=False)
    numbers = sorted(set(pair) & set(WRITTEN))
    script = "; ".join(f"head -c {AMOUNT} /dev/zero >&{number}" for number in numbers)
    process = run(shell, script, thing, pair)
    if kind == "file":
        assert process.wait(TIMEOUT) == 0
    assert read_all(thing.ours, AMOUNT * len(numbers)) == AMOUNT * len(numbers)
    assert process.wait(TIMEOUT) == 0
    assert process.stdout is not None
    process.stdout.close()
    thing.close()


@pytest.mark.parametrize("number", [3, 9])
def test_the_terminal_has_one_reader_whatever_its_name(shell: Shell, number: int) -> None:
    """/dev/tty is the terminal that standard input is, under another name and with another inode."""
    argv, environment = shell.client(f"head -c {AMOUNT} | wc -c")
    main, theirs = os.openpty()
    tty.setraw(theirs)
    outer = f'exec {number}<>/dev/tty; exec "$@"'
    process = subprocess.Popen(
        ["setsid", "--ctty", "--wait", "bash", "-c", outer, "bash", *argv],
        env=environment,
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    os.close(theirs)
    in_background(lambda: write_all(main))
    assert process.stdout is not None
    assert int(process.stdout.read()) == AMOUNT
    assert process.wait(TIMEOUT) == 0
    os.close(main)
