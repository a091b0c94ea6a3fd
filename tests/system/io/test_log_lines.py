"""Lines for a reader who reads nothing: whoever writes them goes on, and counts what is lost."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import socket
import termios
from collections.abc import Callable
from pathlib import Path

import pytest

from cexec.system.io.log_lines import MAXIMUM_WAITING, LogLines, offer
from cexec.system.storage.eventlog import EventLog
from tests.waiting import PATIENCE

pytestmark = pytest.mark.usefixtures("process_end")  # a log is open as long as its process lives

MANY = 40_000  # lines of LINE: more than a buffer, a pipe and a socket hold together
LINE = "line {:08d}\n"


class Unread:
    """A descriptor whose other end reads nothing, until `read` does."""

    def __init__(self, kind: str) -> None:
        if kind == "socket":
            self._ends = socket.socketpair()
            self.reading, self.writing = (end.fileno() for end in self._ends)
        elif kind == "pipe":
            self.reading, self.writing = os.pipe()
        else:
            self.reading, self.writing = pty.openpty()
            termios.tcflow(self.writing, termios.TCOOFF)  # what Ctrl-S does
        self.kind = kind

    def read(self, buffer: LogLines) -> str:
        """Everything that waits; the other end writes on as there is room."""
        if self.kind == "terminal":
            termios.tcflow(self.writing, termios.TCOON)
        found = bytearray()
        os.set_blocking(self.reading, False)
        quiet = 2.0 if self.kind == "terminal" else 0.2  # seconds; a thread of the kernel carries a terminal's bytes
        while buffer.masks() or select.select([self.reading], [], [], quiet)[0]:
            buffer.flush()
            try:
                found += os.read(self.reading, 1 << 20)
            except BlockingIOError:
                pass
        return found.decode().replace("\r\n", "\n")


@pytest.mark.parametrize("kind", ["pipe", "terminal", "socket"])
def test_whoever_writes_never_waits_and_what_is_lost_is_counted(kind: str) -> None:
    end = Unread(kind)
    flags = fcntl.fcntl(end.writing, fcntl.F_GETFL)
    buffer = LogLines(end.writing)
    for number in range(MANY):
        buffer.write(LINE.format(number))
    assert buffer.masks()
    assert fcntl.fcntl(end.writing, fcntl.F_GETFL) == flags  # it is shared with strangers
    first = end.read(buffer)
    buffer.write("afterwards\n")
    lines = (first + end.read(buffer)).splitlines()
    taken = len(lines) - 2
    assert lines == [*(LINE.format(n).strip() for n in range(taken)), f"{MANY - taken} lines lost", "afterwards"]
    assert MAXIMUM_WAITING // len(LINE.format(0)) <= taken < MANY


@pytest.mark.parametrize("as_json", [False, True])
def test_a_log_tells_of_lost_lines_in_its_own_form(as_json: bool) -> None:
    end = Unread("pipe")
    buffer = LogLines(end.writing)
    log = EventLog(buffer, as_json=as_json)
    for number in range(MANY):
        log.event("job", number=number)
    end.read(buffer)
    log.event("afterwards")
    lost, last = end.read(buffer).splitlines()
    if as_json:
        assert json.loads(lost)["event"] == "lost lines" and json.loads(lost)["lines"] > 0
    else:
        assert re.fullmatch(r"\S+ \d+ lines lost", lost)
    assert "afterwards" in last


def test_lines_for_which_the_disk_has_no_room_are_counted(tmp_path: Path) -> None:
    fd = os.open("/dev/full", os.O_WRONLY)
    buffer = LogLines(fd)
    buffer.write("first\n")
    assert not buffer.masks()
    file = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
    os.dup2(file, fd)
    buffer.write("second\n")
    assert (tmp_path / "log").read_text() == "1 line lost\nsecond\n"


def test_a_line_that_was_cut_by_an_error_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    buffer = LogLines(fd)
    real, room = os.write, [3, 0]

    def write(fd: int, data: memoryview) -> int:
        size = room.pop(0) if room else len(data)
        if not size:
            raise OSError(28, "full")
        return real(fd, data[:size])

    monkeypatch.setattr(os, "write", write)
    buffer.write("first\n")
    buffer.write("second\n")
    assert path.read_text() == "fir\n1 line lost\nsecond\n"


def test_a_reader_that_has_gone_is_no_failure() -> None:
    end = Unread("pipe")
    buffer = LogLines(end.writing)
    os.close(end.reading)
    buffer.write("text\n")
    assert not buffer.masks()
    buffer.close()


def fill(fd: int) -> None:
    os.set_blocking(fd, False)
    try:
        while True:
            os.write(fd, bytes(4096))
    except BlockingIOError:
        os.set_blocking(fd, True)


@pytest.mark.timeout(PATIENCE)
@pytest.mark.parametrize("end", [lambda fd: LogLines(fd).close(), lambda fd: offer(fd, "text\n", 0.0)])
def test_the_end_does_not_wait_for_a_reader_that_does_not_come(end: Callable[[int], None]) -> None:
    reading, writing = os.pipe()
    fill(writing)
    buffer = LogLines(writing)
    buffer.write("text\n")
    buffer.close()
    end(writing)
    os.set_blocking(reading, False)
    while data := _read(reading):
        assert not data.strip(b"\0")
    os.close(reading)


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, 1 << 20)
    except BlockingIOError:
        return b""
