"""The options of cboot(1).

Contract: `cboot_options` adds them to a command, which gets their values by the names that are written here.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click
from packaging.requirements import InvalidRequirement, Requirement

from cexec.authority.issue import LONGEST_DAYS
from cexec.commands.help_page import Decorator, section
from cexec.commands.parameters import Parsed
from cexec.errors import UsageError
from cexec.system.units import parse_duration

MOST_AT_ONCE = 256  # (ours) hosts: each takes two processes of ssh and six descriptors
LONGEST_PATIENCE = 7 * 86_400.0  # seconds (ours)


def _requirement(text: str, option: str) -> str:
    """Reads what pip calls a requirement, such as numpy>=2."""
    try:
        return str(Requirement(text))
    except InvalidRequirement:
        raise UsageError(f"{option} {text!r} is not the name of a package, such as cloudpickle or 'numpy>=2'") from None


OPTIONS: tuple[Decorator, ...] = (
    *section(
        "Hosts",
        click.option(
            "-w",
            "--hosts",
            "listed",
            multiple=True,
            metavar="HOSTS",
            help="These hosts in place of HOSTFILE, such as node[01-32,40]; may be given again.",
        ),
        click.option(
            "-j",
            "--jobs",
            type=click.IntRange(1, MOST_AT_ONCE),
            default=16,
            show_default=True,
            metavar="N",
            help="How many hosts are set up at once.",
        ),
        click.option(
            "--patience",
            type=Parsed(partial(parse_duration, most=LONGEST_PATIENCE)),
            metavar="TIME",
            help="How long a host that does not answer is tried again.  [default: 1m, with --status and --dry-run 0]",
        ),
        click.option("--keep-trying", is_flag=True, help="Try such hosts again as long as cboot runs."),
        click.option(
            "--ssh",
            default="ssh",
            show_default=True,
            metavar="COMMAND",
            help="The ssh client, with options of its own: --ssh 'ssh -F FILE'.",
        ),
    ),
    *section(
        "What the hosts get",
        click.option(
            "--wheels",
            type=click.Path(exists=True, file_okay=False, path_type=Path),
            metavar="DIR",
            help="Take packages from this directory, and ask no package index.",
        ),
        click.option(
            "--with",
            "packages",
            multiple=True,
            type=Parsed(_requirement),
            metavar="PACKAGE",
            help="A Python package for the program {python}, such as cloudpickle; may be given again.",
        ),
        click.option(
            "--days", type=click.IntRange(1, LONGEST_DAYS), metavar="N", help="The workers' keys end after N days."
        ),
        click.option("--detached", is_flag=True, help="Make no systemd user unit, also where that is possible."),
    ),
    *section(
        "For a while only",
        click.option("--ephemeral", is_flag=True, help="Remove everything when cboot ends, however it ends."),
        click.option(
            "--run",
            "command",
            metavar="COMMAND",
            help="As --ephemeral: run COMMAND here when the workers serve, and end with its status.",
        ),
    ),
    *section(
        "What was set up before",
        click.option("--status", is_flag=True, help="Show which hosts serve."),
        click.option("--upgrade", is_flag=True, help="Bring the workers to the cexec that is here."),
        click.option("--stop", is_flag=True, help="Stop the workers; what was copied stays."),
        click.option("--remove", is_flag=True, help="Stop the workers, and delete everything that cboot put there."),
        click.option("--keep-programs", is_flag=True, help="With --remove: leave the cache of clients' programs."),
        click.option(
            "--grace",
            type=Parsed(partial(parse_duration, most=LONGEST_PATIENCE)),
            default=10.0,
            metavar="TIME",
            help="How long running jobs may go on when a worker is stopped.  [default: 10s]",
        ),
    ),
    *section(
        "Output",
        click.option("--dry-run", is_flag=True, help="Look at the hosts, say what would be done, and change nothing."),
        click.option("--json", "as_json", is_flag=True, help="One JSON object for each host and line."),
    ),
)


def cboot_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds all options to a command."""
    for option in reversed(OPTIONS):
        function = option(function)
    return function
