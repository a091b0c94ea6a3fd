"""What a journal knows, and who may use it."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cexec.cmap.inputs.tables import Words
from cexec.cmap.inputs.task_plan import Plan, Work
from cexec.cmap.results.appending import Place
from cexec.cmap.results.journal import (
    MOST_UNWRITTEN,
    NEW,
    RESUME,
    RESUME_FAILED,
    RETRY_FAILED,
    Journal,
    TaskClaim,
    TaskEnd,
    TaskIdentity,
)
from cexec.cmap.results.journal_format import DONE, FAILED, WAITING, shown
from cexec.cmap.results.journal_store import PATIENCE
from cexec.cmap.results.outcome import TaskOutcome
from cexec.cmap.results.renames import Rename
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


def identity(number: int, stamp: str = "", row: int | None = None, place: str = "") -> TaskIdentity:
    return TaskIdentity(number.to_bytes(16, "big"), number if row is None else row, stamp, place)


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


@pytest.mark.parametrize(
    ("mode", "numbers", "passed_over"),
    [
        (RESUME, [3, 4], {WAITING: 0, DONE: 1, FAILED: 1}),
        (RESUME_FAILED, [2, 3, 4], {WAITING: 0, DONE: 1, FAILED: 0}),
        (RETRY_FAILED, [2], {WAITING: 2, DONE: 1, FAILED: 0}),
    ],
)
def test_what_the_next_run_does(opened: Open, mode: str, numbers: list[int], passed_over: dict[int, int]) -> None:
    three_tasks(opened)
    journal = opened(mode)
    assert journal.counts() == (1, 1)
    assert [journal.is_done(identity(number)) for number in range(1, 5)] == [True, False, False, False]
    assert wanted(journal, range(1, 5)) == numbers
    assert journal.passed_over == passed_over


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


# inputs that change, rows that move


def test_a_failed_task_whose_input_was_mended_is_the_same_task(opened: Open) -> None:
    journal = opened()
    found = journal.claim(identity(1, "old"), "")
    assert found is not None
    journal.commit([TaskEnd(found, outcome(1, succeeded=False), [])])
    again = opened(RETRY_FAILED)
    found = again.claim(identity(1, "new"), "")
    assert found is not None
    again.commit([TaskEnd(found, outcome(1), [])])
    assert again.counts() == (1, 0)
    assert again.failed_and_not_claimed() == []


@pytest.mark.parametrize(("mode", "runs"), [(RESUME, True), (RESUME_FAILED, True), (RETRY_FAILED, False)])
def test_a_task_that_is_done_and_whose_input_has_changed(opened: Open, mode: str, runs: bool) -> None:
    journal = opened()
    found = journal.claim(identity(1, "old"), "")
    assert found is not None
    journal.commit([TaskEnd(found, outcome(1), [])])
    again = opened(mode)
    assert [again.is_done(identity(1, stamp)) for stamp in ("old", "new")] == [True, False]
    assert (again.claim(identity(1, "new"), "") is not None) == runs
    again.flush()
    assert opened(RESUME).is_done(identity(1, "old")) != runs  # what runs again is not done until it is


def test_a_failed_task_that_is_no_row_any_more_is_named(opened: Open) -> None:
    three_tasks(opened)
    assert opened(RESUME_FAILED).failed_and_not_claimed() == []
    again = opened(RETRY_FAILED)
    assert wanted(again, range(3, 5)) == []
    assert again.failed_and_not_claimed() == [2]


def test_equal_tasks_keep_their_rows_whatever_the_order(opened: Open) -> None:
    journal = opened()
    for number in (2, 1):  # --order random
        found = journal.claim(identity(9, row=number), "same")
        assert found is not None
        if number == 2:
            journal.commit([TaskEnd(found, outcome(number), [])])
    journal.flush()
    again = opened(RESUME)
    assert [again.claim(identity(9, row=number), "") is not None for number in (1, 2)] == [True, False]


def test_a_task_is_done_where_its_results_have_their_names(opened: Open) -> None:
    journal = opened()
    for task in [identity(1, row=row, place=place) for row, place in enumerate("xy", 1)]:
        found = journal.claim(task, "")
        assert found is not None
        journal.commit([TaskEnd(found, outcome(task.number), [])])
    again = opened(RESUME)
    moved = [identity(1, row=row, place=place) for row, place in enumerate("yzx", 1)]
    assert [again.is_done(task) for task in moved] == [True, False, True]
    assert [again.claim(task, "") is None for task in moved] == [True, False, True]


@pytest.mark.parametrize(("numbered", "done"), [(True, [True, False]), (False, [True, True])])
def test_a_row_of_0_1_0_that_has_moved(old: Path, opened: Open, numbered: bool, done: list[bool]) -> None:
    a = old_identities()[0]
    journal = opened(RESUME, numbered=numbered)
    rows = [TaskIdentity(a.key, number, a.stamp, "place", a.old_key) for number in (1, 2)]
    assert [journal.is_done(row) for row in rows] == done


# once


def once_attempt(journal: Journal, number: int) -> int:
    return journal.begin_attempt(claim(journal, number), "w", 1.0, once=True)


def test_what_a_worker_that_must_not_repeat_it_may_have_begun_is_left_and_named(opened: Open) -> None:
    journal = opened()
    once_attempt(journal, 1)  # nothing else is written: it is on disk already
    again = opened(RESUME)
    assert wanted(again, range(1, 3)) == [2]
    assert again.left == [1]
    again.flush()
    assert wanted(opened(RESUME), range(1, 2)) == []
    assert wanted(opened(RESUME, repeat_once=True), range(1, 2)) == [1]


def test_an_attempt_that_such_a_worker_refused_may_be_repeated(opened: Open) -> None:
    journal = opened()
    journal.end_attempt(once_attempt(journal, 1), "refused", 2.0, begun=False)
    journal.end_attempt(once_attempt(journal, 2), "lost", 2.0)
    journal.flush()
    assert wanted(opened(RESUME), range(1, 3)) == [1]


@pytest.mark.parametrize("mode", [RESUME_FAILED, RETRY_FAILED])
def test_what_has_failed_at_such_a_worker_is_left_too(opened: Open, mode: str) -> None:
    journal = opened()
    found = claim(journal, 1)
    journal.end_attempt(journal.begin_attempt(found, "w", 1.0, once=True), "exited with 1", 2.0)
    journal.commit([TaskEnd(found, outcome(1, succeeded=False), [])])
    again = opened(mode)
    assert (wanted(again, range(1, 2)), again.left) == ([], [1])
    assert wanted(opened(mode, repeat_once=True), range(1, 2)) == [1]


def test_such_an_attempt_is_on_disk_when_it_has_been_written(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = opened()
    written: list[bool] = []
    write = journal.store.write

    def noted(changes: Any, *, durable: bool, order: Any) -> None:
        written.append(durable)
        write(changes, durable=durable, order=order)

    monkeypatch.setattr(journal.store, "write", noted)
    journal.begin_attempt(claim(journal, 1), "w", 1.0)
    assert written == []
    once_attempt(journal, 2)
    assert written == [True]


# what a journal takes

STRANGE = ["caf\udce9", "half a character \ud800", "NUL \0 in it", "\u2028 \x1b[2J", "", "x" * 5000]


@pytest.mark.parametrize("text", STRANGE)
def test_a_journal_takes_any_text(opened: Open, path: Path, text: str) -> None:
    journal = opened()
    found = journal.claim(identity(1), text)
    assert found is not None
    journal.end_attempt(journal.begin_attempt(found, text, 1.0), text, 2.0)
    renames = [Rename(f"/tmp/{text}", f"/tmp/{text}", 1, 1)]
    journal.commit([TaskEnd(found, outcome(1, worker=text, reason=text), renames)])
    journal.intend([Place(f"/tmp/{text}", 1, 2, 3)])
    with sqlite3.connect(path) as reader:
        values = reader.execute("SELECT command, worker, reason FROM task").fetchone()
    expected = text.replace("\ud800", "?")
    assert [shown(value) for value in values] == [expected] * 3
    opened(RESUME).close()


def test_a_symbolic_link_is_the_same_journal(opened: Open, path: Path) -> None:
    link = path.with_name("link")
    link.symlink_to(path)
    journal = opened()
    settle(journal, 1)
    with pytest.raises(UsageError, match="is in use by process"):
        Journal(str(link), RESUME, now=0.0)
    journal.close()
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["link", "state"]
    through = Journal(str(link), RESUME, now=0.0)
    assert through.counts() == (1, 0)
    with pytest.raises(UsageError, match="is in use by process"):
        Journal(str(path), RESUME, now=0.0)
    through.close()
    assert link.is_symlink()


def test_a_foreign_lock_is_waited_for(path: Path) -> None:
    journal = Journal(str(path), NEW, now=0.0)
    found = claim(journal, 1)
    journal.flush()
    foreign = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    foreign.execute("BEGIN IMMEDIATE")
    waiting = threading.Thread(target=journal.commit, args=([TaskEnd(found, outcome(1), [])],))
    waiting.start()
    assert claim(journal, 2)  # the coordinator goes on meanwhile
    assert journal.counts() == (0, 0)
    assert waiting.is_alive()
    foreign.execute("ROLLBACK")
    waiting.join(60)
    assert journal.counts() == (1, 0)
    journal.close()
    foreign.close()


def test_a_foreign_lock_without_end_is_told(path: Path) -> None:
    assert PATIENCE > 30
    journal = Journal(str(path), NEW, now=0.0, patience=0.05)
    found = claim(journal, 1)
    journal.flush()
    with closing(sqlite3.connect(path, isolation_level=None)) as foreign:
        foreign.execute("BEGIN EXCLUSIVE")
        with pytest.raises(LocalError, match=r"cannot use the journal .*: database is locked"):
            journal.commit([TaskEnd(found, outcome(1), [])])
        foreign.execute("ROLLBACK")
    journal.commit([TaskEnd(found, outcome(1), [])])
    journal.close()


# threads


def test_claims_go_on_while_another_thread_writes(opened: Open) -> None:
    """Equal tasks are told apart whether or not those before them have been written."""
    journal = opened()
    done = threading.Event()

    def write() -> None:
        while not done.is_set():
            journal.flush()

    writer = threading.Thread(target=write)
    writer.start()
    found = [journal.claim(identity(number % 3, row=number), "") for number in range(600)]
    done.set()
    writer.join()
    journal.flush()
    assert len(set(found)) == 600 and None not in found
    assert journal.store.read("SELECT count(*), count(DISTINCT key), max(occurrence) FROM task") == [(600, 3, 199)]


def test_many_changes_take_few_statements_and_little_memory(opened: Open, path: Path) -> None:
    journal = opened()
    statements: list[str] = []
    journal.store.database.set_trace_callback(statements.append)
    ends = []
    for number in range(256):
        found = claim(journal, number)
        journal.end_attempt(journal.begin_attempt(found, "w", 1.0), "", 2.0)
        ends.append(TaskEnd(found, outcome(number), [Rename(f"{number}.tmp", str(number), 1, 1)]))
    journal.commit(ends)
    journal.settle(end.claim for end in ends)
    assert len(statements) < 60
    assert journal.counts() == (256, 0)
    assert journal.store.read("SELECT count(*), sum(ended), (SELECT count(*) FROM pending) FROM attempt") == [
        (256, 512.0, 0)
    ]
    statements.clear()
    for number in range(1000, 1000 + MOST_UNWRITTEN):
        claim(journal, number)
    assert statements  # more are not kept in memory
    journal.store.database.set_trace_callback(None)


# journals of 0.1.0

RECORDED = Path(__file__).with_name("journal-0.1.0.sqlite")  # made by that version's cmap
FINGERPRINT = b"6496-3f8a"


@pytest.fixture
def old(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`cmap --stdin '{}.in' --halt now,fail=1 app.pub -- {} ::: a b c d`, of which c failed and d was not finished."""
    monkeypatch.chdir(tmp_path)
    for name in "abcd":
        Path(f"{name}.in").write_text(f"input {name}\n")
        os.utime(f"{name}.in", ns=(10**18, 10**18))
    shutil.copyfile(RECORDED, path)
    return path


