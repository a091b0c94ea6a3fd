"""What the commands around `cgate` share: the option --state, and the state file that must be there.

Contract: `open_state` returns an open `Database`, also while a `cgate` serves with it; without `make`, a file that is
not there is a `LocalError`.  `roles` and `applications` are decorators that add --role and --app.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import click

from cexec.errors import LocalError, UsageError
from cexec.gate.access.caller import TokenRole
from cexec.gate.access.names import ROLE_NAMES
from cexec.gate.store.database import Database
from cexec.gate.store.state_place import default_state

state_option = click.option(
    "--state", metavar="FILE", help="The state file of cgate; by default gate.sqlite in ~/.local/state/cexec."
)
application_option = click.option(
    "--app",
    "apps",
    metavar="APP",
    multiple=True,
    help="Only for this application; may be given again.  By default for all that cgate serves.",
)


def role_option(default: TokenRole) -> Callable[..., Any]:
    return click.option(
        "--role",
        type=click.Choice(ROLE_NAMES),
        default=default.name.lower(),
        show_default=True,
        help="viewer reads; submitter also starts jobs, and handles those; admin handles all.",
    )


def open_state(path: str | None, *, make: bool) -> Database:
    where = path or default_state()
    if not make and not os.path.lexists(where):
        raise LocalError(f"there is no state file {where}; --state names that of the cgate that is meant")
    return Database(where, sole=False)


def dispatch(name: str, commands: dict[str, click.Command], argv: list[str], run: Callable[..., int]) -> int:
    """Runs `cgate NAME SUBCOMMAND ...`; `run` is `run_click`."""
    if argv and argv[0] in commands:
        return run(commands[argv[0]], argv[1:])
    page = _page(name, commands)
    return run(page, argv)


def _page(name: str, commands: dict[str, click.Command]) -> click.Command:
    """The command of which no subcommand was given: it has a help page, and an error that names them."""
    choices = ", ".join(commands)

    @click.command(
        f"cgate {name}",
        help="\n\n".join(
            f"cgate {name} {word}: {command.get_short_help_str(80)}" for word, command in commands.items()
        ),
        context_settings={"help_option_names": ["-h", "--help"], "ignore_unknown_options": True},
    )
    @click.argument("words", metavar="|".join(commands), nargs=-1)
    def page(words: tuple[str, ...]) -> int:
        given = f"{words[0]!r} is none of them" if words else "none was given"
        raise UsageError(f"one of {choices} has to follow: {given}")

    return page
