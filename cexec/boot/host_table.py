"""Shows a run to people and programs: lines or a picture while it goes on, a table or JSON at its end.

Contract: `BootProgress.changed(journey)` shows a journey that has changed: on a terminal in a picture at its bottom,
with a line for each host that is not done and a bar; elsewhere as one line for each host that is done or has failed.
`table` and `facts` describe the end, `summary` has it in one line.  Everything that came from a host is printable.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from cexec.boot.boot_settings import DONE_WORDS, Action
from cexec.boot.states import HostState, Journey
from cexec.system.printable import printable
from cexec.system.terminal import BOLD, DIM, GREEN, RED, YELLOW, Painter, Terminal, fitting

HEADINGS = ("HOST", "STATE", "PYTHON", "VERSION", "RUNS", "ADDRESS", "NOTE")
DONE = frozenset({HostState.SERVING, HostState.STOPPED, HostState.REMOVED, HostState.ABSENT, HostState.PLANNED})
GOOD: dict[Action, frozenset[HostState]] = {
    Action.SERVE: frozenset({HostState.SERVING, HostState.REMOVED}),
    Action.STATUS: frozenset({HostState.SERVING}),
    Action.STOP: frozenset({HostState.STOPPED, HostState.ABSENT}),
    Action.REMOVE: frozenset({HostState.REMOVED}),
    Action.PLAN: frozenset({HostState.PLANNED}),
}
LONGEST_BAR = 30  # columns (ours)
STYLES = {HostState.FAILED: RED, HostState.SERVING: GREEN, HostState.STOPPED: YELLOW, HostState.ABSENT: YELLOW}


class BootProgress:
    """The hosts of a run on standard error."""

    def __init__(
        self, journeys: Sequence[Journey], action: Action, terminal: Terminal, say: Callable[[str], None]
    ) -> None:
        self._journeys = journeys
        self._action = action
        self._terminal = terminal
        self._say = say
        self._painter = Painter(terminal) if terminal.drawable else None
        self._told: dict[str, str] = {}  # by host: the last line

    def changed(self, journey: Journey) -> None:
        if self._painter is not None and self._painter.works:
            self._painter.draw(self._picture())
        elif journey.state in DONE or journey.state is HostState.FAILED:
            line = f"{journey.host.text}: {describe(journey, self._action)}"
            if self._told.get(journey.host.text) != line:
                self._told[journey.host.text] = line
                self._say(line)

    def close(self) -> None:
        if self._painter is not None:
            self._painter.close()

    def _picture(self) -> list[str]:
        columns, rows = self._terminal.size()
        left = [journey for journey in self._journeys if journey.state not in DONE]
        done = len(self._journeys) - len(left)
        failed = sum(journey.state is HostState.FAILED for journey in left)
        words = f" {done} of {len(self._journeys)} done" + (f", {failed} failed" if failed else "")
        size = min(LONGEST_BAR, max(1, columns - len(words) - 4))
        filled = size * done // len(self._journeys)
        bar = fitting([f"[{'#' * filled}{'-' * (size - filled)}]{words}", words], columns - 1)
        # Those that do something come first; those that wait for their turn are only counted.
        left.sort(key=lambda journey: (journey.state is HostState.WAITING, journey.state is not HostState.FAILED))
        shown = left[: max(1, rows - 3)]
        wide = max((len(journey.host.text) for journey in shown), default=0)
        return [
            *(
                f"{printable(one.host.text):{wide}}  {self._painted(one, printable(describe(one, self._action)))}"
                for one in shown
            ),
            *([self._terminal.paint(f"and {len(left) - len(shown)} more", DIM)] if len(left) > len(shown) else []),
            bar,
        ]

    def _painted(self, journey: Journey, text: str) -> str:
        return self._terminal.paint(text, STYLES.get(journey.state, "")) if journey.state in STYLES else text


def describe(journey: Journey, action: Action) -> str:
    """Returns the state in words, with what people should know."""
    again = " (may work later)" if journey.failure is not None and journey.failure.temporary else ""
    if journey.state is HostState.FAILED and journey.failure is not None:
        return f"{journey.failure.kind}: {journey.words}{again}"
    words = journey.state.value
    if journey.state is HostState.SERVING and action is Action.SERVE:
        words += " now" if journey.changed else " already, nothing was changed"
    return f"{words}; {journey.words}" if journey.words else words


def table(journeys: Sequence[Journey], terminal: Terminal) -> list[str]:
    """Returns the lines of a table, the failed hosts last."""
    rows = [(one, [printable(cell) for cell in _cells(one)]) for one in journeys]
    rows.sort(key=lambda row: row[0].state is HostState.FAILED)
    used = [index for index in range(len(HEADINGS)) if any(cells[index] for _, cells in rows)]
    widths = [max(len(HEADINGS[index]), *(len(cells[index]) for _, cells in rows)) for index in used]

    def line(cells: Sequence[str]) -> str:
        return "  ".join(f"{cells[index]:{width}}" for index, width in zip(used, widths, strict=True)).rstrip()

    styled = [terminal.paint(line(cells), *([STYLES[one.state]] if one.state in STYLES else [])) for one, cells in rows]
    return [terminal.paint(line(HEADINGS), BOLD), *styled]


def facts(journey: Journey) -> dict[str, Any]:
    """Returns what --json says of a host."""
    record, failure = journey.record, journey.failure
    return {
        "host": journey.host.text,
        "name": journey.host.name,
        "state": journey.state.value,
        "changed": journey.changed,
        "failure": None if failure is None else failure.kind,
        "temporary": failure is not None and failure.temporary,
        "words": journey.words,
        "python": "" if journey.facts is None else journey.facts.short,
        "version": record.get("version", ""),
        "release": record.get("release", ""),
        "runs": record.get("how", ""),
        "serial": record.get("serial"),
        "address": journey.address,
        "tries": journey.tries,
    }


def failed(journeys: Sequence[Journey], action: Action) -> list[Journey]:
    """Returns the hosts that are not as asked."""
    return [journey for journey in journeys if journey.state not in GOOD[action]]


def summary(journeys: Sequence[Journey], action: Action) -> str:
    """Returns the end in one line."""
    bad = failed(journeys, action)
    good = len(journeys) - len(bad)
    count = f"{good} of {len(journeys)}" if bad else f"all {good}" if good > 1 else "the"
    plural = "s" if len(journeys) > 1 else ""
    words = DONE_WORDS[action] if len(journeys) > 1 else _SINGULAR[DONE_WORDS[action]]
    line = f"{count} host{plural} {words}"
    if not bad and action in _CHANGING and not any(journey.changed for journey in journeys):
        line += ", nothing was changed"
    kinds = [journey.failure.kind for journey in bad if journey.failure is not None]
    counted = ", ".join(f"{kind} {kinds.count(kind)}" for kind in dict.fromkeys(kinds))
    return f"{line}; failed: {counted}" if counted else line


_CHANGING = (Action.SERVE, Action.STOP, Action.REMOVE)
_SINGULAR = {
    "serve": "serves",
    "have stopped": "has stopped",
    "are clean": "is clean",
    "were looked at": "was looked at",
}


def _cells(journey: Journey) -> list[str]:
    record = journey.record
    python = "" if journey.facts is None else journey.facts.short
    kind = f"{journey.failure.kind}: " if journey.failure is not None else ""
    return [
        journey.host.text, journey.state.value, python, record.get("version", ""), record.get("how", ""),
        journey.address, f"{kind}{journey.words}",
    ]  # fmt: skip
