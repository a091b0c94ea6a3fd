"""The options of cexec(1), for the calls that have one: made of the table in `commands.cexec`, parsed by click.

Contract: `parse_options` returns the options by name and the words that are left, or the exit status of a call that is
over (--help, wrong use).
"""

from __future__ import annotations

import click

from cexec.commands.common import run_click
from cexec.commands.help_page import HelpfulCommand, put_into_section, version_option, with_arguments

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from cexec.commands.common import Option

HELP = """Run a job on the least loaded worker of an application.

Standard input, output and error are the program's on the worker; the exit status is the program's.
KEY=VALUE becomes PEER_KEY in its environment. What follows -- is passed to the program as arguments,
if its worker allows that."""
EXAMPLES = (
    ("cexec ogg.pub < input.wav > output.ogg", "run the worker's program; its exit status is cexec's"),
    ("cexec --need gpu,mem=4G --time-limit 10m train.pub -- --seed 7 < data", "with arguments of its own after --"),
    ("cexec --explain ogg.pub < input.wav > output.ogg", "tell who was asked and who answered"),
)
# Each section of the help page begins with this option of the table and goes on to the next one.
SECTIONS = {
    "--no-stdin": "Input and output",
    "--need": "Which worker",
    "--all": "All workers",
    "--retries": "When a worker fails",
    "--send": "Files and programs",
    "--time-limit": "Limits",
    "--progress": "What you see",
}


def parse_options(
    words: list[str], options: tuple[Option, ...], usage: str, *, may_move: bool
) -> tuple[dict[str, object], list[str]] | int:
    """Parses the words before `--`.  `may_move`: there was no `--`, so some of them may belong after one."""
    found: list[tuple[dict[str, object], list[str]]] = []

    def take(words: tuple[str, ...], **values: object) -> int:
        found.append((values, list(words)))
        return 0

    parameters: list[click.Parameter] = [click.Argument(["words"], nargs=-1, required=True, metavar="APP.pub")]
    title = ""
    for names, metavar, text in options:
        title = SECTIONS.get(names[-1], title)
        again = metavar.endswith("...") and not metavar.endswith(",...")
        plain = metavar.removesuffix("...") if again else metavar
        # is_flag=False would make the value optional
        option = click.Option(
            list(names), is_flag=None if metavar else True, metavar=plain or None, multiple=again, help=text
        )
        parameters.append(put_into_section(option, title))
    command = _Command("cexec", callback=take, params=parameters, help=HELP, examples=EXAMPLES)
    command.usage = usage.partition(" ")[2]
    command.may_move = may_move
    version_option(command)
    status = run_click(command, words, standard=False)
    return found[0] if found and status == 0 else status


class _Command(HelpfulCommand):
    """A command whose usage line is the one in the man page."""

    usage = ""
    may_move = False

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write_usage("cexec", self.usage)

    def advice(self, words: Sequence[str], unknown: str) -> str:
        return with_arguments(self, "cexec", words, unknown, rest=True) if self.may_move else ""
