"""Sizes, durations and counts: what is read, what is refused, and how they are printed."""

from __future__ import annotations

import pytest

from cexec.errors import UsageError
from cexec.system.units import (
    LARGEST_SIZE,
    parse_duration,
    parse_number,
    parse_size,
    parse_whole,
    show_count,
    show_duration,
    show_number,
    show_short_duration,
    show_size,
)

NONSENSE = ("", " ", ".", "-1", "+1", "nan", "inf", "1e3", "1e400", "1_000", "0x10", "1,5", "1.2.3", "٣", "²", "1 0",
            "5X", "9" * 41, "9" * 400, "1\0")  # fmt: skip


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1", 1),
        ("1048576", 1 << 20),
        ("64K", 1 << 16),
        ("1m", 1 << 20),
        ("2g", 2 << 30),
        ("1T", 1 << 40),
        ("1TiB", 1 << 40),
        ("3MB", 3 << 20),
        ("5B", 5),
        ("007", 7),
        ("1.5G", 3 << 29),
        (".5k", 512),
        ("4.K", 4096),
        ("1.0001K", 1024),
        ("4611686018427387904", LARGEST_SIZE),
        ("4194303.9999999999999999999T", LARGEST_SIZE - 1),  # a float would be rounded up
        (" 8K ", 8192),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text, "--block") == size


@pytest.mark.parametrize(
    "text", [*NONSENSE, "K", "B", "iB", "1P", "1KK", "K1", "1 K", "1Kib2", "1s", "1I", "64KI", "1iB", "1i"]
)
def test_what_is_no_size_is_refused_with_examples(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_size(text, "--block")
    assert str(caught.value) == f"--block is {text!r}, but must be a size such as 65536, 64K, 500M or 1.5G"


def test_sizes_have_bounds_which_are_named() -> None:
    assert parse_size("0", "X", least=0) == 0
    for text, least, said in (("0", 1, "1"), ("0.5K", 1 << 20, "1M"), ("1000", 1536, "1536"), ("1", 3 << 30, "3G")):
        with pytest.raises(UsageError, match=rf"X is '{text}', but must be at least {said}$"):
            parse_size(text, "X", least)
    with pytest.raises(UsageError, match=r"X is '4194305T', but must be at most 4194304T$"):
        parse_size("4194305T", "X")
    with pytest.raises(UsageError, match=r"X is '2M', but must be at most 1M$"):
        parse_size("2M", "X", 1, 1 << 20)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("10", 10.0),
        ("0.5", 0.5),
        (".5", 0.5),
        ("1.", 1.0),
        ("90s", 90.0),
        ("1m30s", 90.0),
        ("1m30", 90.0),
        ("1h30", 3630.0),
        ("2h", 7200.0),
        ("1.5h", 5400.0),
        ("1d1s", 86401.0),
        ("1d2h3m4s5ms", 93784.005),
        ("500ms", 0.5),
        ("1500ms", 1.5),
        ("2m5ms", 120.005),
        (" 7 ", 7.0),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text, "--delay") == seconds


@pytest.mark.parametrize(
    "text", [*NONSENSE, "s", "ms", "1x", "1s1m", "1m1m", "5 s", "1ms1s", "1s2", "1M", "1min", "1ss"]
)
def test_what_is_no_duration_is_refused_with_examples(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_duration(text, "--delay")
    said = "must be a number of seconds, or a time such as 1m30s, 2h or 500ms"
    assert str(caught.value) == f"--delay is {text!r}, but {said}"


def test_durations_have_bounds_which_are_named() -> None:
    with pytest.raises(UsageError, match=r"^X is '1s', but must be at least 5\.00 s$"):
        parse_duration("1s", "X", least=5)
    with pytest.raises(UsageError, match=r"^X is '0', but must be at least 0\.001 s$"):
        parse_duration("0", "X", least=0.001)  # Regression: "at least 0.00 s"
    with pytest.raises(UsageError, match=r"^X is '2h', but must be at most 1 h 00 min$"):
        parse_duration("2h", "X", most=3600)
    with pytest.raises(UsageError, match=r"^X is '9{39}', but must be at most "):
        parse_duration("9" * 39, "X")


def test_whole_numbers() -> None:
    assert parse_whole("3", "-n", 1, 3) == 3
    assert parse_whole(" 007 ", "-n") == 7
    for text in (*NONSENSE, "0", "4", "1.0"):
        with pytest.raises(UsageError) as caught:
            parse_whole(text, "-n", 1, 3)
        assert str(caught.value) == f"-n is {text!r}, but must be a whole number from 1 to 3"


def test_numbers() -> None:
    assert [parse_number(text, "--rate", 0.5, 10) for text in ("0.5", "10", " 3. ")] == [0.5, 10, 3]
    for text in (*NONSENSE, "0.4", "10.1"):
        with pytest.raises(UsageError) as caught:
            parse_number(text, "--rate", 0.5, 10)
        assert str(caught.value) == f"--rate is {text!r}, but must be a number from 0.5 to 10"


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0 B"),
        (7, "7 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (99.94 * 1024, "99.9 KiB"),
        (99.96 * 1024, "100 KiB"),
        ((1 << 20) - 1, "1 MiB"),
        (200 << 20, "200 MiB"),
        (3 << 29, "1.5 GiB"),
        (5 << 50, "5120 TiB"),
    ],
)
def test_sizes_in_words(number: float, text: str) -> None:
    assert show_size(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.00 s"),
        (0.04, "0.04 s"),
        (9.996, "10.0 s"),
        (12.5, "12.5 s"),
        (59.96, "1 min 00 s"),
        (185, "3 min 05 s"),
        (7620, "2 h 07 min"),
        (273_600, "3 d 04 h"),
    ],
)
def test_durations_in_words(seconds: float, text: str) -> None:
    assert show_duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (59.9, "59s"), (60, "1m"), (3661, "1h1m"), (86_400 * 3 + 4 * 3600 + 59, "3d4h"), (86_405, "1d5s")],
)
def test_durations_in_tables_can_be_read_again(seconds: float, text: str) -> None:
    assert show_short_duration(seconds) == text
    assert show_short_duration(parse_duration(text, "X")) == text


def test_counts_in_words() -> None:
    assert [show_count(number, "task") for number in (0, 1, 10_000)] == ["0 tasks", "1 task", "10,000 tasks"]
    assert show_number(1_234_567) == "1,234,567"
