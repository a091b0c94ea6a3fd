"""cgate login (cgate(1)): prints a URL that lets one browser in, once.

Contract: `main(argv)` returns the exit status.  The URL is the only thing on standard output.
"""

from __future__ import annotations

from functools import partial

import click

from cexec.commands.common import print_line, run_click
from cexec.commands.gate_state import application_option, open_state, role_option, state_option
from cexec.commands.help_page import HelpfulCommand, version_option
from cexec.commands.parameters import Parsed
from cexec.errors import LocalError
from cexec.gate.access.caller import TokenRole
from cexec.gate.access.caller_limits import DEFAULT_LIMITS
from cexec.gate.access.key_rows import find_site
from cexec.gate.access.names import check_applications
from cexec.gate.access.sessions import one_time_url
from cexec.system.units import parse_duration, show_duration

LONGEST = 86_400.0  # seconds (ours) for which a URL is good


@click.command(
    "cgate login",
    cls=HelpfulCommand,
    examples=(
        ("cgate login", "for your own browser"),
        ("cgate login --role viewer --for 1h", "for somebody who may look, within an hour"),
    ),
)
@role_option(TokenRole.ADMIN)
@application_option
@click.option(
    "--for",
    "lifetime",
    type=Parsed(partial(parse_duration, least=1.0, most=LONGEST)),
    default=DEFAULT_LIMITS.login,
    metavar="TIME",
    help="How long the URL is good; five minutes by default.",
)
@state_option
@version_option
def command(role: str, apps: tuple[str, ...], lifetime: float, state: str | None) -> int:
    """Print a URL that lets one browser in, once.

    The browser swaps it for a cookie, which ends after twelve hours, by Log out, and by cgate token revoke login.
    """
    applications = check_applications(apps)
    database = open_state(state, make=False)
    try:
        base = database.read_now(find_site)
        if base is None:
            raise LocalError("no cgate has served with this state yet; start it first")
        url = one_time_url(database, base, TokenRole[role.upper()], applications, lifetime)
    finally:
        database.close()
    click.echo(url)
    print_line(f"good once, within {show_duration(lifetime)}; keep it to yourself")
    return 0


def main(argv: list[str]) -> int:
    return run_click(command, argv)
