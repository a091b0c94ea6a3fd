"""Chosen rows: ascending, each once, and never in a list."""

from __future__ import annotations

import tracemalloc
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cexec.cmap.inputs.row_numbers import RowNumbers
from cexec.cmap.inputs.sources import Selection, table_from

RANGES = st.lists(
    st.builds(lambda first, size, step: range(first, first + size, step), st.integers(1, 30), st.integers(1, 30),
              st.integers(1, 5)), min_size=1, max_size=6
)  # fmt: skip


@given(RANGES)
def test_numbers_are_those_of_all_ranges(ranges: list[range]) -> None:
    expected = sorted({number for members in ranges for number in members})
    numbers = RowNumbers(ranges)
    assert list(numbers) == list(numbers) == expected
    assert len(numbers) == len(expected)
    assert [number for number in range(70) if number in numbers] == expected


@pytest.mark.parametrize(
    "chosen",
    [
        [range(1, 50_000_001)],
        [range(10, 50_000_001), range(1, 20), range(5, 7), range(60_000_000, 90_000_000)],
        [range(1, 90_000_001, 3)],
    ],
)
def test_many_rows_are_begun_at_once_and_in_constant_memory(chosen: list[range]) -> None:
    """Regression: --rows 1-50000000 made a set and an array of them, --array 1-100000000 a list with --dry-run."""
    tracemalloc.start()
    try:
        table = table_from(array_members=[range(1, 100_000_001)])
        selection = Selection(len(table), chosen=chosen)
        numbers = list(islice(selection, 1000))
        size = len(selection)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert size >= 30_000_000
    assert numbers[0] == 1 and table.row(numbers[-1]).cells == (str(numbers[-1]),)
    assert peak < 1 << 20
