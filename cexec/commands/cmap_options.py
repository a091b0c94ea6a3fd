"""The options of cmap(1): `cmap_options` declares them all, in the groups of the man page, each with its type.

Contract: `cmap_options` is a decorator for a click command, whose function gets values of the types that `cmap.options`
says; `options_from` makes `Options` of them.  A text that is no such value is a `UsageError` that names the option.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import partial
from typing import Any

import click

from cexec.client.request import LEAST_PROGRESS_TIMEOUT
from cexec.cmap.inputs.columns_of_lines import parse_separator
from cexec.cmap.inputs.notation import parse_escapes, parse_ranges
from cexec.cmap.inputs.replacements import parse_replacement
from cexec.cmap.inputs.shell_commands import Call
from cexec.cmap.inputs.sources import LINEAR, parse_order
from cexec.cmap.run.policy import (
    DEFAULT_TERM_SEQ,
    parse_halt,
    parse_placement,
    parse_rate,
    parse_term_seq,
    parse_timeout,
)
from cexec.cmap.run_options import CRASH_LIMIT, MOST_RETRIES, Options
from cexec.commands.help_page import Decorator, section
from cexec.commands.parameters import AnyText, Parsed
from cexec.protocol.base.limits import MAXIMUM_WEIGHT
from cexec.system.units import parse_duration, parse_size, parse_whole

MOST_ARGUMENTS = 10_000  # (ours) inputs of one task


def _typed(
    *names: str, parse: Callable[[str, str], Any], metavar: str, help: str, default: str | None = None
) -> Decorator:
    """An option with a value that is not just text."""
    kind = Parsed(parse, names[0])
    return click.option(
        *names, metavar=metavar, type=kind, default=default, show_default=default is not None, help=help
    )


def _text(*names: str, metavar: str, help: str, default: str | None = "") -> Decorator:
    return click.option(*names, metavar=metavar, default=default, help=help)


def _texts(*names: str, metavar: str, help: str) -> Decorator:
    return click.option(*names, metavar=metavar, multiple=True, help=help)


def _flag(*names: str, help: str) -> Decorator:
    return click.option(*names, is_flag=True, help=help)


def _parse_end(text: str, option: str) -> bytes:
    return parse_escapes(text)


def _parse_header(text: str, option: str) -> int:
    return 1 if text == ":" else parse_whole(text, option, 1, MOST_ARGUMENTS)


def _replacements(*names: str, metavar: str, help: str) -> Decorator:
    return click.option(*names, metavar=metavar, multiple=True, type=Parsed(parse_replacement, names[0]), help=help)


OPTIONS: tuple[Decorator, ...] = (
    *section(
        "Where tasks come from",
        _texts("-a", "--arg-file", metavar="FILE", help="Tasks from the lines of a file; several make the product."),
        _text("--params", metavar="FILE", help="Tasks from a table with a header line: CSV, TSV, | or JSON lines."),
        _typed("--array", parse=parse_ranges, metavar="RANGES", help="Tasks from numbers: 1-100:5,200."),
        _typed(
            "--slices",
            parse=partial(parse_whole, least=1),
            metavar="N",
            help="N tasks, which get {slice} and {slices}.",
        ),
        _typed("--rows", parse=parse_ranges, metavar="RANGES", help="Only these rows: 2,8-10."),
        _typed(
            "--order",
            parse=parse_order,
            metavar="ORDER",
            default=LINEAR,
            help="In which order tasks start: linear or random.",
        ),
        _flag("-0", "--null", help="Inputs end with NUL instead of a line end."),
        _typed(
            "-n",
            "--max-args",
            parse=partial(parse_whole, least=0, most=MOST_ARGUMENTS),
            metavar="N",
            help="Give N inputs to each task; with -n0 each input makes a task that sees nothing of it.",
        ),
        click.option(
            "--colsep",
            metavar="REGEX",
            type=Parsed(parse_separator, "--colsep", may_be_blank=True),
            help="What separates the columns of an input.",
        ),
        _typed(
            "--header",
            parse=_parse_header,
            metavar=":|N",
            help="The first row names the columns; with --pipe, each block begins with N lines.",
        ),
        _replacements("--rpl", metavar="'{TAG} s/RE/TEXT/'", help="One more placeholder: {TAG}, {1TAG}, {nameTAG}."),
        _flag("--dry-run", help="Print what would be run, and check it."),
        _flag("--pipe", help="Cut standard input into blocks; each is one task's standard input."),
        _typed("--block", parse=parse_size, metavar="SIZE", help="With --pipe: about so large.  [default: 1M]"),
        click.option(
            "--recend",
            metavar="STR",
            type=Parsed(_parse_end, may_be_empty=True),  # an empty text ends a record anywhere
            help="With --pipe: what ends a record.  [default: \\n]",
        ),
        _flag("--tee", help="Every task gets all of standard input."),
    ),
    *section(
        "What a task gives the worker",
        _text("--stdin", metavar="FILE", help="The file that is a task's standard input, such as {}.", default=None),
        click.option("--stdin-text", metavar="TEXT", type=AnyText(), help="A task's standard input is this text."),
        _texts("--peer", metavar="KEY=TEXT", help="PEER_KEY in the program's environment."),
        _texts("--send", metavar="FILE", help="A file that the program finds in a directory of its own."),
        _texts("--input", metavar="NAME=TEMPLATE", help="A file for the program, whose placeholders are filled in."),
        _texts("--program", metavar="PLATFORM=FILE", help="Run this program, where a worker allows that."),
    ),
    *section(
        "What comes back",
        _text("--stdout", metavar="FILE", help="Where a task's standard output goes, such as {.}.out.", default=None),
        _text("--stderr", metavar="FILE", help="Where its standard error goes.", default=None),
        _texts("--fetch", metavar="NAME=FILE", help="A file that the program leaves; whole or not at all."),
        _text("--validate", metavar="CMD", help="A command that accepts a result by status 0; or module:function."),
        _flag("-k", "--keep-order", help="Output in the order of the tasks."),
        _flag("--line-buffer", help="Output line by line as it comes."),
        _flag("--tag", help="A task's inputs before each line of its output."),
        _text("--tagstring", metavar="TEXT", help="This text instead, such as {1}.", default=None),
        _flag("--color-failed", "--cf", help="Show what failed tasks have written in red, on a terminal."),
        _text("--results", metavar="DIR|FILE", help="Keep outputs in a directory, FILE.csv or FILE.jsonl."),
        _text("--collect", metavar="WHAT", help="Join all results: concat, blocks, a command or module:function."),
        _flag("--overwrite", help="Replace results, a joblog and a report that are there."),
    ),
    *section(
        "What happens to failures",
        _typed(
            "--retries",
            parse=partial(parse_whole, most=MOST_RETRIES),
            metavar="N",
            help="How often a task is tried in all; 0: without end.  [default: 1; 2 with --validate]",
        ),
        _typed(
            "--timeout", parse=parse_timeout, metavar="TIME", help="End a task after this time, or N% of the median."
        ),
        _typed(
            "--progress-timeout",
            parse=partial(parse_duration, least=LEAST_PROGRESS_TIMEOUT),
            metavar="TIME",
            help="Give a worker up when no byte of a task has come or gone for so long.",
        ),
        _typed(
            "--halt",
            parse=parse_halt,
            metavar="WHEN",
            help="When to stop: now|soon,fail|success|done=N|N%, such as now,fail=1.",
            default="never",
        ),
        _typed(
            "--term-seq",
            parse=parse_term_seq,
            metavar="SEQUENCE",
            help="How a task is ended: signals, and milliseconds between them.",
            default=DEFAULT_TERM_SEQ,
        ),
        _typed(
            "--crash-limit",
            parse=parse_whole,
            metavar="N",
            help="Give up a task after so many workers were lost with it.",
            default=str(CRASH_LIMIT),
        ),
        _flag("--speculate", help="At the end run slow tasks a second time on idle workers."),
    ),
    *section(
        "Going on after an interruption",
        _text("--joblog", metavar="FILE", help="Write a line for each task, as GNU parallel does."),
        _text("--state", metavar="FILE", help="Keep a journal, from which the run can go on."),
        _flag("--resume", help="Go on: run tasks that have neither succeeded nor failed."),
        _flag("--resume-failed", help="Go on: run tasks that have not succeeded, also those that failed."),
        _flag("--retry-failed", help="Go on: run tasks that have failed, and no others."),
        _flag("--repeat-once", help="Go on: repeat also tasks that a worker with --once may have begun."),
        _flag("--no-sync", help="Do not wait until results are on disk."),
    ),
    *section(
        "Where and how fast",
        _typed(
            "-j",
            "--jobs",
            parse=parse_placement,
            metavar="N",
            help="Tasks at once on each worker: N, N%, -N; all slots at most.",
        ),
        _texts("--need", metavar="NAME[=VALUE],...", help="Only workers that have this: arch=x86_64,mem=4G,gpu."),
        _texts("--on", metavar="NAME,...", help="Only these workers; wait for them for ever."),
        _texts("--not", metavar="NAME,...", help="Not these workers."),
        _typed(
            "--weight",
            parse=partial(parse_whole, least=1, most=MAXIMUM_WEIGHT),
            metavar="N",
            help="While several cmaps or jobs wait, this one's share of the turns.",
            default="1",
        ),
        _flag("--require-revoked", help="Trust no worker until there is a list of revoked certificates."),
        _typed("--delay", parse=parse_duration, metavar="TIME", help="Wait so long between two starts."),
        _typed("--rate", parse=parse_rate, metavar="N", help="At most N starts a second, or N/m, N/h."),
    ),
)


def cmap_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds all options to a command."""
    for option in reversed(OPTIONS):
        function = option(function)
    return function


def call_of(application: str, values: Mapping[str, Any], shared: str) -> Call:
    """Returns what the calls of cexec(1) that --dry-run prints have in common."""
    words: list[str] = []
    for name in ("need", "on", "not"):
        words += [f"--{name}", ",".join(values[name])] if values[name] else []
    for text in values["program"]:
        words += ["--program", text]
    if values["weight"] != 1:
        words += ["--weight", str(values["weight"])]
    if values["progress_timeout"]:
        words += ["--progress-timeout", f"{values['progress_timeout']:.3f}".rstrip("0").rstrip(".")]
    if values["timeout"] is not None and values["timeout"].seconds:
        words += ["--time-limit", f"{values['timeout'].seconds:.3f}".rstrip("0").rstrip(".")]
    return Call(application, tuple(words), shared)


def options_from(values: Mapping[str, Any]) -> Options:
    """Makes `Options` of what click has read; some other values are for those that search and watch."""
    given = {field.name: values.get(field.name) for field in fields(Options)}
    return Options(**{name: value for name, value in given.items() if value is not None})
