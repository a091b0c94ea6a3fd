"""Node sets, as clush writes many hosts in one word: `node[01-32,40]`, `rack[1-2]n[1-4]`, `a[1-9/2]`, `a[1-4]!a3`.

Contract: `expand(text)` returns the names in the order in which they are written, each once.  A comma between sets
joins them; after `!` stand those that are left out of all before it.  Numbers keep their leading zeros.  Brackets with
a colon hold an IPv6 address and are no set.  `UsageError` says what cannot be read.
"""

from __future__ import annotations

import re

from cexec.errors import UsageError

MOST_NAMES = 10_000  # (ours) of one list: a slip of the pen must not fill the memory
_RANGE = re.compile(r"(\d+)(?:-(\d+)(?:/(\d+))?)?")
_BRACKETS = re.compile(r"\[([^\]:]*)\]")
_LONGEST_NUMBER = 18  # digits (ours)


def expand(text: str) -> list[str]:
    """Returns the names."""
    names: dict[str, None] = {}
    for sign, part in _parts(text):
        found = _names_of(part, text)
        if sign == "!":
            for name in found:
                names.pop(name, None)
        else:
            names.update(dict.fromkeys(found))
        if len(names) > MOST_NAMES:
            raise UsageError(f"{text!r} is more than {MOST_NAMES} hosts")
    return list(names)


def _parts(text: str) -> list[tuple[str, str]]:
    """Cuts at the commas and exclamation marks outside of brackets; each part has the sign before it."""
    parts, sign, part, depth = [], ",", "", 0
    for letter in text:
        depth += {"[": 1, "]": -1}.get(letter, 0)
        if depth not in (0, 1):
            raise UsageError(f"{text!r}: the brackets do not match")
        if letter in ",!" and not depth:
            parts.append((sign, part.strip()))
            sign, part = letter, ""
        else:
            part += letter
    if depth:
        raise UsageError(f"{text!r}: a bracket is not closed")
    return [(sign, part) for sign, part in [*parts, (sign, part.strip())] if part]


def _names_of(part: str, text: str) -> list[str]:
    if part.startswith("@") and "/" not in part:
        raise UsageError(f"{text!r}: groups of hosts such as {part} are clush's; list them with: nodeset -e {part}")
    names = [""]
    end = 0
    for match in _BRACKETS.finditer(part):
        literal, numbers = part[end : match.start()], _numbers(match[1], text)
        if len(names) * len(numbers) > MOST_NAMES:
            raise UsageError(f"{text!r} is more than {MOST_NAMES} hosts")
        names = [f"{name}{literal}{number}" for name in names for number in numbers]
        end = match.end()
    return [name + part[end:] for name in names]


def _numbers(inside: str, text: str) -> list[str]:
    """Returns what the words between two brackets stand for."""
    found: list[str] = []
    for word in inside.split(","):
        match = _RANGE.fullmatch(word.strip())
        if match is None or any(len(digits) > _LONGEST_NUMBER for digits in match.groups(default="")):
            raise UsageError(f"{text!r}: {word.strip()!r} is neither a number nor a range such as 01-32 or 1-9/2")
        first, last, step = match[1], match[2] or match[1], int(match[3] or 1)
        width = len(first) if first.startswith("0") or len(first) == len(last) else 0
        if step < 1 or int(last) < int(first) or (int(last) - int(first)) // step >= MOST_NAMES:
            raise UsageError(f"{text!r}: the range {word.strip()} is empty or has more than {MOST_NAMES} numbers")
        found += [str(number).zfill(width) for number in range(int(first), int(last) + 1, step)]
    return found
