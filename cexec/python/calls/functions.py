"""The functions of an executor's calls: each is sent to a worker once, however many calls use it.

Contract: `take` pickles a function and returns a `SentFunction` that is in use until `release`; both may be called from
any thread.  Functions whose pickles are equal are one.  `release` returns those that workers should forget: nobody uses
them, and there are too many, or they are large.  `CannotPickleError` as by `pickles.dump`.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from cexec.pool.call_messages import SMALL
from cexec.pool.pickles import dump

if TYPE_CHECKING:
    from collections.abc import Callable

    from cexec.pool.call_messages import Part

MOST_KEPT = 256  # functions (ours) that workers keep although nobody uses them now


class SentFunction:
    """A function in the form in which workers get it."""

    __slots__ = ("id", "key", "name", "parts", "users")

    def __init__(self, id: int, name: str, parts: list[Part], key: bytes | None) -> None:
        self.id = id
        self.name = name
        self.parts = parts
        self.key = key
        self.users = 0


class FunctionTable:
    """All functions of one executor."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[bytes, SentFunction] = {}  # the one that was used last is the last one
        self._ids = 0

    def take(self, function: Callable[..., Any]) -> SentFunction:
        name = name_of(function)
        parts = dump(function, name)
        first = parts[0]
        key = first if len(parts) == 1 and isinstance(first, bytes) and len(first) <= SMALL else None
        with self._lock:
            found = None if key is None else self._known.pop(key, None)
            if found is None:
                self._ids += 1
                found = SentFunction(self._ids, name, parts, key)
            if key is not None:
                self._known[key] = found
            found.users += 1
        return found

    def retain(self, function: SentFunction) -> None:
        """Somebody else uses it, too."""
        with self._lock:
            function.users += 1

    def release(self, function: SentFunction) -> list[SentFunction]:
        with self._lock:
            function.users -= 1
            if function.key is None:
                return [] if function.users else [function]
            forgotten = []
            if len(self._known) > MOST_KEPT:
                forgotten = [one for one in list(self._known.values())[: MOST_KEPT // 2] if not one.users]
                for one in forgotten:
                    if one.key is not None:
                        del self._known[one.key]
            return forgotten


def name_of(function: Any) -> str:
    """Returns what messages call it."""
    inner = getattr(function, "func", function)  # of functools.partial
    return str(getattr(inner, "__qualname__", None) or type(inner).__qualname__)
