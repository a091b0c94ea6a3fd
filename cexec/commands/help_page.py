"""The help pages of all commands, and advice about words that a command does not know.

Contract: `HelpfulCommand` is a click command whose page shows examples after the description, and the options in the
groups that `section` has named.  `advice` returns what to do about an option that the command has not: the program's
own arguments come after `--`.  Every command has -h and -V beside --help and --version.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import click

from cexec import __version__

Decorator: TypeAlias = Callable[[Callable[..., Any]], Callable[..., Any]]

WIDTH = 100  # characters (ours) of a page at most
ARGUMENTS = "--"
SETTINGS: dict[str, Any] = {"help_option_names": ["-h", "--help"], "max_content_width": WIDTH}
LAST_SECTION = "Other"

version_option: Decorator = click.version_option(__version__, "-V", "--version", message="%(prog)s %(version)s")


def section(title: str, *options: Decorator) -> tuple[Decorator, ...]:
    """Returns the same options, which the help page shows below this title."""

    def in_section(option: Decorator) -> Decorator:
        def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
            decorated = option(function)
            vars(vars(decorated)["__click_params__"][-1])["section"] = title
            return decorated

        return decorate

    return tuple(in_section(option) for option in options)


def put_into_section(option: click.Option, title: str) -> click.Option:
    """Returns the option, which the help page shows below this title."""
    vars(option)["section"] = title
    return option


class HelpfulCommand(click.Command):
    """A command with examples, each of them a command line and what it does."""

    def __init__(
        self,
        *arguments: Any,
        examples: Sequence[tuple[str, str]] = (),
        foreign: Mapping[str, str] | None = None,
        **settings: Any,
    ) -> None:
        """`foreign`: options of a similar command, and what each of them is here."""
        settings["context_settings"] = {**SETTINGS, **(settings.get("context_settings") or {})}
        super().__init__(*arguments, **settings)
        self.examples = examples
        self.foreign = foreign or {}

    def format_help_text(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_help_text(ctx, formatter)
        if not self.examples:
            return
        with formatter.section("Examples"):
            for line, meaning in self.examples:
                formatter.write(f"{'':{formatter.current_indent}}{line}\n")
                formatter.write(f"{'':{formatter.current_indent + 6}}{meaning}\n")

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for option in self.get_params(ctx):
            record = option.get_help_record(ctx) if isinstance(option, click.Option) else None
            if record is not None:
                sections.setdefault(vars(option).get("section", LAST_SECTION), []).append(record)
        last = sections.pop(LAST_SECTION)
        for title, records in [*sections.items(), (LAST_SECTION if sections else "Options", last)]:
            with formatter.section(title):
                formatter.write_dl(records)

    def advice(self, words: Sequence[str], unknown: str) -> str:
        """Says what to do about `unknown`, an option among the words; empty if there is nothing to say."""
        return ""


def options_with_values(command: click.Command) -> dict[str, bool]:
    """Returns the names of all options, and of each if a value follows it."""
    return {
        name: not option.is_flag
        for option in command.params
        if isinstance(option, click.Option)
        for name in (*option.opts, *option.secondary_opts)
    }


def with_options_first(command: click.Command, prefix: str, key: str, words: Sequence[str]) -> str:
    """Says how options that stand behind the key are given; empty if `words`, what follows the key, begin with none."""
    takes_value = options_with_values(command)
    left = list(words)
    moved: list[str] = []
    while left:
        word = left[0]
        name = word.partition("=")[0] if word.startswith("--") else word[:2]
        if not word.startswith("-") or name not in takes_value:
            break
        moved.append(left.pop(0))
        if takes_value[name] and word == name and left:
            moved.append(left.pop(0))
    return f"options come before {key}: {shlex.join([prefix, *moved, key, *left])}" if moved else ""


def with_arguments(
    command: click.Command, prefix: str, words: Sequence[str], unknown: str, *, tail: Sequence[str] = (), rest: bool
) -> str:
    """Says how the program gets its own arguments; empty if `unknown` stands before the key.

    `prefix` is the command's name, `tail` what follows the arguments.  The arguments begin with the first word after
    the key that the command does not know, or with `unknown`.  `rest`: all words from there on are the program's;
    otherwise options that the command knows stay with it.
    """
    takes_value = options_with_values(command)
    kept: list[str] = []
    moved: list[str] = []
    key_seen = False
    left = list(words)
    while left:
        word = left.pop(0)
        if moved and rest:
            moved.append(word)
            continue
        name = word.partition("=")[0] if word.startswith("--") else word
        if name in takes_value:
            kept.append(word)
            if takes_value[name] and "=" not in word and left:
                kept.append(left.pop(0))
        elif not key_seen and word == unknown:
            return ""
        elif not key_seen:
            kept.append(word)
            key_seen = True
        elif rest and "=" in word and not word.startswith("-"):
            kept.append(word)  # KEY=VALUE
        else:
            moved.append(word)
    if not key_seen or not moved:
        return ""
    line = shlex.join([prefix, *kept, ARGUMENTS, *moved, *tail])
    return f"the program's own arguments come after {ARGUMENTS}: {line}"
