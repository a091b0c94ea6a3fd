"""Bytes pass from one pipe to another unseen, and nobody spins while one end is not ready."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator

import pytest

from cexec.pool.splice_through import SpliceThrough


@pytest.fixture
def pipes() -> Iterator[tuple[int, int, int, int]]:
    ends = (*os.pipe(), *os.pipe())
    for fd in ends:
        os.set_blocking(fd, False)
    yield ends
    for fd in ends:
        try:
            os.close(fd)
        except OSError:
            pass  # the test has closed it


def waits_for(splice: SpliceThrough, source: int, target: int) -> int | None:
    """Returns the end that is ready, as the poll sees it; None if it waits."""
    poll = select.poll()
    splice.register(poll, source, target)
    found = poll.poll(0)
    return found[0][0] if found else None


def test_bytes_pass_up_to_the_end_of_the_message(pipes: tuple[int, int, int, int]) -> None:
    source, feed, drain, target = pipes
    os.write(feed, b"rest of one, next")
    splice = SpliceThrough()
    assert splice.move(source, target, 11) == 11
    assert (os.read(drain, 100), os.read(source, 100)) == (b"rest of one", b", next")


def test_it_waits_for_the_end_that_is_not_ready(pipes: tuple[int, int, int, int]) -> None:
    source, feed, drain, target = pipes
    splice = SpliceThrough()
    assert waits_for(splice, source, target) is None
    os.write(feed, b"x" * 5000)
    try:
        while True:
            os.write(target, bytes(4096))
    except BlockingIOError:
        pass
    assert waits_for(splice, source, target) == source
    assert splice.move(source, target, 5000) == 0
    assert waits_for(splice, source, target) is None  # the target is full
    while select.select([drain], [], [], 0)[0]:
        os.read(drain, 1 << 20)
    assert waits_for(splice, source, target) == target
    assert splice.move(source, target, 5000) == 5000
    assert waits_for(splice, source, target) is None


def test_the_ends_are_told(pipes: tuple[int, int, int, int]) -> None:
    source, feed, drain, target = pipes
    os.write(feed, b"x")
    os.close(drain)
    with pytest.raises(BrokenPipeError):
        SpliceThrough().move(source, target, 5)
    os.close(feed)
    os.read(source, 1)
    reading, writing = os.pipe()
    with pytest.raises(EOFError):
        SpliceThrough().move(source, writing, 5)
    os.close(reading)
    os.close(writing)


def test_where_it_is_not_possible_it_says_so() -> None:
    with open(os.devnull, "rb") as one, open(os.devnull, "wb") as other:
        splice = SpliceThrough()
        assert splice.move(one.fileno(), other.fileno(), 5) == 0
        assert not splice.possible
