"""cmap pause, cmap continue, cmap weight: what a person asks of a cmap that runs.

Contract: `STEERING[word](words)` takes the words after its own and returns an exit status: 111 if no cmap runs with the
journal, or it may not be asked or does not follow; 100 for wrong use.  A line on standard output says how the run
stands then.
"""

from __future__ import annotations

import shlex
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from cexec.cmap.control.asking import ask
from cexec.cmap.control.control_messages import ControlAction, ControlRequest
from cexec.commands.common import run_click
from cexec.commands.help_page import HelpfulCommand, version_option
from cexec.protocol.base.limits import MAXIMUM_WEIGHT
from cexec.system.units import show_count, show_duration, show_number

if TYPE_CHECKING:
    from collections.abc import Callable

    from cexec.cmap.control.control_messages import ControlStatus

LEAST_PAUSE = 1.0  # seconds (ours) of a pause that are worth a word
FOREIGN = {"--state": "the argument JOURNAL"}

_journal = click.argument("journal", metavar="JOURNAL")


def _command(name: str, *examples: tuple[str, str]) -> Callable[[Callable[..., Any]], click.Command]:
    return click.command(f"cmap {name}", cls=HelpfulCommand, examples=examples, foreign=FOREIGN)


@_command("pause", ("cmap pause run.journal", "no further task begins; those that run go on to their ends"))
@_journal
@version_option
def pause(journal: str) -> int:
    """Let no further task begin in the cmap that runs with --state JOURNAL; slots that it does not use are free."""
    return _ask(journal, ControlRequest(ControlAction.PAUSE))


@_command("continue", ("cmap continue run.journal", "tasks begin again"))
@_journal
@version_option
def go_on(journal: str) -> int:
    """Let tasks begin again in the cmap that runs with --state JOURNAL."""
    return _ask(journal, ControlRequest(ControlAction.CONTINUE))


@_command("weight", ("cmap weight run.journal 3", "three times as many turns as a cmap with the weight 1"))
@_journal
@click.argument("weight", metavar="N", type=click.IntRange(1, MAXIMUM_WEIGHT))
@version_option
def set_weight(journal: str, weight: int) -> int:
    """Give the cmap that runs with --state JOURNAL another share of the turns while several cmaps or jobs wait."""
    return _ask(journal, ControlRequest(ControlAction.WEIGHT, weight))


STEERING: dict[str, Callable[[list[str]], int]] = {
    "pause": partial(run_click, pause),
    "continue": partial(run_click, go_on),
    "weight": partial(run_click, set_weight),
}


def _ask(journal: str, request: ControlRequest) -> int:
    click.echo(in_words(ask(journal, request), journal))
    return 0


def in_words(status: ControlStatus, journal: str) -> str:
    """Returns how a run stands."""
    words = [f"process {status.pid}"]
    if status.paused:
        long = status.paused_seconds >= LEAST_PAUSE
        words.append(f"paused for {show_duration(status.paused_seconds)}" if long else "paused")
    waiting = "an unknown number" if status.waiting is None else show_number(status.waiting)
    words += [
        f"weight {status.weight}",
        f"{show_count(status.running, 'task')} running",
        f"{waiting} waiting",
    ]
    advice = f"; cmap continue {shlex.quote(journal)} lets it go on" if status.paused else ""
    return ", ".join(words) + advice
