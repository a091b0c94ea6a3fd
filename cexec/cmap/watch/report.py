"""--report FILE.html: one page that says how a run is going, and how it went.

Contract: `Report` is an observer that replaces its `ReportFile` every INTERVAL seconds and at the end.  `begin` writes
the first page; `UsageError` or `LocalError` says that it cannot be written.  The page needs nothing but itself, runs no
script, and everything that a worker or a table has supplied is escaped in it.  `page(history, ...)` is pure.
"""

from __future__ import annotations

import time
from html import escape
from typing import TYPE_CHECKING

from cexec.cmap.results.appending import cannot_write
from cexec.cmap.run.ending import How
from cexec.cmap.run.observer import Observer
from cexec.cmap.watch.report_file import BEGIN
from cexec.cmap.watch.report_style import STYLE
from cexec.cmap.watch.statistics import HEAD, row
from cexec.errors import LocalError
from cexec.system.reason import reason_of
from cexec.system.units import show_count, show_duration, show_number

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cexec.cmap.run.observer import Counts
    from cexec.cmap.watch.history import History, Slot, Span, WorkerHistory
    from cexec.cmap.watch.report_file import ReportFile

INTERVAL = 5.0  # seconds (ours) between two pages
RESTRAINT = 20  # (ours) times as long as a page takes passes until the next one: it keeps workers waiting
WIDTH = 1000  # units (ours) of a time line
HEIGHT = 1600  # pixels (ours) that all time lines may take, if that is enough
LEAST_LANE, MOST_LANE = 3, 14  # pixels (ours) of a slot
MOST_DRAWN = 24_000  # (ours) bars on a page; where there are more, neighbours are drawn as one
LEAST_DRAWN = 40  # (ours) for each slot all the same
TICKS = 6  # (ours) about so many on the axis
STEPS = (1, 2, 5, 10, 15, 30)  # (ours) of seconds, minutes
TOLD_APART = (How.SUCCEEDED, How.LOST, How.CANCELLED)  # any other end is shown as a failure


class Report(Observer):
    """Comes after the `history` that it reads in the list of observers."""

    def __init__(self, file: ReportFile, history: History, title: str) -> None:
        self.problem = ""  # why the last page could not be written
        self._file = file
        self._history = history
        self._title = title
        self._due = 0.0

    def begin(self) -> None:
        """Writes the first page."""
        if not self._file.final:
            try:
                self._write()
            except OSError as error:
                raise cannot_write(self._file.path, error) from None

    def counted(self, counts: Counts, now: float) -> None:
        if now >= self._due and not self._file.final:
            begun = time.monotonic()
            self._try()
            self._due = now + max(INTERVAL, RESTRAINT * (time.monotonic() - begun))

    def closed(self, status: int, now: float) -> None:
        if not self._file.final:
            self._try()

    def conclude(self) -> None:
        """Writes the last page to what gets only that; it may wait for its reader, as long as Ctrl-C lets it."""
        if self._file.final:
            self._try()

    def _try(self) -> None:
        """Writes the page, and keeps the reason if that fails: a disk that is full now need not be full at the end."""
        try:
            self._write()
            self.problem = ""
        except LocalError as error:
            self.problem = str(error)
        except OSError as error:
            self.problem = f"cannot write {self._file.path}: {reason_of(error)}"

    def _write(self) -> None:
        self._file.write(page(self._history, self._title))


def page(history: History, title: str) -> Iterator[str]:
    """Yields the parts of the page."""
    running = history.status is None
    yield BEGIN
    yield "<meta name=viewport content='width=device-width, initial-scale=1'>\n"
    if running:
        yield f"<meta http-equiv=refresh content={INTERVAL:.0f}>\n"
    yield f"<title>{_text(title)}</title>\n<style>{STYLE}</style></head><body><main>\n"
    yield f"<header><h1>{_text(title)}</h1><p class=state>{_state(history)}</p></header>\n"
    yield from _figures(history)
    yield _progress(history)
    yield from _time_lines(history)
    yield from _workers(history)
    yield from _failures(history)
    yield "</main></body></html>\n"


