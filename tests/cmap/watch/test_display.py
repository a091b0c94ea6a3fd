"""--bar, --eta, --progress, as the screen of a terminal shows them."""

from __future__ import annotations

import os
from functools import partial

import pytest

from cexec.cmap.run.ending import AttemptEnding, How
from cexec.cmap.watch.display import Display
from cexec.cmap.watch.history import History
from cexec.cmap.watch.worker_table import worker_lines
from cexec.system.terminal import Terminal
from tests.cmap.watch.watching import BEGIN, attempt, counts, play
from tests.screen import Screen

CAPABLE = {"TERM": "xterm"}


def drawn(history: History, columns: int = 100, rows: int = 24, **options: bool) -> list[str]:
    with Screen(columns, rows) as screen:
        terminal = Terminal(screen.theirs, CAPABLE)
        display = Display(history, terminal, **{"bar": False, "eta": False, "progress": False, **options})
        display.opened(10, BEGIN)
        display.counted(counts(), BEGIN)
        shown = screen.lines()
        display.closed(0, BEGIN)
        assert screen.story() == shown  # the last picture stays
        return shown


@pytest.fixture
def history() -> History:
    history = History()
    play(history, {1: ("a@x", 0, 1, ""), 2: ("[bold]b@x\x1b[2J", 0, 2, "bad")})
    history.began(attempt(3, worker="a@x"), BEGIN + 2)
    history.counted(counts(done=2), BEGIN + 4)
    return history


@pytest.mark.parametrize(
    ("columns", "line"),
    [
        (60, "[##########-----------------] 4/10 40% 1 failed, 12.0 s left"),
        (40, "[########------------] 4/10 40% 1 failed"),
        (30, "[####------] 4/10 40% 1 failed"),
        (21, "[####------] 4/10 40%"),
        (20, "[###------] 4/10 40%"),
        (17, "[####-------] 40%"),
        (10, "4/10 40%"),
        (5, "40%"),
    ],
)
def test_a_bar(history: History, columns: int, line: str) -> None:
    (shown,) = drawn(history, columns=columns + 1, bar=True)
    assert shown == line


def test_a_pause_is_said_in_place_of_the_time_that_is_left(history: History) -> None:
    """What the pause costs does not count: as much is left after it as before."""
    running = next(slot.running for worker in history.ordered() for slot in worker.slots if slot.running)
    history.ended(running, AttemptEnding(How.SUCCEEDED), 0, BEGIN + 4)
    history.counted(counts(done=2, paused=True), BEGIN + 4)
    history.counted(counts(done=2, paused=True), BEGIN + 900)
    bar, eta = drawn(history, bar=True, eta=True)
    assert bar.endswith("] 4/10 40% 1 failed, paused")
    assert eta == "paused; 12.0 s to go; 6 left, 0.5 tasks/s, 15 min 00 s so far"
    assert drawn(history, columns=9, eta=True) == ["paused"]
    history.counted(counts(done=2), BEGIN + 900)
    assert drawn(history, bar=True)[0].endswith("] 4/10 40% 1 failed, 12.0 s left")
    history.total = None
    history.counted(counts(paused=True), BEGIN + 900)
    assert drawn(history, bar=True) == ["2 done 1 failed, paused"]


@pytest.mark.parametrize("size", [(2, 5), (3, 2), (1, 1)])
def test_a_window_without_room_for_a_number_shows_none(history: History, size: tuple[int, int]) -> None:
    assert drawn(history, *size, bar=True, eta=True) == []


@pytest.mark.parametrize(
    ("columns", "line"),
    [(80, "12.0 s to go; 6 left, 0.5 tasks/s, 4.00 s so far"), (30, "12.0 s to go; 6 left"), (20, "12.0 s to go")],
)
def test_the_time_that_is_left(history: History, columns: int, line: str) -> None:
    assert drawn(history, columns=columns, eta=True) == [line]


def test_workers_without_their_escape_sequences(history: History) -> None:
    head, first, second = drawn(history, progress=True)
    assert head.split() == ["worker", "running", "done", "failed", "mean", "tasks/s"]
    assert first.split()[:3] == ["[bold]b@x\\x1b[2J", "0/2", "0"] or second.split()[0] == "[bold]b@x\\x1b[2J"
    assert {first.split()[1], second.split()[1]} == {"1/2", "0/2"}


def test_workers_in_a_narrow_window(history: History) -> None:
    lines = drawn(history, columns=36, progress=True)
    assert lines[0].split() == ["worker", "running", "done"]
    narrow = drawn(history, columns=20, progress=True)
    assert all(len(line) < 20 for line in narrow) and narrow[0].startswith("worker")
    assert all(len(line) < 4 for line in drawn(history, columns=4, progress=True))


def test_more_workers_than_rows_are_counted() -> None:
    history = History()
    history.opened(10, BEGIN)
    for number in range(30):
        history.began(attempt(number, worker=f"w{number:02}@x"), BEGIN)
    lines = drawn(history, 80, 10, bar=True, progress=True)
    assert len(lines) == 9 and lines[-1] == "and 24 more" and lines[2].startswith("w00")
    assert len(worker_lines(history, 79, 100, coloured=False)) == 22


def test_the_table_has_colours_only_where_there_are_some(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b" not in "".join(worker_lines(history, 79, 20, coloured=False))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    assert "\x1b[" in "".join(worker_lines(history, 79, 20, coloured=True))


def test_nobody_knows_how_many() -> None:
    history = History()
    play(history, {1: ("a@x", 0, 1, "")}, total=None)
    bar, eta = drawn(history, bar=True, eta=True)
    assert bar == "1 done" and eta.startswith("the number of tasks that are left is not known yet")


def test_a_failure_is_red(history: History) -> None:
    with Screen() as screen:
        display = Display(history, Terminal(screen.theirs, CAPABLE), bar=True, eta=False, progress=False)
        display.opened(10, BEGIN)
        display.counted(counts(), BEGIN)
        assert screen.colours("1 failed") == {"red"} and screen.colours("4/10") == {"default"}
        display.closed(1, BEGIN)


def test_nothing_is_shown_elsewhere(history: History) -> None:
    reading, writing = os.pipe()
    display = Display(history, Terminal(writing, CAPABLE), bar=True, eta=True, progress=True)
    display.opened(10, BEGIN)
    display.counted(counts(), BEGIN)
    display.closed(0, BEGIN)
    os.close(writing)
    assert os.read(reading, 1) == b""
    os.close(reading)


def test_the_latest_line_of_each_task_that_runs(history: History) -> None:
    for number, text in ((5, "half\x1b[2J"), (4, "ready"), (6, "")):
        running = attempt(number, worker="c@x")
        running.latest = partial(str, text)
        history.began(running, BEGIN + 3)
    with Screen(60, 6) as screen:
        display = Display(history, Terminal(screen.theirs, CAPABLE), bar=True, eta=False, progress=False, latest=True)
        display.opened(10, BEGIN)
        display.counted(counts(), BEGIN)
        first, second, bar = screen.lines()
    assert first.endswith(": ready") and second.endswith(": half\\x1b[2J") and bar.startswith("[###")
