"""A command line as PCCI's clients write it.

Contract: `split_command` splits it into words as a shell does (quotes and backslashes), and that is all: nothing is
expanded, and no shell runs.  The service is `cservice --allow-args APP env`, and env(1) runs the first word.
`CommandError` says what is wrong with the text.  Pure.
"""

from __future__ import annotations

import shlex

LONGEST = 100_000  # characters (ours)


class CommandError(ValueError):
    """The text is no command."""


def split_command(text: object) -> tuple[str, ...]:
    """Returns the arguments for env(1)."""
    if not isinstance(text, str) or not text.strip():
        raise CommandError("Missing command")
    if len(text) > LONGEST:
        raise CommandError(f"the command has more than {LONGEST} characters")
    if "\0" in text:
        raise CommandError("the command has a character that no argument can have")
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise CommandError(f"the command cannot be split into words: {str(error).lower()}") from None
    if not words:
        raise CommandError("Missing command")
    return ("--", *words) if words[0].startswith("-") else tuple(words)  # not an option of env
