"""The help page of cexec-ssh(1), and the options with two hyphens, which are no options of ssh.

Contract: `run_page_option` is called for a first word that begins with two hyphens, or is -h; it returns the exit
status.  click is loaded only here, because the other calls must not wait for it.
"""

from __future__ import annotations

import os
from typing import Any

import click

from cexec.commands.common import run_click
from cexec.commands.help_page import Decorator, HelpfulCommand, section, version_option
from cexec.commands.ssh_links import make_links
from cexec.commands.ssh_options import NAME
from cexec.errors import UsageError

USAGE = "[ssh options] [user@]WORKER [COMMAND...]"
HELP = """Run COMMAND on WORKER, for programs that were made for ssh.

WORKER is the name or an address of a service that was started with: cservice --shell shell

The client key is $CEXEC_SSH_KEY, else ~/.config/cexec/shell.pub. The exit status is the command's. Options of ssh
that have no meaning here are ignored, but for -D -f -J -L -N -O -Q -R -W and -w, which are refused."""
EXAMPLES = (
    ("cexec-ssh w uname -a", "run a command on the worker w; rsync -e cexec-ssh and others do so, too"),
    ("cexec-ssh -t w", "a shell on a terminal there"),
    ("cexec-ssh --links ~/links", "for programs that call ssh, scp or sftp: PATH=~/links:$PATH scp FILE w:"),
)
OPTIONS: tuple[Decorator, ...] = (
    *section(
        "The command",
        click.option("-n", "no_stdin", is_flag=True, help="Its standard input is /dev/null."),
        click.option("-s", "subsystem", is_flag=True, help="COMMAND names a subsystem; sftp is the only one."),
        click.option("-l", "user", metavar="USER", help="Fail unless commands run as this user; as USER@WORKER."),
    ),
    *section(
        "The terminal",
        click.option("-t", "terminal", is_flag=True, help="Give it a terminal if there is one here; -tt always."),
        click.option("-T", "no_terminal", is_flag=True, help="Give it no terminal."),
    ),
    *section(
        "Settings",
        click.option(
            "-o",
            "settings",
            metavar="NAME=VALUE",
            help="ConnectTimeout, RequestTTY, SendEnv, SetEnv and User are obeyed, all others ignored.",
        ),
        click.option("-G", "show", is_flag=True, help="Print the settings and end."),
        click.option("--links", metavar="DIR", help="Make ssh, scp and sftp in DIR, for programs that call these."),
    ),
)
FAILED = 255  # the exit status, as of ssh


class _Command(HelpfulCommand):
    """A command whose usage line is the one in the man page."""

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write_usage(NAME, USAGE)


def run_page_option(words: list[str]) -> int:
    """Does what the words ask for."""
    return FAILED if run_click(_command(), words) else 0


def _command() -> click.Command:
    def command(**values: Any) -> int:
        if not values["links"]:
            raise UsageError("options with two hyphens stand alone: cexec-ssh --links DIR")
        return make_links(values["links"], os.environ)

    decorated: Any = command
    for decorate in reversed((*OPTIONS, version_option)):
        decorated = decorate(decorated)
    return click.command(NAME, cls=_Command, examples=EXAMPLES, help=HELP)(decorated)
