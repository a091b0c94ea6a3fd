"""Values of a journal that a stranger may have written: SQLite gives any type for any column.

Contract: pure; nothing raises.
"""

from __future__ import annotations

from math import isfinite

LONGEST = 4000  # characters (ours) of a text


def number_of(value: object) -> float:
    """Returns a number; 0 for what is none."""
    return float(value) if isinstance(value, (int, float)) and isfinite(value) else 0.0


def whole_of(value: object) -> int:
    """Returns a whole number; 0 for what is none."""
    return value if type(value) is int else 0


def text_of(value: object, longest: int = LONGEST) -> str:
    """Returns the begin of a text; bytes that are no UTF-8 become replacement characters."""
    if isinstance(value, bytes):
        value = value[: 4 * longest].decode(errors="replace")
    return value[:longest] if isinstance(value, str) else ""
