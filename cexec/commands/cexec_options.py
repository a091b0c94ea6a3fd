"""The options of cexec(1), for the calls that have one: made of the table in `commands.cexec`, parsed by click.

Contract: `parse_options` returns the options by name and the words that are left, or the exit status of a call that is
over (--help, wrong use).
"""

from __future__ import annotations

import click

from cexec import __version__
from cexec.commands.common import run_click

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cexec.commands.common import Option

HELP = """Run a job on the least loaded worker of an application.

Standard input, output and error are the program's on the worker; the exit status is the program's.
KEY=VALUE becomes PEER_KEY in its environment. What follows -- is passed to the program as arguments,
if its worker allows that."""


def parse_options(
    words: list[str], options: tuple[Option, ...], usage: str
) -> tuple[dict[str, object], list[str]] | int:
    """Parses the words before `--`."""
    found: list[tuple[dict[str, object], list[str]]] = []

    def take(words: tuple[str, ...], **values: object) -> int:
        found.append((values, list(words)))
        return 0

    parameters: list[click.Parameter] = [click.Argument(["words"], nargs=-1, required=True, metavar="APP.pub")]
    for names, metavar, text in options:
        again = metavar.endswith("...") and not metavar.endswith(",...")
        plain = metavar.removesuffix("...") if again else metavar
        parameters.append(
            click.Option(list(names), is_flag=not metavar, metavar=plain or None, multiple=again, help=text)
        )
    command = _Command(
        "cexec", callback=take, params=parameters, help=HELP, context_settings={"max_content_width": 100}
    )
    command.usage = usage.partition(" ")[2]
    click.version_option(__version__, prog_name="cexec", message="%(prog)s %(version)s")(command)
    status = run_click(command, words, standard=False)
    return found[0] if found and status == 0 else status


class _Command(click.Command):
    """A command whose usage line is the one in the man page."""

    usage = ""

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write_usage("cexec", self.usage)
