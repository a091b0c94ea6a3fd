"""cgate token (cgate(1)): makes, lists and revokes the tokens with which programs come in.

Contract: `main(argv)` returns the exit status.  The text of a new token is the only thing on standard output, once;
everything else that is said about it is on standard error.
"""

from __future__ import annotations

import json
from time import gmtime, strftime, time

import click

from cexec.commands.common import print_line, run_click
from cexec.commands.gate_state import application_option, dispatch, open_state, role_option, state_option
from cexec.commands.help_page import HelpfulCommand, version_option
from cexec.errors import LocalError
from cexec.gate.access.caller import TokenRole
from cexec.gate.access.key_rows import Key, add_token, forget_old_keys, list_keys, revoke_keys
from cexec.gate.access.names import check_applications, check_name

LONGEST_DAYS = 36_500  # (ours)
DAY = 86_400.0  # seconds
HEADINGS = ("NUMBER", "KIND", "NAME", "ROLE", "APPS", "MADE", "ENDS", "STATE")


@click.command(
    "cgate token add",
    cls=HelpfulCommand,
    examples=(
        ("cgate token add ci", "a token that starts jobs of all applications, without an end"),
        ("cgate token add --role viewer --days 90 dashboard > token", "one that only reads, in a file"),
    ),
)
@role_option(TokenRole.SUBMITTER)
@application_option
@click.option("--days", type=click.IntRange(1, LONGEST_DAYS), metavar="N", help="The token ends after N days.")
@state_option
@version_option
@click.argument("name")
def add(role: str, apps: tuple[str, ...], days: int | None, state: str | None, name: str) -> int:
    """Make a token, and print it: this once, because only its hash is kept.

    It counts at once, also for a cgate that serves already.
    """
    check_name(name)
    applications = check_applications(apps)
    now = time()
    ends = None if days is None else now + days * DAY
    database = open_state(state, make=True)
    try:
        secret = database.write_now(
            lambda connection: add_token(connection, name, TokenRole[role.upper()], applications, now, ends)
        )
    finally:
        database.close()
    click.echo(secret.text)
    what = "all applications" if applications is None else ", ".join(sorted(applications))
    until = "without an end" if ends is None else f"until {_day(ends)}"
    print_line(f"{name} is a {role} of {what}, {until}; keep the token, it is not shown again")
    print_line("programs send it with each request:  Authorization: Bearer TOKEN")
    return 0


@click.command("cgate token list", cls=HelpfulCommand)
@click.option("--json", "as_json", is_flag=True, help="One JSON object per token and line.")
@state_option
@version_option
def list_(as_json: bool, state: str | None) -> int:
    """Print the tokens and the sessions of browsers, without their secrets."""
    database = open_state(state, make=False)
    try:
        keys = database.read_now(list_keys)
    finally:
        database.close()
    now = time()
    if as_json:
        for key in keys:
            click.echo(json.dumps(_facts(key, now)))
        return 0
    rows = [HEADINGS, *(_cells(key, now) for key in keys)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0


@click.command(
    "cgate token revoke",
    cls=HelpfulCommand,
    examples=(
        ("cgate token revoke ci", "the token ci; its requests end within seconds, its jobs go on"),
        ("cgate token revoke login", "all sessions of browsers"),
    ),
)
@state_option
@version_option
@click.argument("who", metavar="NAME|#NUMBER")
def revoke(state: str | None, who: str) -> int:
    """End a token or a session at once, also in a cgate that serves."""
    now = time()
    database = open_state(state, make=False)
    try:
        ended = database.write_now(lambda connection: revoke_keys(connection, who, now))
        database.write_now(lambda connection: forget_old_keys(connection, now))
    finally:
        database.close()
    if not ended:
        raise LocalError(f"there is no valid token or session {who}; cgate token list shows them")
    for key in ended:
        print_line(f"the {key.kind} {key.name} (number {key.id}) is revoked")
    return 0


def _facts(key: Key, now: float) -> dict[str, object]:
    return {
        "number": key.id,
        "kind": key.kind,
        "name": key.name,
        "role": key.role.name.lower(),
        "apps": None if key.applications is None else sorted(key.applications),
        "made": key.made,
        "ends": key.ends,
        "revoked": key.revoked,
        "valid": key.valid(now),
    }


def _cells(key: Key, now: float) -> tuple[str, ...]:
    apps = "all" if key.applications is None else ",".join(sorted(key.applications))
    state = "valid" if key.valid(now) else "revoked" if key.revoked is not None else "ended"
    ends = "-" if key.ends is None else _day(key.ends)
    return (str(key.id), key.kind, key.name, key.role.name.lower(), apps, _day(key.made), ends, state)


def _day(moment: float) -> str:
    return strftime("%Y-%m-%d", gmtime(moment))


COMMANDS: dict[str, click.Command] = {"add": add, "list": list_, "revoke": revoke}


def main(argv: list[str]) -> int:
    return dispatch("token", COMMANDS, argv, run_click)
