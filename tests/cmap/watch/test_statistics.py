"""The lines at the end of a run."""

from __future__ import annotations

from cexec.cmap.watch.history import History
from cexec.cmap.watch.statistics import MOST_LINES, statistics
from tests.cmap.watch.watching import BEGIN, counts, play


def test_who_did_what_and_what_failed() -> None:
    history = History()
    play(history, {1: ("a@x", 0, 2, ""), 2: ("bb@x", 0, 4, "exited with 3")}, total=6)
    history.counted(counts(done=3, succeeded_before=1, failed_before=2), BEGIN + 4)
    assert statistics(history) == [
        "1 task succeeded, 1 in earlier runs, 1 failed, 2 in earlier runs, 1 not done; 4.00 s, 0.5 tasks/s",
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