def old_identities() -> list[TaskIdentity]:
    plan = Plan(Work(arguments=["{}"], stdin="{}.in"), Words(list("abcd")))
    tasks = [plan.task(number) for number in range(1, 5)]
    return [
        TaskIdentity(task.key(FINGERPRINT), task.number, task.stamp(), "", partial(task.old_key, FINGERPRINT))
        for task in tasks
    ]


@pytest.mark.parametrize(("mode", "numbers"), [(RESUME, [4]), (RESUME_FAILED, [3, 4]), (RETRY_FAILED, [3])])
def test_a_journal_of_0_1_0_is_read(old: Path, opened: Open, mode: str, numbers: list[int]) -> None:
    journal = opened(mode)
    assert journal.token == "fe1b460f934cac91"
    assert journal.counts() == (2, 1)
    assert [journal.is_done(task) for task in old_identities()] == [True, True, False, False]
    assert [task.number for task in old_identities() if journal.claim(task, "")] == numbers
    journal.flush()
    again = opened(RESUME)
    assert again.counts() == (2, 1)
    Path("a.in").write_text("changed")
    assert [again.is_done(task) for task in old_identities()] == [False, True, False, False]
    assert again.store.read("SELECT count(*) FROM attempt JOIN task USING (key, occurrence)") == [(4,)]


