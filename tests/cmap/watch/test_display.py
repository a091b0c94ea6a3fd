"""--bar, --eta, --progress, drawn with rich into memory."""

from __future__ import annotations

import io
import sys

import pytest

from cexec.cmap.watch.display import Display
from cexec.cmap.watch.history import History
from cexec.errors import UsageError
from tests.cmap.watch.watching import BEGIN, attempt, counts, play

rich = pytest.importorskip("rich.console")


def drawn(history: History, **options: bool) -> str:
    console = rich.Console(file=io.StringIO(), force_terminal=True, width=100, color_system=None)
    display = Display(history, **{"bar": False, "eta": False, "progress": False, **options}, console=console)
    display.opened(10, BEGIN)
    display.counted(counts(), BEGIN)
    display.closed(0, BEGIN)
    return str(console.file.getvalue())


@pytest.fixture
def history() -> History:
    history = History()
    play(history, {1: ("a@x", 0, 1, ""), 2: ("[bold]b@x\x1b[2J", 0, 2, "bad")})
    history.began(attempt(3, worker="a@x"), BEGIN + 2)
    history.counted(counts(done=2), BEGIN + 4)
    return history


def test_a_bar(history: History) -> None:
    assert "4/10 40% 1 failed" in drawn(history, bar=True)


def test_the_time_that_is_left(history: History) -> None:
    assert "12.0 s to go; 6 left, 0.5 tasks/s, 4.00 s so far" in drawn(history, eta=True)


def test_workers_without_their_escape_sequences(history: History) -> None:
    text = drawn(history, progress=True)
    assert "\x1b[2J" not in text.replace("\x1b[2K", "") and "[bold]b@x\\x1b[2J" in text
    assert "1/2" in text


def test_nobody_knows_how_many() -> None:
    history = History()
    play(history, {1: ("a@x", 0, 1, "")}, total=None)
    text = drawn(history, bar=True, eta=True)
    assert "1/?" in text and "the number of tasks that are left is not known yet" in text


def test_nothing_is_shown_elsewhere(history: History) -> None:
    console = rich.Console(file=io.StringIO(), force_terminal=False)
    display = Display(history, bar=True, eta=True, progress=True, console=console)
    display.opened(10, BEGIN)
    display.counted(counts(), BEGIN)
    display.closed(0, BEGIN)
    assert console.file.getvalue() == ""


def test_without_rich_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "rich"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "rich", None)
    with pytest.raises(UsageError, match=r"--eta needs .* rich.*cexec-cluster\[rich\]"):
        Display(History(), bar=False, eta=True, progress=True)
