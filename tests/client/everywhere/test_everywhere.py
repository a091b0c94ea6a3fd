"""`cexec --all` without a network: inputs for many readers, kept and tagged output, and options that are refused."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from cexec.client.everywhere import everywhere, kept_output, roll_report
from cexec.client.everywhere.kept_output import KeptSink, Printer
from cexec.client.everywhere.shared_input import SharedInput, SharedSource
from cexec.client.search.choice import Notices
from cexec.commands.cexec import main
from cexec.errors import LocalError
from cexec.protocol.datagrams.opened_announcement import own_job_id
from tests.client.everywhere.stage import FakeCall, FakeSearch, Stage, request
from tests.protocol.wires import APPLICATION, hello_of

pytestmark = pytest.mark.usefixtures("process_end")


def read(source: SharedSource, size: int = 100) -> bytes | None:
    """Returns the bytes that a source has now."""
    buffer = bytearray(size)
    count = source.read_into(memoryview(buffer))
    return None if count is None else bytes(buffer[:count])


# inputs


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Returns the reading and the writing end; the test may close the second."""
    reading, writing = os.pipe()
    yield reading, writing
    os.close(reading)
    try:
        os.close(writing)
    except OSError:
        pass


def test_every_reader_of_a_pipe_gets_all_of_it(pipe: tuple[int, int]) -> None:
    shared = SharedInput(pipe[0], empty=False)
    early = shared.source()
    assert not early.available and read(early) is None
    os.write(pipe[1], b"hello")
    assert select.select([shared.fd], [], [], 5)[0] == [shared.fd]
    shared.fill()
    assert early.available and read(early, 3) == b"hel"
    late = shared.source()
    assert (read(late), read(late)) == (b"hello", None)
    os.write(pipe[1], b" you")
    shared.fill()
    assert (read(early), read(late)) == (b"lo you", b" you")
    os.close(pipe[1])
    shared.fill()
    assert shared.fd == -1
    assert early.available and read(early) == b"" and read(late) == b""
    assert read(shared.source()) == b"hello you"


def test_a_file_is_read_by_each_from_where_we_stand_and_ends_where_the_farthest_stopped(tmp_path: Path) -> None:
    path = tmp_path / "input"
    path.write_bytes(b"0123456789")
    fd = os.open(path, os.O_RDONLY)
    os.lseek(fd, 2, os.SEEK_SET)
    shared = SharedInput(fd, empty=False)
    one, other = shared.source(), shared.source()
    assert shared.fd == -1 and one.available
    assert (read(one, 3), read(other, 5), read(one, 1)) == (b"234", b"23456", b"5")
    assert os.lseek(fd, 0, os.SEEK_CUR) == 2
    shared.move_offset()
    assert os.lseek(fd, 0, os.SEEK_CUR) == 7
    assert (read(other), read(other)) == (b"789", b"")
    os.close(fd)


def test_an_input_that_is_not_wanted_is_empty(pipe: tuple[int, int]) -> None:
    shared = SharedInput(pipe[0], empty=True)
    source = shared.source()
    shared.fill()
    assert shared.fd == -1 and source.available and read(source) == b""


def test_an_input_that_cannot_be_kept_is_told(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    shared = SharedInput(pipe[0], empty=False)
    os.write(pipe[1], b"hello")
    monkeypatch.setattr(os, "pwrite", lambda *_: _full())
    with pytest.raises(LocalError, match=r"cannot keep .* in .*: no space left on device"):
        shared.fill()


def _full() -> int:
    raise OSError(28, os.strerror(28))


# outputs


def kept(*pieces: bytes) -> KeptSink:
    sink = KeptSink()
    for piece in pieces:
        assert sink.write(memoryview(piece)) == len(piece)
    return sink


@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
@pytest.mark.parametrize(("text", "tagged"), [
    (b"", b""),
    (b"one\ntwo\n", b"w: one\nw: two\n"),
    (b"one\ntwo", b"w: one\nw: two\n"),
    (b"\n\nx\n\n", b"w: \nw: \nw: x\nw: \n"),
    (b"\n", b"w: \n"),
    (b"\0\xff", b"w: \0\xff\n"),
])  # fmt: skip
def test_a_tag_is_in_front_of_each_line_wherever_it_was_cut(
    text: bytes, tagged: bytes, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_output, "READ_SIZE", size)
    assert b"".join(kept(text).chunks(b"w: ")) == tagged
    assert b"".join(kept(text).chunks(b"")) == text


def test_much_output_goes_to_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_output, "KEPT_IN_MEMORY", 1000)
    before = len(os.listdir("/proc/self/fd"))
    sink = kept(*[bytes([number]) * 100 for number in range(30)])
    assert len(os.listdir("/proc/self/fd")) == before + 1
    assert sink.count == 3000
    assert b"".join(sink.chunks(b"")) == b"".join(bytes([number]) * 100 for number in range(30))
    assert len(os.listdir("/proc/self/fd")) == before
    kept(bytes(2000)).drop()
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_printer_keeps_the_order_and_does_not_wait_for_a_slow_reader(pipe: tuple[int, int]) -> None:
    printer = Printer()
    assert printer.idle and printer.wanted() == {}
    printer.add(pipe[1], kept(b"a" * 200_000).chunks(b""))
    printer.add(pipe[1], kept(b"b" * 10).chunks(b""))
    printer.advance()
    assert not printer.idle and list(printer.wanted().values()) == [select.POLLOUT]
    got = b""
    while not printer.idle:
        got += os.read(pipe[0], 65536)
        printer.advance()
    while len(got) < 200_010:
        got += os.read(pipe[0], 65536)
    assert got == b"a" * 200_000 + b"b" * 10


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_the_printer_notices_that_nobody_reads(when: str) -> None:
    reading, writing = os.pipe()
    printer = Printer()
    if when == "before":
        os.close(reading)
    printer.add(writing, kept(b"x").chunks(b""))
    if when == "meanwhile":
        os.close(reading)
    printer.advance()
    assert printer.reader_gone
    os.close(writing)