def test_a_mended_input_of_a_journal_of_0_1_0_is_told(old: Path, opened: Open) -> None:
    Path("c.in").write_text("mended")
    journal = opened(RETRY_FAILED)
    assert not [task.number for task in old_identities() if journal.claim(task, "")]
    assert journal.failed_and_not_claimed() == [3]


def test_what_0_1_0_left_in_the_middle_is_completed(old: Path, opened: Open) -> None:
    Path("out").write_bytes(b"kept, gone")
    Path("a.tmp").write_bytes(b"result of a")
    status = os.stat("out")
    places = [[str(old.with_name("out")), status.st_dev, status.st_ino, 4]]
    with closing(sqlite3.connect(old)) as database, database:
        for number, told, names in (
            (1, [], ["a.tmp", "a.out"]),
            (2, [], ["b.tmp", "b.out"]),
            (3, places, []),
        ):
            renames = json.dumps([[str(old.with_name(name)) for name in names]]) if names else None
            database.execute(
                "INSERT INTO pending SELECT key, occurrence, ?, ? FROM task WHERE number = ?",
                (json.dumps(told), renames, number),
            )
    journal = opened(RESUME)
    assert Path("out").read_bytes() == b"kept"
    assert Path("a.out").read_bytes() == b"result of a"
    assert journal.counts() == (1, 1)  # the result of b is not there
    opened(RESUME).close()


@pytest.mark.parametrize(
    "told",
    [
        "{", "5", "null", '[["a"]]', '[["a", "b", null, null]]', '[["a", "b", 1]]', '[[1, 2, 3, 4]]',
        '[["a\\u0000", "b", 1, 2]]', '[["\\ud800", "b", 1, 2]]', "[" * 100_000,
    ],
)  # fmt: skip
def test_a_row_that_cannot_be_understood_keeps_no_journal_from_being_opened(
    opened: Open, path: Path, told: str
) -> None:
    """Regression, found while fuzzing: the run ended with a traceback.  Its task is to be run again."""
    journal = opened()
    settle(journal, 1)
    settle(journal, 2)
    journal.close()
    with sqlite3.connect(path) as database:
        database.execute("INSERT INTO pending SELECT key, occurrence, ? FROM task WHERE number = 1", (told,))
    database.close()
    assert wanted(opened(RESUME), range(1, 3)) == [1]
