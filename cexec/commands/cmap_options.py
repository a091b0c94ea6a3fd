"""The options of cmap(1): `cmap_options` declares them all, in the groups of the man page.

Contract: a decorator for a click command; every option that is not given is an empty text, an empty tuple or False,
so that `cmap.setup` need not know what is a default and what was said.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cexec.cmap.run.policy import DEFAULT_TERM_SEQ

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeAlias

    Decorator: TypeAlias = Callable[[Callable[..., Any]], Callable[..., Any]]


def _value(*names: str, metavar: str, help: str, default: str | None = "") -> Decorator:
    return click.option(*names, metavar=metavar, default=default, show_default=bool(default), help=help)


def _values(*names: str, metavar: str, help: str) -> Decorator:
    return click.option(*names, metavar=metavar, multiple=True, help=help)


def _flag(*names: str, help: str) -> Decorator:
    return click.option(*names, is_flag=True, help=help)


OPTIONS: tuple[Decorator, ...] = (
    # where tasks come from
    _values("-a", "--arg-file", metavar="FILE", help="Tasks from the lines of a file; several make the product."),
    _value("--params", metavar="FILE", help="Tasks from a table with a header line: CSV, TSV, | or JSON lines."),
    _value("--array", metavar="RANGES", help="Tasks from numbers: 1-100:5,200."),
    _value("--slices", metavar="N", help="N tasks, which get {slice} and {slices}."),
    _value("--rows", metavar="RANGES", help="Only these rows: 2,8-10."),
    _value("--order", metavar="ORDER", default="linear", help="In which order tasks start: linear or random."),
    _flag("-0", "--null", help="Inputs end with NUL instead of a line end."),
    _value("-n", "--max-args", metavar="N", help="So many inputs to a task."),
    _flag("--dry-run", help="Print what would be run, and check it."),
    _flag("--pipe", help="Cut standard input into blocks; each is one task's standard input."),
    _value("--block", metavar="SIZE", help="With --pipe: about so large.  [default: 1M]"),
    _value("--recend", metavar="STR", help="With --pipe: what ends a record.  [default: \\n]", default=None),
    _flag("--tee", help="Every task gets all of standard input."),
    # what a task gives the worker
    _value("--stdin", metavar="FILE", help="A task's standard input, such as {}.", default=None),
    _value("--stdin-text", metavar="TEXT", help="A task's standard input is this text.", default=None),
    _values("--peer", metavar="KEY=TEXT", help="PEER_KEY in the program's environment."),
    _values("--send", metavar="FILE", help="A file that the program finds in a directory of its own."),
    _values("--input", metavar="NAME=TEMPLATE", help="Likewise, a file in which placeholders are filled in."),
    _values("--program", metavar="PLATFORM=FILE", help="Run this program, where a worker allows that."),
    # what comes back
    _value("--stdout", metavar="FILE", help="Where a task's standard output goes, such as {.}.out.", default=None),
    _value("--stderr", metavar="FILE", help="Where its standard error goes.", default=None),
    _values("--fetch", metavar="NAME=FILE", help="A file that the program leaves; whole or not at all."),
    _value("--validate", metavar="CMD", help="Accepts a result with status 0; or module:function."),
    _flag("-k", "--keep-order", help="Output in the order of the tasks."),
    _flag("--line-buffer", help="Output line by line as it comes."),
    _flag("--tag", help="A task's inputs before each line of its output."),
    _value("--results", metavar="DIR|FILE", help="Keep outputs in a directory, FILE.csv or FILE.jsonl."),
    _value("--collect", metavar="WHAT", help="concat, blocks, a command or module:function."),
    # what happens to failures
    _value("--retries", metavar="N", help="How often a task is tried in all; 0: without end.  [default: 1, or 2]"),
    _value("--timeout", metavar="TIME", help="End a task after this time, or N% of the median."),
    _value("--halt", metavar="WHEN", help="now|soon,fail|success|done=N|N%.", default="never"),
    _value("--term-seq", metavar="SEQUENCE", help="How a task is ended.", default=DEFAULT_TERM_SEQ),
    _value("--crash-limit", metavar="N", help="Give up a task that so many workers were lost with.", default="5"),
    _flag("--speculate", help="At the end run slow tasks a second time on idle workers."),
    # state
    _value("--joblog", metavar="FILE", help="A line for each task, as GNU parallel writes it."),
    _value("--state", metavar="FILE", help="A journal from which a run can go on."),
    _flag("--resume", help="Go on: run what is neither done nor failed."),
    _flag("--resume-failed", help="Go on: run what is not done."),
    _flag("--retry-failed", help="Run what has failed."),
    # where and how fast
    _value("-j", "--jobs", metavar="N", help="Tasks at once on each worker: N, N%, -N; all slots at most."),
    _values("--need", metavar="NAME[=VALUE],...", help="Only workers that have this: arch=x86_64,mem=4G,gpu."),
    _values("--on", metavar="NAME,...", help="Only these workers; wait for them for ever."),
    _values("--not", metavar="NAME,...", help="Not these workers."),
    _value("--weight", metavar="N", help="Where several cmaps or jobs wait, this one's share.", default="1"),
    _value("--delay", metavar="TIME", help="Between two starts."),
    _value("--rate", metavar="N", help="At most so many starts a second; N/m, N/h."),
)


def cmap_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """All of them."""
    for option in reversed(OPTIONS):
        function = option(function)
    return function