def _state(history: History) -> str:
    if history.status is None:
        paused = history.counts is not None and history.counts.paused
        return "<b class=running>paused</b>" if paused else "<b class=running>running</b>"
    if history.status == 0:
        return "<b class=succeeded>all done</b>"
    return f"<b class=failed>ended with status {history.status}</b>"


def _figures(history: History) -> Iterator[str]:
    counts, left = history.counts, history.seconds_left
    earlier = 0 if counts is None else counts.done
    figures = [
        (
            "done",
            show_number(history.succeeded + earlier),
            f"{show_number(earlier)} in earlier runs" if earlier else "",
        ),
        ("failed", show_number(history.failed), ""),
        ("running", show_number(0 if counts is None else counts.running), show_count(len(history.workers), "worker")),
        ("left", "?" if history.left is None else show_number(history.left), ""),
        ("tasks a second", f"{history.rate:.3g}", ""),
        ("so far" if history.status is None else "took", show_duration(history.now), ""),
    ]
    if history.status is None and left is not None:
        figures.append(("to go", show_duration(left), ""))
    yield "<dl class=figures>"
    for name, value, note in figures:
        kind = " class=bad" if name == "failed" and history.failed else ""
        small = f"<small>{_text(note)}</small>" if note else ""
        shown = f"<a href=#failures>{value}</a>" if kind else value
        yield f"<div{kind}><dt>{name}</dt><dd>{shown}{small}</dd></div>"
    yield "</dl>\n"


def _progress(history: History) -> str:
    if not history.total:
        return ""
    earlier = 0 if history.counts is None else history.counts.done
    running = 0 if history.counts is None else history.counts.running
    parts = [("succeeded", history.succeeded + earlier), ("failed", history.failed), ("running", running)]
    bars = "".join(f"<i class={kind} style='width:{100 * part / history.total:.3f}%'></i>" for kind, part in parts)
    return f"<div class=progress role=img aria-label='progress'>{bars}</div>\n"


# time lines


