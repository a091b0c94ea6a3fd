"""Numbers as they are written on a command line."""

from __future__ import annotations

import pytest

from cexec.cmap.inputs.notation import format_ranges, parse_escapes, parse_percent, parse_ranges
from cexec.errors import UsageError


@pytest.mark.parametrize(
    ("text", "members"),
    [
        ("7", [7]),
        ("1-4", [1, 2, 3, 4]),
        ("1-10:4", [1, 5, 9]),
        ("2, 8-10", [2, 8, 9, 10]),
        ("0", [0]),
        ("9-9", [9]),
    ],
)
def test_ranges(text: str, members: list[int]) -> None:
    assert [number for part in parse_ranges(text, "--rows") for number in part] == members


@pytest.mark.parametrize("text", ["", "a", "3-1", "1-5:0", "1,,2", "-3", "1-", "1:2", "1.5", "٣", "1-5:2:3", "9" * 16])
def test_a_range_that_cannot_be_understood_is_named(text: str) -> None:
    with pytest.raises(UsageError, match="--rows"):
        parse_ranges(text, "--rows")


def test_percentages() -> None:
    assert parse_percent("150%") == 1.5
    assert parse_percent("2.5%") == 0.025
    assert [parse_percent(text) for text in ("150", "%", "-1%", "1%%", "")] == [None] * 5


def test_escapes() -> None:
    assert parse_escapes(r"a\n\t\r\0\x41\\n") == b"a\n\t\r\0A\\n"
    assert parse_escapes(r"\q \x4 ende\\") == rb"\q \x4 ende" + b"\\"
    assert parse_escapes("ä\udcff") == b"\xc3\xa4\xff"


def test_ranges_are_written_as_they_are_read() -> None:
    assert format_ranges([2, 8, 9, 10, 12]) == "2, 8-10, 12"
    assert format_ranges([1]) == "1"
    assert format_ranges([1, 2]) == "1-2"
    assert format_ranges([]) == ""
