"""Types of click's options whose text is read by the grammar of `system.units`.

Contract: a text that cannot be read is a `UsageError` that names the option; `run_click` prints it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import click

if TYPE_CHECKING:
    ParamType: TypeAlias = click.ParamType[Any]
else:
    ParamType = click.ParamType  # older versions of click have no generic one


class Parsed(ParamType):
    """The type of an option whose text `parse` turns into a value."""

    def __init__(self, parse: Callable[[str, str], Any]) -> None:
        self.name = "text"
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Returns the value; a default that is a value already stays as it is."""
        return self._parse(value, param.opts[-1] if param else "") if isinstance(value, str) else value
