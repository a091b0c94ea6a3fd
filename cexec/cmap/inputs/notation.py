"""Reads the notations that only cmap has on a command line: ranges, percentages, escapes.  `system.units` has the rest.

Contract: pure; `parse_ranges` raises `UsageError` that names the text and its option.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cexec.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

_RANGE = re.compile(r"(\d{1,15})(?:-(\d{1,15})(?::(\d{1,15}))?)?", re.ASCII)
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
