"""Further placeholders: --rpl 'TAG EXPRESSION', as in GNU parallel, for expressions that substitute.

Contract: pure.  `parse_replacement("{o} s/[.]gz$/.out/")` returns `o` and a function of one text; `UsageError` for
anything but TAG, white space and one or more of `s/REGEX/TEXT/FLAGS`, with semicolons between.  REGEX is Python's,
which agrees with Perl's in what most people use.  In TEXT `$1`, `\\1` and `${1}` stand for a group and `$&` for the
whole match.  The flags are g, i and nothing else.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cexec.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

_TAG = re.compile(r"\{([^{}\s]+)\}\s+(?=\S)(.*)", re.DOTALL)
_GROUP = re.compile(r"\$(?:(\d)|\{(\d)\}|(&))")


def parse_replacement(text: str, option: str) -> tuple[str, Callable[[str], str]]:
    """Returns what stands between the braces, and what it makes of an input."""
    match = _TAG.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"{option} is {text!r}, but must be a tag in braces and a substitution: '{{o}} s/[.]gz$//'")
    steps = []
    rest = match[2].strip()
    while rest:
        step, rest = _step(rest, text, option)
        steps.append(step)

    def change(value: str) -> str:
        for step in steps:
            value = step(value)
        return value

    return match[1], change


def _step(expression: str, text: str, option: str) -> tuple[Callable[[str], str], str]:
    """Returns the first substitution of an expression, and what comes after it."""
    mark = expression[1:2]
    if expression[0] != "s" or not mark or mark.isalnum() or mark.isspace() or mark in "\\({[<":
        raise UsageError(f"{option} {text!r}: only substitutions such as s/REGEX/TEXT/g are known here, no other Perl")
    parts = re.split(rf"(?<!\\){re.escape(mark)}", expression[2:], maxsplit=2)
    if len(parts) < 3:
        raise UsageError(f"{option} {text!r}: a substitution has three marks, as in s/REGEX/TEXT/")
    pattern, replacement, rest = parts
    flags = re.match(r"[a-z]*", rest)
    assert flags is not None  # it may be empty
    rest = rest[flags.end() :].strip()
    if not set(flags[0]) <= {"g", "i"} or (rest and not rest.startswith(";")):
        raise UsageError(f"{option} {text!r}: after a substitution come g or i, and ; before the next one")
    template = _GROUP.sub(lambda group: rf"\g<{group[1] or group[2] or 0}>", _unmarked(replacement, mark))
    try:
        compiled = re.compile(_unmarked(pattern, mark), re.IGNORECASE if "i" in flags[0] else 0)
        compiled.sub(template, "")
    except (re.error, IndexError) as error:
        raise UsageError(f"{option} {text!r}: {error}") from None
    count = 0 if "g" in flags[0] else 1
    return lambda value: compiled.sub(template, value, count=count), rest.removeprefix(";").strip()


def _unmarked(text: str, mark: str) -> str:
    """Returns the text in which the mark needs no backslash any more."""
    return text.replace(f"\\{mark}", mark) if mark not in "|.*+?^$" else text
