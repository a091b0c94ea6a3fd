"""A worker's numbers, which go on after a restart."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cexec.protocol.base.limits import IDENTITY_SIZE
from cexec.system.storage.series import AHEAD, MOST_AHEAD, NUMBER_SIZE, Series

pytestmark = pytest.mark.usefixtures("process_end")


@pytest.fixture
def closed_at_the_end() -> Iterator[list[int]]:
    """A series stays open as long as its process lives: here its descriptor is closed when the process would end."""
    descriptors: list[int] = []
    yield descriptors
    for fd in descriptors:
        os.close(fd)


def opened(directory: Path, descriptors: list[int]) -> Series:
    fd = os.dup(0)
    os.close(fd)  # it is the next that the kernel gives
    descriptors.append(fd)
    return Series(str(directory), "series")


def test_a_series_goes_on_after_a_restart(tmp_path: Path, closed_at_the_end: list[int]) -> None:
    first = opened(tmp_path, closed_at_the_end)
    assert [first.take(), first.take()] == [1, 2]
    os.close(closed_at_the_end.pop())
    second = opened(tmp_path, closed_at_the_end)
    assert (second.id, second.take()) == (first.id, 3)


def test_a_series_that_is_in_use_is_not_shared(tmp_path: Path, closed_at_the_end: list[int]) -> None:
    first = opened(tmp_path, closed_at_the_end)
    other = Series(str(tmp_path), "series")
    assert other.id != first.id and (first.take(), other.take()) == (1, 1)


@pytest.mark.parametrize(
    "content", [b"", b"short", bytes(IDENTITY_SIZE) + b"\xff" * NUMBER_SIZE, b"\xff" * (IDENTITY_SIZE + NUMBER_SIZE)]
)
def test_a_damaged_file_begins_a_new_series(tmp_path: Path, closed_at_the_end: list[int], content: bytes) -> None:
    """Regression: the number after the greatest one was an OverflowError at the start of each job."""
    (tmp_path / "series").write_bytes(content)
    series = opened(tmp_path, closed_at_the_end)
    assert [series.take(), series.take()] == [1, 2]
    assert series.id not in (bytes(IDENTITY_SIZE), b"\xff" * IDENTITY_SIZE)
    assert (tmp_path / "series").read_bytes() == series.id + (2).to_bytes(NUMBER_SIZE, "big")


def written(directory: Path) -> int:
    return int.from_bytes((directory / "series").read_bytes()[IDENTITY_SIZE:], "big")


def test_a_number_that_may_be_needed_is_not_given_again(tmp_path: Path, closed_at_the_end: list[int]) -> None:
    """A worker is killed when jobs may have started of which it has not heard: their numbers become a gap."""
    first = opened(tmp_path, closed_at_the_end)
    first.take()
    first.reserve(1)
    os.close(closed_at_the_end.pop())
    assert opened(tmp_path, closed_at_the_end).take() == 3


def test_numbers_that_are_not_needed_any_more_are_no_gap(tmp_path: Path, closed_at_the_end: list[int]) -> None:
    first = opened(tmp_path, closed_at_the_end)
    first.reserve(17)
    assert first.take() == 1
    first.reserve(0)
    os.close(closed_at_the_end.pop())
    assert opened(tmp_path, closed_at_the_end).take() == 2


def test_the_reserve_is_written_for_many_numbers_at_once(tmp_path: Path, closed_at_the_end: list[int]) -> None:
    series = opened(tmp_path, closed_at_the_end)
    marks = set()
    for _ in range(160):
        series.reserve(16)
        series.take()
        marks.add(written(tmp_path))
        assert max(marks) >= series.take()
    assert len(marks) <= 2 * 160 // AHEAD + 1
    series.reserve(1)
    assert written(tmp_path) <= 321 + MOST_AHEAD
