"""The shape of what a host answers: it may be damaged, or meant to hurt, and must not end the run of the others.

Contract: `read_line(text)` reads a line of JSON, and `shaped(value, shape)` returns the value if it has the shape
(`fits`); else they raise `HostError`.  A shape is a type, a dictionary of shapes for members that must be there,
`Every(shape)` for the values of a dictionary or the items of a list, or a tuple of shapes of which one must fit.  Texts
are not too long to be shown.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from cexec.boot.failures import REMOTE, HostError, HostFailure

LONGEST_TEXT = 4096  # characters (ours)


@dataclass(frozen=True, slots=True)
class Every:
    """The shape of all values of a dictionary whose keys are texts, or of all items of a list."""

    container: type[dict[Any, Any]] | type[list[Any]]
    shape: Any


def read_line(text: str) -> Any:
    """Returns what a line of JSON says, of whatever shape; raises `HostError` if it is no JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):  # brackets without end
        raise HostError(HostFailure(REMOTE, f"it answers what cannot be read: {text[:80]!r}")) from None


def shaped(value: Any, shape: Any) -> Any:
    """Returns the value."""
    if not fits(value, shape):
        raise HostError(HostFailure(REMOTE, f"it answers what cannot be read: {str(value)[:80]!r}"))
    return value


def fits(value: Any, shape: Any) -> bool:
    """Returns True if the value has the shape."""
    if isinstance(shape, tuple):
        return any(fits(value, one) for one in shape)
    if isinstance(shape, dict):
        return isinstance(value, dict) and all(name in value and fits(value[name], shape[name]) for name in shape)
    if isinstance(shape, Every):
        if not isinstance(value, shape.container):
            return False
        return all(fits(one, shape.shape) for one in (value.values() if isinstance(value, dict) else value))
    if shape is int and isinstance(value, bool):
        return False
    return isinstance(value, shape) and not (isinstance(value, str) and len(value) > LONGEST_TEXT)


RECORD = {
    "app": str, "fingerprint": str, "options": Every(list, str), "program": Every(list, str),
    "packages": Every(list, str), "environment": Every(dict, str), "how": str, "name": str, "serial": int,
    "not_after": (int, type(None)), "release": str, "host": str, "running": bool, "version": str,
}  # fmt: skip
SEEN = {
    "host": str, "home": str, "free": int, "manager": bool, "lingers": bool, "releases": Every(list, str),
    "workers": Every(dict, dict), "names": Every(list, str), "place": bool,
}  # fmt: skip
INSTALLED = {"present": bool}
NOTE = {"run": str, "host": str}
STOPPED = {"ran": bool}
REMOVED = {"removed": Every(list, str), "left": Every(list, str)}
FAILED = {"kind": str, "text": str}
PYTHON = {
    "path": str, "version": Every(list, int), "implementation": str, "missing": Every(list, str), "bits": int,
    "libc": Every(list, str), "system": str, "machine": str, "threads": bool, "platform": str, "mac": str, "host": str,
}  # fmt: skip
