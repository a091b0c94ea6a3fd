"""The lines at the end, and the words for numbers."""

from __future__ import annotations

import pytest

from cexec.cmap.watch.history import History
from cexec.cmap.watch.statistics import MOST_LINES, statistics
from cexec.cmap.wording import duration, size
from tests.cmap.watch.watching import BEGIN, counts, play


def test_who_did_what_and_what_failed() -> None:
    history = History()
    play(history, {1: ("a@x", 0, 2, ""), 2: ("bb@x", 0, 4, "exited with 3")}, total=4)
    history.counted(counts(done=1), BEGIN + 4)
    assert statistics(history) == [
        "1 task succeeded, 1 in earlier runs, 1 failed, 1 not done; 4.00 s, 0.5 tasks/s",
        "worker  done  failed  lost  refused    mean  tasks/s  busy  output",
        "a@x        1       0     0        0  2.00 s     0.25   50%   500 B",
        "bb@x       0       1     0        0       -        0  100%   500 B",
        "task 2 (input 2) failed on bb@x: exited with 3",
    ]


def test_many_failures_are_not_all_named() -> None:
    history = History()
    play(history, {number: ("a@x", 0, 1, "bad") for number in range(MOST_LINES + 3)})
    assert statistics(history)[-1].startswith("and 3 more failed")


def test_nothing_was_done() -> None:
    assert len(statistics(History())) == 1


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.004, "0.00 s"), (1.25, "1.25 s"), (12.34, "12.3 s"), (59.97, "1 min 00 s"), (125, "2 min 05 s"),
     (3599.6, "1 h 00 min"), (7 * 3600 + 60, "7 h 01 min"), (100 * 3600, "4 d 04 h")],
)  # fmt: skip
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("number", "words"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (1536, "1.54 kB"), (123456, "123 kB"), (10**15, "1e+03 TB")],
)
def test_sizes(number: int, words: str) -> None:
    assert size(number) == words
