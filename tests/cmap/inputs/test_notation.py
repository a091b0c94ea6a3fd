"""Numbers as they are written on a command line."""

from __future__ import annotations

import pytest

from cexec.cmap.inputs.notation import (
    format_ranges,
    parse_duration,
    parse_escapes,
    parse_percent,
    parse_ranges,
    parse_size,
    parse_whole,
)
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


def test_whole_numbers_have_bounds() -> None:
    assert parse_whole("3", "-n", 1, 3) == 3
    for text in ("0", "4", "-1", "", "1.0", "x", "²"):
        with pytest.raises(UsageError, match=r"-n is .*whole number from 1 to 3"):
            parse_whole(text, "-n", 1, 3)


@pytest.mark.parametrize(("text", "size"), [("1", 1), ("64K", 65536), ("1m", 1 << 20), ("1T", 1 << 40)])
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text, "--block") == size


@pytest.mark.parametrize("text", ["", "0", "0K", "K", "1KB", "-1", "1.5M", "1 M", "999999T"])
def test_a_size_that_cannot_be_understood_is_named(text: str) -> None:
    with pytest.raises(UsageError, match="--block is"):
        parse_size(text, "--block")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("10", 10.0), ("0.5", 0.5), (".5", 0.5), ("90s", 90.0), ("1m30s", 90.0), ("2h", 7200.0), ("1d1s", 86401.0)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text, "--delay") == seconds


@pytest.mark.parametrize("text", ["", "s", "1x", "-1", "1s1m", "1e3", "inf", "nan", "1.", "5 s"])
def test_a_duration_that_cannot_be_understood_is_named(text: str) -> None:
    with pytest.raises(UsageError, match="--delay is"):
        parse_duration(text, "--delay")


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
