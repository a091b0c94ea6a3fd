"""Types of click's options: texts that a parser turns into values, and texts that may be empty.

Contract: a text that cannot be read, or is empty, is a `UsageError` that names the option; `run_click` prints it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

import click

from cexec.errors import UsageError

if TYPE_CHECKING:
    ParamType: TypeAlias = click.ParamType[Any]
else:
    ParamType = click.ParamType  # older versions of click have no generic one


class Parsed(ParamType):
    """The type of an option whose text `parse` turns into a value; `option` is its name in messages.

    A text that `may_be_blank` may be of white space alone, as a separator is.
    """

    def __init__(
        self,
        parse: Callable[[str, str], Any],
        option: str = "",
        *,
        may_be_empty: bool = False,
        may_be_blank: bool = False,
    ) -> None:
        self.name = "text"
        self.option = option
        self.may_be_empty = may_be_empty
        self.may_be_blank = may_be_blank
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Returns the value; a default that is a value already stays as it is."""
        if not isinstance(value, str):
            return value
        option = self.option or (param.opts[-1] if param else "")
        nothing = not value if self.may_be_blank else not value.strip()
        if nothing and not self.may_be_empty:
            raise UsageError(f"{option} is empty; is a variable of the shell not set?")
        return self._parse(value, option)


class AnyText(click.types.StringParamType):
    """The type of a text that means something even if it is empty."""

    may_be_empty = True
