"""A worker's numbers, which go on after a restart."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cexec.protocol.base.limits import IDENTITY_SIZE
from cexec.system.storage.series import NUMBER_SIZE, Series


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
