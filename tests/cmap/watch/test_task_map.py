"""The map of a run's tasks: states, counts and cells."""

from __future__ import annotations

from cexec.cmap.results.journal_format import DONE, FAILED, WAITING
from cexec.cmap.watch.task_map import MOST_TASKS, TaskMap


def made(states: str, total: int = 0) -> TaskMap:
    """A map of rows from 1: d done, f failed, w waiting, a space for none of the journal's."""
    found = TaskMap()
    for number, letter in enumerate(states, 1):
        if letter != " ":
            found.set(number, {"d": DONE, "f": FAILED, "w": WAITING}[letter])
    found.expect(total)
    return found


def test_states_that_are_alike_are_told_together() -> None:
    tasks = made("dddfwwd", 7)
    assert tasks.codes(1, 7, 1) == "3df2wd"
    assert tasks.codes(3, 2, 1) == "df"
    assert tasks.codes(3, 2, 1, running={5, 3}) == "df"  # what is over does not run
    assert tasks.codes(1, 7, 1, running={5, 6, 99}) == "3df2rd"


def test_a_cell_shows_what_is_the_matter_with_any_of_its_tasks() -> None:
    assert made("dddwddfwdd", 10).codes(1, 10, 3, running={8}) == "dwfd"
    assert made("ddwwddddd", 9).codes(1, 9, 3, running={4}) == "wrd"


def test_rows_whose_turn_has_not_come_wait() -> None:
    """All rows of a table are tasks, in any order; which rows a run of some (--rows) has is not known before."""
    assert made("d  d", 6).codes(1, 6, 1) == "d2wd2w" and made("d  d", 6).counts()["waiting"] == 4
    assert made("d  d", 6).codes(1, 6, 1, {5}) == "d2wdrw"  # the journal does not know it yet
    assert made("d  d", 6).counts({5, 7})["waiting"] == 3 and made("d ").counts({2})["waiting"] == 0
    of_some = made("   d d", 4)
    assert of_some.codes(1, 6, 1) == "3ndnd" and of_some.counts() == {
        "done": 2,
        "failed": 0,
        "running": 0,
        "waiting": 2,
    }
    assert made("d  d").codes(1, 4, 1) == "d2nd"  # nobody knows how many there are


def test_counts_are_those_of_the_map() -> None:
    tasks = made("dfwwd", 5)
    assert tasks.counts({3}) == {"done": 2, "failed": 1, "running": 1, "waiting": 1}
    assert not tasks.set(1, DONE) and tasks.set(3, FAILED)
    assert tasks.failed(0, 10) == [2, 3] and tasks.failed(2, 10) == [3] and tasks.failed(0, 1) == [2]
    assert tasks.failed(99, 10) == []


def test_a_stranger_cannot_make_it_large() -> None:
    tasks = made("d", 1 << 53)
    assert len(tasks) == MOST_TASKS
    assert tasks.counts()["waiting"] == (1 << 53) - 1
    small = made("d")
    for number in (0, -1, MOST_TASKS + 1, 1 << 62, "2", None, 2.0):
        assert not small.set(number, DONE)
    assert len(small) == 1
    small.set(2, "a text")
    assert small.codes(1, 2, 1) == "dw"
