"""Lines that come one after the other: which rows there are, and when a row is complete."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from itertools import islice
from typing import BinaryIO

import pytest

from cexec.cmap.inputs.arriving import ArrivingLines
from cexec.cmap.inputs.columns_of_lines import parse_separator
from cexec.cmap.inputs.sources import Reading, arriving_table
from cexec.errors import LocalError, UsageError
from tests.waiting import wait_until

Pipe = tuple[int, BinaryIO]


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    """A test closes the writing end, by which the thread that reads ends.

    Only then the other end is closed: that thread could read from the next pipe of the same number otherwise.
    """
    threads = threading.active_count()
    reading, writing = os.pipe()
    stream = open(reading, "rb", buffering=0)  # noqa: SIM115
    yield writing, stream
    wait_until(lambda: threading.active_count() <= threads)
    stream.close()


def lines_of(pipe: Pipe, separator: bytes = b"\n") -> ArrivingLines:
    return ArrivingLines(pipe[1], separator)


def stored(lines: ArrivingLines) -> list[bytes]:
    lines.take()
    return [lines.store[number] for number in range(len(lines.store))]


def took(lines: ArrivingLines) -> bool:
    lines.take()
    return True


def test_an_end_that_comes_soon_is_waited_for(pipe: Pipe) -> None:
    lines = lines_of(pipe)
    os.write(pipe[0], b"a\nb\n")
    threading.Timer(0.1, os.close, [pipe[0]]).start()
    lines.wait(60)
    assert (lines.ended, stored(lines)) == (True, [b"a\n", b"b\n"])


def test_without_an_end_the_first_lines_are_there(pipe: Pipe) -> None:
    lines = lines_of(pipe)
    os.write(pipe[0], b"a\nb\nc")
    lines.wait(0.1)
    assert (lines.ended, stored(lines)) == (False, [b"a\n", b"b\n"])
    os.write(pipe[0], b"c\n")
    wait_until(lambda: stored(lines) == [b"a\n", b"b\n", b"cc\n"])
    os.write(pipe[0], b"d")
    os.close(pipe[0])
    wait_until(lambda: stored(lines)[3:] == [b"d"] and lines.ended)


def test_what_comes_without_a_pause_is_read_on_but_not_for_ever(pipe: Pipe) -> None:
    lines = lines_of(pipe)
    stop = threading.Event()

    def write() -> None:
        while not stop.wait(0.05):
            os.write(pipe[0], b"x\n")

    writer = threading.Thread(target=write)
    writer.start()
    lines.wait(10, 1.5)
    stop.set()
    writer.join()
    assert not lines.ended and len(lines.store) >= 2
    os.close(pipe[0])


def test_a_first_line_is_waited_for_however_long_that_takes(pipe: Pipe) -> None:
    lines = lines_of(pipe)
    threading.Timer(0.2, os.write, [pipe[0], b"late\n"]).start()
    lines.wait(0.0)
    assert (lines.ended, stored(lines)) == (False, [b"late\n"])
    os.close(pipe[0])


def test_rows_are_told_as_they_come_and_a_wake_up_before_each(pipe: Pipe) -> None:
    lines = lines_of(pipe)
    os.write(pipe[0], b"a\nb\n\n")
    lines.wait(0.0)
    table, complete = arriving_table(lines, Reading())
    numbers = lines.numbers(complete)
    woken = threading.Event()
    lines.on_arrival(woken.set)
    assert [next(numbers) for _ in range(4)] == [1, 2, 3, None]
    os.write(pipe[0], b"d\n")
    while (number := next(numbers)) is None:  # the wake-up may have been that of the first lines, which came late
        assert woken.wait(20)
        woken.clear()
    assert (number, table.row(4).cells) == (4, ("d",))
    woken.clear()
    os.close(pipe[0])
    while list(islice(numbers, 1)) == [None]:
        assert woken.wait(20)
        woken.clear()
    assert lines.ended


def test_a_row_of_several_lines_is_complete_with_its_last_one_or_at_the_end(pipe: Pipe) -> None:
    lines = lines_of(pipe)
    os.write(pipe[0], b"a\nb\nc\n")
    lines.wait(0.0)
    table, complete = arriving_table(lines, Reading(group=2))
    numbers = lines.numbers(complete)
    assert [next(numbers), next(numbers)] == [1, None]
    os.close(pipe[0])
    wait_until(lambda: took(lines) and lines.ended)
    assert list(numbers) == [2]
    assert table.row(2).inputs == ("c",)


def test_columns_are_those_of_the_first_lines(pipe: Pipe) -> None:
    lines = lines_of(pipe)
    os.write(pipe[0], b"a,b\n")
    lines.wait(0.0)
    table, complete = arriving_table(lines, Reading(separator=parse_separator(",", "--colsep")))
    os.write(pipe[0], b"c\nd,e,f\n")
    wait_until(lambda: took(lines) and complete() == 3)
    assert (table.columns, table.row(2).cells) == (("1", "2"), ("c", ""))
    with pytest.raises(UsageError, match="row 3 has 3 columns, but those before it had at most 2"):
        table.row(3)
    os.close(pipe[0])


def test_an_input_that_cannot_be_read_is_told(tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = os.open(tmp_path_factory.mktemp("d"), os.O_RDONLY)

    class Unreadable:
        def read(self, size: int) -> bytes:
            return os.read(directory, size)

    lines = ArrivingLines(Unreadable(), b"\n")  # type: ignore[arg-type]
    with pytest.raises(LocalError, match="cannot read standard input: is a directory"):
        lines.wait(None)
    os.close(directory)
