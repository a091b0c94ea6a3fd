"""The words for numbers: one way to print each, in messages, statistics, displays and reports."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """`0.04 s`, `12.5 s`, `3 min 05 s`, `2 h 07 min`, `3 d 04 h`."""
    if seconds < 59.95:
        return f"{seconds:.2f} s" if seconds < 9.995 else f"{seconds:.1f} s"
    whole = round(seconds)
    for unit, small, name, smaller in ((60, 1, "min", "s"), (3600, 60, "h", "min")):
        if whole < unit * (60 if unit == 60 else 24):
            return f"{whole // unit} {name} {whole % unit // small:02} {smaller}"
    return f"{whole // 86400} d {whole % 86400 // 3600:02} h"


def size(number: int) -> str:
    """`999 B`, `1.5 kB`, `20 MB`."""
    value = float(number)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.5:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 99.5 else f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} TB"


def number(value: int) -> str:
    """`10,000`."""
    return f"{value:,}"


def count(value: int, thing: str) -> str:
    """`1 task`, `10,000 tasks`."""
    return f"{number(value)} {thing}{'' if value == 1 else 's'}"