def _time_lines(history: History) -> Iterator[str]:
    if not history.workers:
        yield "<section><h2>Time line</h2><p class=none>No worker has begun a task yet.</p></section>\n"
        return
    length = max(history.now, 1e-6)
    workers = history.ordered()
    slots = sum(len(worker.slots) for worker in workers)
    least = length / max(LEAST_DRAWN, MOST_DRAWN // max(slots, 1))
    yield "<section><h2>Time line</h2>\n<p class=legend>"
    for kind, words in (
        ("succeeded", "succeeded"), ("failed", "failed"), ("lost", "worker lost"), ("cancelled", "cancelled"),
        ("running", "running"),
    ):  # fmt: skip
        yield f"<span><i class={kind}></i>{words}</span>"
    yield "</p>\n<div class=lines>"
    yield f"<div class='line axis'><span></span><span class=ticks>{_axis(length)}</span><span></span></div>\n"
    for worker in workers:
        yield from _time_line(worker, length, least, max(LEAST_LANE, min(MOST_LANE, HEIGHT // max(slots, 1))))
    yield "</div></section>\n"


def _time_line(worker: WorkerHistory, length: float, least: float, lane: int) -> Iterator[str]:
    height = lane * max(len(worker.slots), 1)
    name = _text(worker.name)
    yield f"<div class=line><span class=name title='{name}'>{name}</span>"
    yield f"<svg viewBox='0 0 {WIDTH} {height}' height={height} preserveAspectRatio=none>"
    for place, slot in enumerate(worker.slots):
        yield from _bars(slot, place * lane, lane, length, least)
    bad = f" <b class=failed>{show_number(worker.failed)}</b>" if worker.failed else ""
    yield f"</svg><span class=count>{show_number(worker.succeeded)}{bad}</span></div>\n"


def _bars(slot: Slot, top: int, lane: int, length: float, least: float) -> Iterator[str]:
    thickness = lane - 1 if lane > 3 else lane - 0.5
    shade = 0
    for spans in _together(slot.spans, least):
        one, last = spans[0], spans[-1]
        tasks = sum(span.count for span in spans)
        kind = (one.how if one.how in TOLD_APART else How.FAILED).value
        shade = 1 - shade
        words = f"{show_count(tasks, 'task')}, {show_duration(last.end - one.begin)}"
        if tasks == 1:
            words = f"task {one.task}, {show_duration(one.end - one.begin)}"
        why = f": {one.reason}" if one.reason else ""
        yield (
            f"<rect class='{kind} s{shade}' {_place(one.begin, last.end, length)} y={top} height={thickness}>"
            f"<title>{_text(f'{words}, {kind}{why}')}</title></rect>"
        )
    if slot.running is not None:
        words = f"task {slot.running.task} ({slot.running.label}), running for {show_duration(length - slot.since)}"
        yield (
            f"<rect class=running {_place(slot.since, length, length)} y={top} height={thickness}>"
            f"<title>{_text(words)}</title></rect>"
        )


def _together(spans: Iterable[Span], least: float) -> Iterator[list[Span]]:
    """Neighbours that are too short to be seen one by one, and ended alike."""
    group: list[Span] = []
    for span in spans:
        if group and (span.how != group[0].how or span.end - group[0].begin > least):
            yield group
            group = []
        group.append(span)
    if group:
        yield group


def _place(begin: float, end: float, length: float) -> str:
    left = WIDTH * begin / length
    return f"x={left:.2f} width={max(WIDTH * end / length - left, 0.6):.2f}"


def _axis(length: float) -> str:
    unit, name = next(((u, n) for u, n in ((86400, "d"), (3600, "h"), (60, "min")) if length >= 3 * u), (1, "s"))
    scaled = length / unit
    factor = 1.0
    while scaled / TICKS > STEPS[-1] * factor:
        factor *= 10
    while scaled / TICKS < factor / 2 and factor > 1e-3:
        factor /= 10
    step = next((step * factor for step in STEPS if step * factor * TICKS >= scaled), STEPS[-1] * factor)
    ticks, at = [], 0.0
    while at <= scaled * 0.97:
        ticks.append(f"<i style='left:{100 * at / scaled:.2f}%'>{at:.4g} {name}</i>")
        at += step
    return "".join(ticks)


# tables


def _workers(history: History) -> Iterator[str]:
    if not history.workers:
        return
    yield "<section><h2>Workers</h2>\n<table><thead><tr>"
    yield "".join(f"<th>{name}</th>" for name in HEAD)
    yield "</tr></thead><tbody>\n"
    for worker in history.ordered():
        yield f"<tr>{''.join(f'<td>{_text(cell)}</td>' for cell in row(worker, history.now))}</tr>\n"
    yield "</tbody></table></section>\n"


def _failures(history: History) -> Iterator[str]:
    if not history.failures:
        return
    yield "<section id=failures><h2>Failed tasks</h2>\n<table class=failures><thead><tr><th>task</th><th>inputs</th>"
    yield "<th>worker</th><th>why</th><th>status</th><th>took</th></tr></thead><tbody>\n"
    for one in history.failures:
        cells = (one.label, one.worker, one.reason, str(one.status), show_duration(one.runtime))
        yield f"<tr><td>{one.number}</td>{''.join(f'<td>{_text(cell)}</td>' for cell in cells)}</tr>\n"
    yield "</tbody></table>\n"
    if history.failed > len(history.failures):
        more = show_number(history.failed - len(history.failures))
        yield f"<p class=none>and {more} more; the joblog has them all</p>\n"
    yield "</section>\n"


def _text(text: str) -> str:
    """Returns a foreign text escaped and on one line; it can also stand inside quotes."""
    return escape("".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text), quote=True)
