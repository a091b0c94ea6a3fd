"""Colours of help pages: headings bold, names of commands and options cyan.

Contract: `ColouredContext` is the context of a command whose help page goes to a terminal with colours; everything that
a formatter writes as usage, heading or list is painted, and as wide as before.
"""

from __future__ import annotations

from collections.abc import Iterable

import click

from cexec.system.terminal import BOLD, CYAN, painted


class ColouredFormatter(click.HelpFormatter):
    def write_usage(self, prog: str, args: str = "", prefix: str | None = None) -> None:
        super().write_usage(painted(prog, CYAN), args, painted("Usage:", BOLD) + " " if prefix is None else prefix)

    def write_heading(self, heading: str) -> None:
        self.write(f"{'':{self.current_indent}}{painted(heading + ':', BOLD)}\n")

    def write_dl(self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2) -> None:
        super().write_dl([(painted(first, CYAN), second) for first, second in rows], col_max, col_spacing)


class ColouredContext(click.Context):
    formatter_class = ColouredFormatter
