"""The parameters of a query string, checked.

Contract: `Query` raises `Problem` 422 for a parameter that is unknown, comes twice or has a wrong value; it names it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cexec.gate.problem import Problem
from cexec.system.printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.requests import Request

YES, NO = frozenset({"1", "true", "True"}), frozenset({"0", "false", "False"})  # the last: Python's clients


class Query:
    """`known`: the parameters that may come once; `repeated`: those that may come more often."""

    def __init__(self, request: Request, known: Iterable[str] = (), repeated: Iterable[str] = ()) -> None:
        once, often = set(known), set(repeated)
        self._values: dict[str, str] = {}
        self._lists: dict[str, list[str]] = {name: [] for name in often}
        for name, value in request.query_params.multi_items():
            if "\0" in value:
                raise Problem(422, f"the parameter {printable(name)} contains a NUL")
            if name in often:
                self._lists[name].append(value)
            elif name not in once:
                raise Problem(422, f"there is no parameter {printable(name)} here")
            elif name in self._values:
                raise Problem(422, f"the parameter {name} comes twice")
            else:
                self._values[name] = value

    def text(self, name: str) -> str | None:
        """Returns a text; it is not empty."""
        value = self._values.get(name)
        if value is not None and not value:
            raise Problem(422, f"the parameter {name} is empty")
        return value

    def texts(self, name: str) -> list[str]:
        return self._lists[name]

    def flag(self, name: str) -> bool:
        value = self._values.get(name, "0")
        if value not in YES | NO:
            raise Problem(422, f"the parameter {name} is 0 or 1")
        return value in YES

    def number(self, name: str, default: int | None, least: int, most: int) -> int | None:
        """Returns a whole number of decimal digits."""
        value = self._values.get(name)
        if value is None:
            return default
        if not (value.isascii() and value.isdigit() and len(value) <= 20 and least <= int(value) <= most):
            raise Problem(422, f"the parameter {name} is a whole number from {least} to {most}")
        return int(value)

    def seconds(self, name: str, most: float, least: float = 0.0) -> float:
        """Returns seconds from `least` to `most`; 0 without the parameter."""
        if name not in self._values:
            return 0.0
        value = self._values[name]
        try:
            seconds = float(value)
        except ValueError:
            seconds = -1.0
        if not least <= seconds <= most or not value.isascii() or value.strip() != value or "_" in value:
            raise Problem(422, f"the parameter {name} is a number of seconds from {least:g} to {most:g}")
        return seconds
