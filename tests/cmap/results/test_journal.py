"""What a journal knows, and who may use it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cexec.cmap.results.journal import (
    NEW,
    RESUME,
    RESUME_FAILED,
    RETRY_FAILED,
    Journal,
    TaskClaim,
    TaskEnd,
    TaskIdentity,
)
from cexec.cmap.results.outcome import TaskOutcome
from cexec.errors import LocalError, UsageError

Open = Callable[..., Journal]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def opened(path: Path) -> Iterator[Open]:
    """Opens the journal; what a test has not closed is as if its process had been killed."""
    journals: list[Journal] = []

    def open_journal(mode: str = NEW, **options: bool) -> Journal:
        for journal in journals:
            journal.abandon()
        journals.append(Journal(str(path), mode, now=1000.0, **options))
        return journals[-1]

    yield open_journal
    for journal in journals:
        journal.abandon()


def identity(number: int, stamp: str = "", row: int | None = None) -> TaskIdentity:
    return TaskIdentity(number.to_bytes(16, "big"), number if row is None else row, stamp)


def outcome(number: int, *, succeeded: bool = True, **values: object) -> TaskOutcome:
    return TaskOutcome(number, succeeded=succeeded, command=str, **values)  # type: ignore[arg-type]


def claim(journal: Journal, number: int) -> TaskClaim:
    found = journal.claim(identity(number), f"command {number}")
    assert found is not None
    return found


def settle(journal: Journal, number: int, *, succeeded: bool = True) -> None:
    journal.commit([TaskEnd(claim(journal, number), outcome(number, succeeded=succeeded), [])])


def wanted(journal: Journal, numbers: range) -> list[int]:
    return [number for number in numbers if journal.claim(identity(number), "")]


def test_a_new_journal_wants_everything(opened: Open) -> None:
    journal = opened()
    assert wanted(journal, range(3)) == [0, 1, 2]
    assert journal.counts() == (0, 0)
    assert not journal.is_done(identity(0))


def three_tasks(opened: Open) -> None:
    """1 has succeeded, 2 has failed, 3 was not finished, 4 was never begun."""
    journal = opened()
    settle(journal, 1)
    settle(journal, 2, succeeded=False)
    claim(journal, 3)
    journal.flush()


@pytest.mark.parametrize(("mode", "numbers"), [(RESUME, [3, 4]), (RESUME_FAILED, [2, 3, 4]), (RETRY_FAILED, [2])])
def test_what_the_next_run_does(opened: Open, mode: str, numbers: list[int]) -> None:
    three_tasks(opened)
    journal = opened(mode)
    assert journal.counts() == (1, 1)
    assert [journal.is_done(identity(number)) for number in range(1, 5)] == [True, False, False, False]
    assert wanted(journal, range(1, 5)) == numbers


def test_a_journal_that_knows_tasks_is_not_used_by_mistake(opened: Open, path: Path) -> None:
    three_tasks(opened)
    with pytest.raises(UsageError, match="knows 1 finished and 1 failed tasks; add --resume"):
        opened(NEW)
    assert not path.with_name("state-lock").exists()


def test_a_journal_in_which_nothing_has_ended_may_be_used_again(opened: Open) -> None:
    journal = opened()
    claim(journal, 1)
    journal.close()
    assert wanted(opened(), range(1, 3)) == [1, 2]


def test_a_failed_task_that_succeeds_later_is_finished(opened: Open) -> None:
    three_tasks(opened)
    settle(opened(RETRY_FAILED), 2)
    journal = opened(RESUME_FAILED)
    assert journal.counts() == (2, 0)
    assert wanted(journal, range(1, 4)) == [3]


def test_equal_tasks_are_told_apart_by_their_number(opened: Open) -> None:
    journal = opened()
    for number in (5, 6):
        found = journal.claim(identity(9, row=number), "same")
        assert found is not None
        journal.commit([TaskEnd(found, outcome(number), [])])
    assert journal.claim(identity(9, row=7), "same") is not None
    journal.flush()
    resumed = opened(RESUME)
    assert [resumed.claim(identity(9, row=number), "same") is not None for number in range(4)] == [
        False,
        False,
        True,
        True,
    ]
    assert resumed.counts() == (2, 0)


def test_a_task_is_known_whatever_its_number_is_now(opened: Open) -> None:
    settle(opened(), 1)
    assert opened(RESUME).claim(identity(1, row=77), "") is None


def test_retrying_needs_a_journal(opened: Open, path: Path) -> None:
    with pytest.raises(UsageError, match="--retry-failed needs the journal of an earlier run, but there is no "):
        opened(RETRY_FAILED)
    assert not path.exists()
    assert wanted(opened(RESUME), range(2)) == [0, 1]


def test_a_second_coordinator_is_told(path: Path) -> None:
    first = Journal(str(path), NEW, now=0.0)
    with pytest.raises(UsageError, match="is in use by process"):
        Journal(str(path), RESUME, now=0.0)
    first.close()
    Journal(str(path), RESUME, now=0.0).close()
    assert not path.with_name("state-lock").exists()


def test_a_reader_needs_no_lock_and_sees_what_was_committed(opened: Open, path: Path) -> None:
    journal = opened()
    settle(journal, 1)
    with sqlite3.connect(path) as reader:
        assert reader.execute("SELECT number, state, command FROM task").fetchall() == [(1, 1, "command 1")]
        attempt = journal.begin_attempt(claim(journal, 2), "w1", 5.0)
        journal.end_attempt(attempt, "lost", 6.0)
        journal.flush()
        assert reader.execute("SELECT worker, started, ended, reason FROM attempt").fetchall() == [("w1", 5, 6, "lost")]


def test_everything_about_an_outcome_is_kept(opened: Open, path: Path) -> None:
    journal = opened()
    values = {"started": 1.5, "runtime": 2.5, "sent": 3, "received": 4, "exitval": 5, "signal": 6, "reason": "why"}
    told = outcome(3, succeeded=False, worker="w@h", **values)
    journal.commit([TaskEnd(claim(journal, 3), told, [])])
    query = "SELECT state, worker, started, runtime, sent, received, exitval, signal, reason FROM task"
    with sqlite3.connect(path) as reader:
        assert reader.execute(query).fetchall() == [(2, "w@h", 1.5, 2.5, 3, 4, 5, 6, "why")]


def test_the_token_is_the_same_in_all_runs(opened: Open) -> None:
    first = opened().token
    assert len(first) == 16
    assert opened(RESUME).token == first


@pytest.mark.parametrize("content", [b"no database\n" * 100, b"x"])
def test_another_file_is_not_touched(opened: Open, path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(UsageError, match="is no journal"):
        opened()
    assert path.read_bytes() == content
    assert not path.with_name("state-lock").exists()


def test_another_database_is_not_touched(opened: Open, path: Path) -> None:
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE theirs (x)")
    other.close()
    before = path.read_bytes()
    with pytest.raises(UsageError, match="is no journal of this version of cmap"):
        opened()
    assert path.read_bytes() == before


def test_a_journal_of_another_version_is_told(opened: Open, path: Path) -> None:
    opened().close()
    with sqlite3.connect(path) as other:
        other.execute("PRAGMA user_version=99")
    other.close()
    with pytest.raises(UsageError, match="is no journal of this version"):
        opened(RESUME)


def test_a_directory_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot write .*no/state: no such file or directory"):
        Journal(str(tmp_path / "no" / "state"), NEW, now=0.0)


def test_a_journal_that_cannot_be_written_is_told(opened: Open) -> None:
    journal = opened()
    journal.store.database.execute("PRAGMA query_only=ON")
    with pytest.raises(LocalError, match=r"cannot use the journal .*: attempt to write a readonly database"):
        settle(journal, 1)
