"""The names that a command gives to tokens, roles and applications.

Contract: `check_...` return the value or raise `UsageError`.  Names stand in logs and tables, so they have no space, no
control and no letter that looks like another one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from cexec.errors import UsageError
from cexec.gate.access.caller import TokenRole

SESSION_NAME = "login"  # that of all sessions of browsers, which no token has
ROLE_NAMES = tuple(role.name.lower() for role in TokenRole)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}", re.ASCII)


def check_name(name: str) -> str:
    """Returns the name of a new token."""
    if not _NAME.fullmatch(name):
        raise UsageError(f"NAME is {name!r}, but must be 1 to 64 letters, digits, '.', '_', '@' or '-'")
    if name == SESSION_NAME:
        raise UsageError(f"{name} is the name of all sessions of browsers; give the token another one")
    return name


def check_applications(names: Iterable[str]) -> frozenset[str] | None:
    """Returns the applications by their names, without directory and `.pub`; None for all."""
    short = [name.rpartition("/")[2].removesuffix(".pub") for name in names]
    for name, given in zip(short, names, strict=True):
        if not name.isprintable() or not name:
            raise UsageError(f"--app is {given!r}, but must be the name of an application, such as app or app.pub")
    return frozenset(short) or None
