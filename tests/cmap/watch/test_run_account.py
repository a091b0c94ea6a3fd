"""A run as its journal tells it: while it grows, after its end, resumed, and with what a stranger has written."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from cexec.cmap.results.journal import RESUME_FAILED, Journal, TaskClaim, TaskEnd
from cexec.cmap.results.outcome import TaskOutcome
from cexec.cmap.watch import run_account
from cexec.cmap.watch.explain import StatusNote
from cexec.cmap.watch.run_account import BUCKET, RATE_SPAN, RunAccount
from cexec.cmap.watch.work_sums import MOST_WORKERS, WorkSums
from cexec.errors import LocalError, UsageError
from tests.cmap.watch.journals import BEGUN, begin_task, end_task, write_journal
from tests.cmap.watch.watching import BEGIN, counts


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a state?"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    journal = Journal(str(path), "new", now=BEGUN, sync=False)
    yield journal
    if os.path.exists(f"{path}-lock"):
        journal.close()


def settle(journal: Journal, claim: TaskClaim, number: int, at: float) -> None:
    outcome = TaskOutcome(number, succeeded=True, command=str, worker="w@x", started=at - 1, runtime=1.0)
    journal.commit([TaskEnd(claim, outcome, [])])


def change(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        for statement in statements:
            database.execute(statement)


def test_a_run_that_is_over(path: Path) -> None:
    write_journal(path, [None, "no such scene", None])
    account = RunAccount(str(path))
    account.look(BEGUN + 100)
    figures = account.figures
    assert figures.counts == {"done": 2, "failed": 1, "running": 0, "waiting": 0} and figures.left == 0
    assert (figures.command, figures.host, figures.process, figures.runs) == ("cmap app.pub", "here", "", 1)
    assert (figures.started, figures.ended, figures.real, figures.cpu) == (BEGUN, BEGUN + 3, 1.5, 0.75)
    (work,) = account.workers
    assert (work.name, work.attempts, work.succeeded, work.real, work.cpu) == ("w@x", 3, 2, 1.5, 0.75)
    (row,) = account.failed(0, 10)
    assert (row.task, row.command, row.worker) == (2, "app.pub -- 2", "w@x")
    assert (row.reason, row.last_line, row.exitval) == ("exited with 4", "no such scene", 4)
    assert account.failed(2, 10) == []


def test_what_grows_is_read_without_reading_all_of_it_again(
    journal: Journal, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = RunAccount(str(path))
    note = StatusNote(journal, lambda: BEGUN + 1, weight=lambda: 7)
    note.counted(counts(total=4, waiting=3, running=1, paused=True, leases={"w@x": 1}), BEGIN)
    first, attempt = begin_task(journal, 1, at=BEGUN)
    journal.flush()
    account.look(BEGUN + 1)
    figures = account.figures
    assert figures.process and figures.paused and figures.weight == 7 and figures.total == 4
    assert figures.counts == {"done": 0, "failed": 0, "running": 1, "waiting": 3} and account.running == {1}
    assert account.workers[0].running == 1
    monkeypatch.setattr(WorkSums, "read_all", None)  # it reads all attempts
    # Its attempt has ended, and it is saved a moment later; another one has failed at a worker that is new.
    journal.end_attempt(attempt, "", BEGUN + 2, cpu=1.5)
    _, lost = begin_task(journal, 2, at=BEGUN, worker="v@y")
    journal.end_attempt(lost, "the worker was lost", BEGUN + 3)
    journal.flush()
    account.look(BEGUN + 3)
    assert figures.counts == {"done": 0, "failed": 0, "running": 0, "waiting": 4}
    settle(journal, first, 1, BEGUN + 2)
    end_task(journal, 3, "failed", at=BEGUN + 4)
    account.look(BEGUN + 10)
    assert account.figures.counts == {"done": 1, "failed": 1, "running": 0, "waiting": 2}
    assert [(one.name, one.succeeded, one.attempts) for one in account.workers] == [("v@y", 0, 1), ("w@x", 1, 2)]
    assert figures.cpu == 1.75 and account.tasks.codes(1, 4, 1) == "dwfw"
    assert account.rate(BEGUN + 10) == 2 / 10


def test_what_waits_at_a_worker_does_not_run(journal: Journal, path: Path) -> None:
    """A worker is given tasks in advance; cmap knows which ones have begun."""
    for number in (1, 2, 3):
        begin_task(journal, number, at=BEGUN, worker="w@x" if number < 3 else "v@y")
    journal.flush()
    account = RunAccount(str(path))
    account.look(BEGUN)
    assert account.running == {1, 2, 3}
    account.begun = frozenset({1, 99})
    account.look(BEGUN)
    assert account.figures.counts == {"done": 0, "failed": 0, "running": 1, "waiting": 2}
    assert account.tasks.codes(1, 3, 1, account.running) == "r2w"
    assert [(one.name, one.running) for one in account.workers] == [("w@x", 1)]


def test_a_task_that_was_being_saved_at_the_first_look_is_found_at_the_next(journal: Journal, path: Path) -> None:
    claim, attempt = begin_task(journal, 1, at=BEGUN)
    journal.end_attempt(attempt, "", BEGUN + 1)
    journal.flush()
    account = RunAccount(str(path))
    account.look(BEGUN + 1)
    settle(journal, claim, 1, BEGUN + 1)
    account.look(BEGUN + 2)
    assert account.figures.counts["done"] == 1


def test_an_attempt_that_was_too_late_counts_its_task_once(journal: Journal, path: Path) -> None:
    claim, fast = begin_task(journal, 1, at=BEGUN)
    journal.flush()
    account = RunAccount(str(path))
    account.look(BEGUN)
    journal.end_attempt(fast, "", BEGUN + 1)
    settle(journal, claim, 1, BEGUN + 1)
    account.look(BEGUN + 1)
    journal.end_attempt(journal.begin_attempt(claim, "v@y", BEGUN), "another attempt was faster", BEGUN + 2)
    journal.flush()
    account.look(BEGUN + 10)
    assert account.rate(BEGUN + 10) == 1 / 10


def test_the_rate_is_that_of_the_last_fifteen_minutes_of_the_latest_run(path: Path) -> None:
    write_journal(path, [None] * 30 + ["failed"])
    account = RunAccount(str(path))
    account.look(BEGUN + 31)
    assert account.rate(BEGUN + 31) == 1.0
    later = BEGUN + 20 + BUCKET + RATE_SPAN
    assert 0 < account.rate(later) <= 11 / RATE_SPAN
    assert account.rate(later + 30) == 0
    write_journal(path, [], mode=RESUME_FAILED, begun=BEGUN + 40)
    account.look(BEGUN + 41)
    assert account.rate(BEGUN + 41) == 0 and account.figures.runs == 2


def test_a_run_that_goes_on_in_another_one(path: Path) -> None:
    """What was running when cmap was killed waits; a row of the latest run is as that says."""
    journal = Journal(str(path), "new", now=BEGUN, sync=False)
    begin_task(journal, 1, at=BEGUN)
    end_task(journal, 2, "failed", at=BEGUN + 1)
    journal.flush()
    account = RunAccount(str(path))
    account.look(BEGUN + 2)
    assert account.running == {1}
    journal.close()
    account.look(BEGUN + 3)
    assert account.running == set() and account.figures.counts == {"done": 0, "failed": 1, "running": 0, "waiting": 1}
    again = Journal(str(path), RESUME_FAILED, now=BEGUN + 10, sync=False)
    end_task(again, 2, None, at=BEGUN + 11)
    account.look(BEGUN + 12)
    assert account.running == set() and account.figures.counts == {"done": 1, "failed": 0, "running": 0, "waiting": 1}
    again.close()


def test_a_row_is_what_the_latest_run_has_there(path: Path) -> None:
    """Other inputs have come into the rows of the table since."""
    first = Journal(str(path), "new", now=BEGUN, sync=False)
    end_task(first, 1, "old", at=BEGUN + 1, key=b"y")
    end_task(first, 2, None, at=BEGUN + 2, key=b"z")
    first.close()
    second = Journal(str(path), RESUME_FAILED, now=BEGUN + 10, sync=False)
    end_task(second, 1, "new", at=BEGUN + 11, key=b"a")
    end_task(second, 2, "worse", at=BEGUN + 12, key=b"b")
    second.close()
    account = RunAccount(str(path))
    account.look(BEGUN + 13)
    assert account.tasks.codes(1, 2, 1) == "2f"
    assert [row.last_line for row in account.failed(0, 10)] == ["new", "worse"]


def test_the_memory_of_the_map_can_be_given_back(path: Path) -> None:
    write_journal(path, [None, "failed"])
    account = RunAccount(str(path))
    account.look(BEGUN + 3)
    account.forget()
    assert len(account.tasks) == 0 and account.figures.counts["done"] == 1 and account.rate(BEGUN + 4) == 0.5
    account.look(BEGUN + 4)
    assert len(account.tasks) == 2 and account.rate(BEGUN + 4) == 0.5


@pytest.mark.parametrize("version", [1, 2])
def test_older_journals_are_told_with_less(path: Path, version: int) -> None:
    if version == 1:
        shutil.copyfile(Path(__file__).parent.parent / "results" / "journal-0.1.0.sqlite", path)
    else:
        write_journal(path, [None, "failed"])
        lost = ("run DROP COLUMN command", "run DROP COLUMN host", "attempt DROP COLUMN cpu", "task DROP COLUMN said")
        change(path, *(f"ALTER TABLE {one}" for one in lost), "PRAGMA user_version=2")
    account = RunAccount(str(path))
    account.look(BEGUN + 3)
    assert sum(account.figures.counts.values()) >= 2 and account.figures.command == "" and account.figures.cpu is None
    assert all(row.last_line is None and row.reason for row in account.failed(0, 10))
    Journal(str(path), "--resume", now=BEGUN + 5).close()  # it becomes one of today's
    account.look(BEGUN + 6)
    assert account.figures.runs >= 2
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (3,)


STRANGE = ("'a text'", "NULL", "x'ff00'", "9e999", "-1", "4611686018427387904")


@pytest.mark.parametrize("value", STRANGE)
@pytest.mark.parametrize("table", ["run", "task", "attempt"])
def test_values_of_a_stranger_hurt_nobody(path: Path, table: str, value: str) -> None:
    write_journal(path, [None, "failed"])
    with closing(sqlite3.connect(path)) as database:
        columns = [row[1] for row in database.execute(f"PRAGMA table_info({table})") if not row[5]]
    for column in columns:
        change(path, f"UPDATE {table} SET {column} = {value}")
    account = RunAccount(str(path))
    account.look(BEGUN + 3)
    account.rate(BEGUN + 3)
    account.failed(0, 10)
    assert len(account.workers) <= 1 and len(account.tasks.codes(1, 100, 1)) < 10


def test_texts_that_are_no_utf_8_are_shown_all_the_same(path: Path) -> None:
    write_journal(path, ["failed"])
    change(path, "UPDATE task SET said = CAST(x'61ff62' AS TEXT), command = x'63ff'")
    account = RunAccount(str(path))
    account.look(BEGUN + 3)
    (row,) = account.failed(0, 1)
    assert (row.last_line, row.command) == ("a\N{REPLACEMENT CHARACTER}b", "c\N{REPLACEMENT CHARACTER}")


def test_a_journal_that_would_be_read_for_ever_is_refused_or_given_up(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_journal(path, ["failed"])
    account = RunAccount(str(path))
    monkeypatch.setattr(run_account, "STEPS", 10)
    with pytest.raises(LocalError, match="takes longer than 0 seconds"):
        account.look(BEGUN, patience=0.0)
    endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x, x, x, x, x, x, x, x, x FROM n"
    change(path, "DROP TABLE attempt", f"CREATE VIEW attempt AS {endless}")
    with pytest.raises(UsageError, match="is no journal of cmap"):
        account.look(BEGUN)


def test_very_many_workers_are_counted(path: Path) -> None:
    journal = Journal(str(path), "new", now=BEGUN, sync=False)
    for number in range(1, MOST_WORKERS + 12):
        end_task(journal, number, None, at=BEGUN + 1, worker=f"w{number}@x")
    journal.close()
    account = RunAccount(str(path))
    account.look(BEGUN + 2)
    assert (len(account.workers), account.more_workers) == (MOST_WORKERS, 11)
    assert account.figures.cpu == 0.25 * (MOST_WORKERS + 11)
    sums = WorkSums()
    for number in range(MOST_WORKERS + 1):
        sums.add(f"w{number}", BEGUN, BEGUN + 1, 1, None)
    assert len(sums.ordered(["another"])) == MOST_WORKERS and sums.real == MOST_WORKERS + 1


def test_a_journal_that_has_gone_is_said_so(path: Path) -> None:
    with pytest.raises(UsageError, match="there is no journal"):
        RunAccount(str(path)).look(BEGUN)
