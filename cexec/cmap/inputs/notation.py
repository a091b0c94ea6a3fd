"""How numbers are written on a command line: ranges, sizes, durations, percentages, escapes.

Contract: each function takes the text and the name of its option, and raises `UsageError` that names both.  Pure.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cexec.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

LARGEST = 10**15  # (ours) a number that no table, size or time needs
_RANGE = re.compile(r"(\d{1,15})(?:-(\d{1,15})(?::(\d{1,15}))?)?", re.ASCII)
_SIZE = re.compile(r"(\d{1,15})([KMGT]?)", re.ASCII | re.IGNORECASE)
_SHIFTS = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}
_NUMBER = r"(\d{1,15}(?:\.\d{1,15})?|\.\d{1,15})"
_DURATION = re.compile(rf"(?:{_NUMBER}d)?(?:{_NUMBER}h)?(?:{_NUMBER}m)?(?:{_NUMBER}s?)?", re.ASCII)
_SECONDS = (86400, 3600, 60, 1)  # in a day, an hour, a minute, a second
_PERCENT = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)%", re.ASCII)
_ESCAPE = re.compile(rb"\\(?:x([0-9A-Fa-f]{2})|(.))", re.DOTALL)
_ESCAPED = {b"n": b"\n", b"t": b"\t", b"r": b"\r", b"0": b"\0", b"\\": b"\\"}


def parse_ranges(text: str, option: str) -> list[range]:
    """`1-100:5,200` as ranges in the order in which they are written."""
    result = []
    for part in text.split(","):
        part = part.strip()
        match = _RANGE.fullmatch(part)
        if match is None:
            raise UsageError(f"{option} {text}: {part!r} is neither a number nor a range such as 1-100 or 1-100:5")
        first = int(match[1])
        last = int(match[2] or match[1])
        step = int(match[3] or 1)
        if last < first or not step:
            raise UsageError(f"{option} {text}: {part!r} has no members")
        result.append(range(first, last + 1, step))
    return result


def parse_whole(text: str, option: str, least: int = 0, most: int = LARGEST) -> int:
    """A whole number."""
    if not (text.isascii() and text.isdigit() and least <= int(text) <= most):
        raise UsageError(f"{option} is {text!r}, but must be a whole number from {least} to {most}")
    return int(text)


def parse_size(text: str, option: str) -> int:
    """`64K` in bytes, at least 1; the letters are powers of 1,024."""
    match = _SIZE.fullmatch(text)
    size = int(match[1]) << _SHIFTS[match[2].upper()] if match else 0
    if not 0 < size <= LARGEST:
        raise UsageError(f"{option} is {text!r}, but must be a size such as 64K or 1M")
    return size


def parse_duration(text: str, option: str) -> float:
    """`1m30s`, `2h` or `0.5` in seconds."""
    match = _DURATION.fullmatch(text)
    if match is None or not text:
        raise UsageError(f"{option} is {text!r}, but must be a time such as 10, 0.5 or 1m30s")
    return sum(float(part) * seconds for part, seconds in zip(match.groups(), _SECONDS, strict=True) if part)


def parse_percent(text: str) -> float | None:
    """`150%` as 1.5; None if it is no percentage."""
    match = _PERCENT.fullmatch(text)
    return float(match[1]) / 100 if match else None


def parse_escapes(text: str) -> bytes:
    r"""`\n`, `\t`, `\r`, `\0`, `\\` and `\xHH` as what they mean; any other text as it is."""

    def meaning(match: re.Match[bytes]) -> bytes:
        return bytes.fromhex(match[1].decode()) if match[1] else _ESCAPED.get(match[2], match[0])

    return _ESCAPE.sub(meaning, text.encode("utf-8", "surrogateescape"))


def format_ranges(numbers: Sequence[int]) -> str:
    """Ascending numbers as `2, 8-10`."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1][1:] = [number]
        else:
            parts.append([number])
    return ", ".join("-".join(map(str, part)) for part in parts)
