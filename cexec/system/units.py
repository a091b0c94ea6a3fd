"""Sizes, durations and counts: one grammar to read them, one way to print each.

Contract: `parse_...` takes the text and the name of the option or variable that it comes from, and raises `UsageError`
that names both and shows what is accepted; spaces around the text do not count.  `show_...` returns text for people.

    size       a number with an optional unit K, M, G or T, in upper or lower case, which may be followed by B or iB.
               Units are powers of 1024: 65536, 64K, 500MB, 1.5GiB
    duration   a number of seconds, or numbers with units in the order d, h, m, s, ms: 10, 0.5, 1m30s, 500ms
    number     decimal digits with at most one point.  There is no sign, no exponent, no infinity.

No module of the standard library is imported here, because `cexec` reads its environment with this.
"""

from __future__ import annotations

from cexec.errors import UsageError

LARGEST = 10**15  # (ours) a count or a number of seconds that nothing needs
LARGEST_SIZE = 1 << 62  # bytes (ours): what every limit of the kernel and every signed 64-bit number can hold
_LONGEST_NUMBER = 40  # characters (ours): a longer one is a mistake, and may take long to convert
_SHIFTS = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}
_SECONDS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}  # in the order in which they are written
_NUMERIC = frozenset("0123456789.")
_BINARY_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def parse_whole(text: str, name: str, least: int = 0, most: int = LARGEST) -> int:
    """Returns a whole number from `least` to `most`."""
    plain = text.strip()
    if not (_is_whole(plain) and least <= int(plain) <= most):
        raise UsageError(f"{name} is {text!r}, but must be a whole number from {least} to {most}")
    return int(plain)


def parse_number(text: str, name: str, least: float, most: float) -> float:
    """Returns a number from `least` to `most`, which may have a fraction."""
    plain = text.strip()
    if not (_is_number(plain) and least <= float(plain) <= most):
        raise UsageError(f"{name} is {text!r}, but must be a number from {least:g} to {most:g}")
    return float(plain)


def parse_size(text: str, name: str, least: int = 1, most: int = LARGEST_SIZE) -> int:
    """Returns a number of bytes from `least` to `most`; a fraction of a byte is dropped."""
    upper = text.strip().upper()
    if upper.endswith("IB"):
        upper = upper[:-2] if upper[-3:-2] in _SHIFTS and upper[-3:-2] else text  # 1KiB, but not 1iB
    else:
        upper = upper.removesuffix("B")
    number, unit = (upper[:-1], upper[-1]) if upper[-1:] in _SHIFTS and upper else (upper, "")
    if not _is_number(number):
        raise UsageError(f"{name} is {text!r}, but must be a size such as 65536, 64K, 500M or 1.5G")
    whole, _, fraction = number.partition(".")
    size = (int(whole + fraction) << _SHIFTS[unit]) // int("1" + "0" * len(fraction))  # exact, as a float is not
    if size < least:
        raise UsageError(f"{name} is {text!r}, but must be at least {_short(least)}")
    if size > most:
        raise UsageError(f"{name} is {text!r}, but must be at most {_short(most)}")
    return size


def parse_duration(text: str, name: str, least: float = 0.0, most: float = LARGEST) -> float:
    """Returns a number of seconds from `least` to `most`."""
    seconds = _seconds(text.strip())
    if seconds is None:
        raise UsageError(f"{name} is {text!r}, but must be a number of seconds, or a time such as 1m30s, 2h or 500ms")
    if not least <= seconds <= most:
        shortest = show_duration(least) if least >= 0.01 else f"{least:g} s"  # which would be 0.00 s
        limit = f"at least {shortest}" if seconds < least else f"at most {show_duration(most)}"
        raise UsageError(f"{name} is {text!r}, but must be {limit}")
    return seconds


def show_size(number: float) -> str:
    """Returns a number of bytes as `999 B`, `1.5 KiB`, `200 MiB`; a rate is this and `/s`."""
    value, unit = float(number), 0
    while value >= 1023.5 and unit < len(_BINARY_UNITS) - 1:
        value /= 1024
        unit += 1
    digits = f"{value:.0f}" if unit == 0 or value >= 99.95 else f"{value:.1f}".removesuffix(".0")
    return f"{digits} {_BINARY_UNITS[unit]}"


def show_duration(seconds: float) -> str:
    """Returns a time as `0.04 s`, `12.5 s`, `3 min 05 s`, `2 h 07 min`, `3 d 04 h`."""
    if seconds < 59.95:
        return f"{seconds:.2f} s" if seconds < 9.995 else f"{seconds:.1f} s"
    whole = round(seconds)
    for unit, small, name, smaller in ((60, 1, "min", "s"), (3600, 60, "h", "min")):
        if whole < unit * (60 if unit == 60 else 24):
            return f"{whole // unit} {name} {whole % unit // small:02} {smaller}"
    return f"{whole // 86400} d {whole % 86400 // 3600:02} h"


def show_short_duration(seconds: float) -> str:
    """Returns a time for a column of a table, as `parse_duration` reads it: the two largest units, `3d4h`, `12m5s`."""
    parts: list[str] = []
    left = int(seconds)
    for unit in ("d", "h", "m", "s"):
        size = int(_SECONDS[unit])
        if left >= size or (unit == "s" and not parts):
            parts.append(f"{left // size}{unit}")
            left %= size
    return "".join(parts[:2])


def show_number(value: int) -> str:
    """Returns `10,000`."""
    return f"{value:,}"


def show_count(value: int, thing: str) -> str:
    """Returns `1 task`, `10,000 tasks`."""
    return f"{show_number(value)} {thing}{'' if value == 1 else 's'}"


def _seconds(text: str) -> float | None:
    """The time that `text` says; None if it cannot be understood."""
    if _is_number(text):
        return float(text)
    total, units = 0.0, list(_SECONDS)
    while text:
        number = text[: next((at for at, letter in enumerate(text) if letter not in _NUMERIC), len(text))]
        text = text[len(number) :]
        unit = text[: next((at for at, letter in enumerate(text) if letter in _NUMERIC), len(text))]
        text = text[len(unit) :]
        if unit == "" and "s" in units:
            unit = "s"  # of `1m30`
        if unit not in units or not _is_number(number):
            return None
        del units[: units.index(unit) + 1]
        total += float(number) * _SECONDS[unit]
    return total if len(units) < len(_SECONDS) else None


def _is_number(text: str) -> bool:
    return len(text) <= _LONGEST_NUMBER and text.isascii() and text.replace(".", "", 1).isdigit()


def _is_whole(text: str) -> bool:
    return len(text) <= _LONGEST_NUMBER and text.isascii() and text.isdigit()


def _short(size: int) -> str:
    """A size as `parse_size` reads it, if a unit divides it: `1M`."""
    unit = max((unit for unit, shift in _SHIFTS.items() if size and not size % (1 << shift)), key=_SHIFTS.__getitem__)
    return f"{size >> _SHIFTS[unit]}{unit}"