def test_a_full_disk_is_told() -> None:
    fd = os.open("/dev/full", os.O_WRONLY)
    printer = Printer()
    printer.add(fd, kept(b"x").chunks(b""))
    with pytest.raises(LocalError, match=f"cannot write to descriptor {fd}: no space left on device"):
        printer.advance()
    os.close(fd)


class SearchOfAFullTerminal(FakeSearch):
    """It has something to tell at once, to a terminal that takes nothing until the first step."""

    def __init__(self, notices: Notices, terminal: tuple[int, int]) -> None:
        super().__init__(notices)
        self.seen = b""
        self._reading, self._writing = terminal

    def start(self, now: float) -> None:
        os.set_blocking(self._writing, False)
        with pytest.raises(BlockingIOError):
            while True:
                os.write(self._writing, b"x" * 4096)
        os.set_blocking(self._writing, True)
        self.notices.tell("waiting for ann")

    def step(self, ready: set[int], now: float) -> None:
        self.told.append("step")
        while select.select([self._reading], [], [], 0)[0]:
            self.seen += os.read(self._reading, 65536)


def test_what_is_told_to_a_person_waits_for_its_turn(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Regression: it was written past the printer, into the line of a worker that had been written half.

    It also stopped the search as long as the terminal took nothing.
    """
    stage = Stage(monkeypatch, lambda notices: SearchOfAFullTerminal(notices, pipe), FakeCall())
    monkeypatch.setattr(roll_report, "STANDARD_ERROR", pipe[1])
    monkeypatch.setattr(os, "isatty", lambda fd: True)
    assert everywhere.EverywhereClient(request()).run() == 0
    (search,) = stage.searches
    assert isinstance(search, SearchOfAFullTerminal)
    assert search.told.count("step") == 1
    assert search.seen.strip(b"x") == b"" and len(search.seen) > 4096
    assert os.read(pipe[0], 1000) == b"cexec: waiting for ann\n"


def test_the_roll_goes_on_when_all_that_is_ready_was_taken_and_the_run_ends_when_it_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A process that was stopped finds workers and answers: to judge by the time before all was read would be wrong."""
    told: list[str] = []

    def make(notices: Notices) -> FakeSearch:
        search = FakeSearch(notices)
        search.told = told
        hellos = [hello_of(APPLICATION.worker, instance=bytes([number]) * 16) for number in range(3)]
        search.winners = [SimpleNamespace(hello=hello, address="10.0.0.3") for hello in hellos]
        return search

    Stage(monkeypatch, make, FakeCall(turns=3, told=told.append))
    assert everywhere.EverywhereClient(request()).run() == 0
    assert told[:7] == ["wait", "start", *["step"] * 4, "roll"]  # the job is announced when the demands are met
    assert told[7:-3] == ["step", "roll"] * (len(told[7:-3]) // 2)
    assert 3 <= told.count("roll") <= 5  # it does not spin while the census goes on
    assert told[-3:] == ["tell others", "close", "close"]


# the rest


def test_each_worker_has_a_job_of_its_own() -> None:
    job, one, other = bytes(16), b"1" * 16, b"2" * 16
    assert len({job, own_job_id(job, one), own_job_id(job, other), own_job_id(b"j" * 16, one)}) == 4
    assert len(own_job_id(job, one)) == 16


@pytest.mark.parametrize(("arguments", "message"), [
    (["--tag"], "--tag needs --all"),
    (["--expect", "3"], "--expect needs --all"),
    (["--all", "--explain"], "--explain cannot be used with --all"),
    (["--all", "--retries", "0"], "--retries cannot be used with --all"),
    (["--all", "--send", "f"], "--send cannot be used with --all"),
    (["--all", "--fetch", "f"], "--fetch cannot be used with --all"),
    (["--all", "--progress"], "--progress cannot be used with --all"),
])  # fmt: skip
def test_options_that_do_not_go_together_are_refused(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "app.pub"
    path.touch()
    assert main([*arguments, os.fspath(path)]) == 100
    assert capsys.readouterr().err == f"cexec: {message}\n"
