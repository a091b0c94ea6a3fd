"""The drawing of a report: for each worker a time line with a bar for each attempt on each of its slots.

Contract: pure.  `time_lines` yields what the template draws, `ticks` the marks on the axis.  Coordinates are units of a
drawing that is WIDTH wide; the number of bars is bounded, neighbours that are too short to be seen are drawn as one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cexec.cmap.run.ending import How
from cexec.system.units import show_count, show_duration

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from cexec.cmap.watch.history import Slot, Span, WorkerHistory

WIDTH = 1000  # units (ours) of a time line
HEIGHT = 1600  # pixels (ours) that all time lines may take, if that is enough
LEAST_LANE, MOST_LANE = 3, 14  # pixels (ours) of a slot
MOST_DRAWN = 24_000  # (ours) bars on a page; where there are more, neighbours are drawn as one
LEAST_DRAWN = 40  # (ours) for each slot all the same
TICKS = 6  # (ours) about so many on the axis
STEPS = (1, 2, 5, 10, 15, 30)  # (ours) of seconds, minutes
TOLD_APART = (How.SUCCEEDED, How.LOST, How.CANCELLED)  # any other end is shown as a failure


@dataclass(slots=True)
class Bar:
    """One attempt, or neighbours.  `kind` is the class of its colour, `words` say what it is."""

    kind: str
    left: float
    width: float
    top: float
    height: float
    words: str


@dataclass(slots=True)
class TimeLine:
    """One worker's.  `failed` counts attempts."""

    name: str
    height: int
    succeeded: int
    failed: int
    bars: Iterable[Bar]


def time_lines(workers: Sequence[WorkerHistory], length: float, share: int = 1) -> Iterator[TimeLine]:
    """Yields the line of each worker for `length` seconds; the page has `share` such drawings."""
    slots = max(1, sum(len(worker.slots) for worker in workers))
    least = length / max(LEAST_DRAWN, MOST_DRAWN // share // slots)
    lane = max(LEAST_LANE, min(MOST_LANE, HEIGHT // slots))
    for worker in workers:
        bars = (
            bar for place, slot in enumerate(worker.slots) for bar in _bars(slot, place * lane, lane, length, least)
        )
        yield TimeLine(worker.name, lane * max(len(worker.slots), 1), worker.succeeded, worker.failed, bars)


def ticks(length: float) -> Iterator[tuple[float, str]]:
    """Yields marks: per cent of the axis, and text."""
    unit, name = next(((u, n) for u, n in ((86400, "d"), (3600, "h"), (60, "min")) if length >= 3 * u), (1, "s"))
    scaled = length / unit
    factor = 1.0
    while scaled / TICKS > STEPS[-1] * factor:
        factor *= 10
    while scaled / TICKS < factor / 2 and factor > 1e-3:
        factor /= 10
    step = next((step * factor for step in STEPS if step * factor * TICKS >= scaled), STEPS[-1] * factor)
    at = 0.0
    while at <= scaled * 0.97:
        yield 100 * at / scaled, f"{at:.4g} {name}"
        at += step


def _bars(slot: Slot, top: int, lane: int, length: float, least: float) -> Iterator[Bar]:
    thickness = lane - 1 if lane > 3 else lane - 0.5
    shade = 0
    for spans in _together(slot.spans, least):
        one, last = spans[0], spans[-1]
        tasks = sum(span.count for span in spans)
        kind = (one.how if one.how in TOLD_APART else How.FAILED).value
        shade = 1 - shade
        words = f"{show_count(tasks, 'attempt')}, {show_duration(last.end - one.begin)}"
        if tasks == 1:
            words = f"task {one.task}, {show_duration(one.end - one.begin)}"
        why = f": {one.reason}" if one.reason else ""
        yield Bar(f"{kind} s{shade}", *_place(one.begin, last.end, length), top, thickness, f"{words}, {kind}{why}")
    if slot.running is not None:
        words = f"task {slot.running.task} ({slot.running.label}), running for {show_duration(length - slot.since)}"
        yield Bar("running", *_place(slot.since, length, length), top, thickness, words)


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


def _place(begin: float, end: float, length: float) -> tuple[float, float]:
    left = WIDTH * begin / length
    return left, max(WIDTH * end / length - left, 0.6)
