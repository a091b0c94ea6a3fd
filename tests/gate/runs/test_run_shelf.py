"""Journals are read again where they have changed, in bounded time and memory."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cexec.cmap.results.journal import Journal
from cexec.cmap.watch.run_account import RunAccount
from cexec.gate.problem import Problem
from cexec.gate.runs import run_shelf
from cexec.gate.runs.run_documents import RunStanding, run_document, state_of
from cexec.gate.runs.run_shelf import RunBook, RunShelf
from tests.cmap.watch.journals import BEGUN, end_task, write_journal


class Shelf:
    """A shelf whose clock stands still; `looks` counts the looks at journals, each of which takes `cost` seconds."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.looks = 0
        self.cost = 0.0
        self.shelf = RunShelf([str(directory)], wall=lambda: BEGUN + 100, monotonic=lambda: self.now)
        look = RunAccount.look

        def counted(account: RunAccount, now: float, patience: float) -> None:
            self.looks += 1
            self.now += self.cost
            look(account, now)

        monkeypatch.setattr(RunAccount, "look", counted)

    def books(self, later: float = 1.0, budget: float = 1.0) -> dict[str, RunBook]:
        self.now += later
        self.shelf.look(budget)
        return {book.file.name: book for book in self.shelf.books.values()}


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shelf:
    return Shelf(tmp_path, monkeypatch)


def test_only_what_has_changed_is_read_again(shelf: Shelf, tmp_path: Path) -> None:
    write_journal(tmp_path / "over", [None])
    running = Journal(str(tmp_path / "running"), "new", now=BEGUN, sync=False)
    books = shelf.books()
    assert state_of(books["over"]) is RunStanding.DONE and state_of(books["running"]) is RunStanding.RUNNING
    assert shelf.looks == 2
    shelf.books()
    assert shelf.looks == 2
    end_task(running, 1, "failed", at=BEGUN + 1)
    running.flush()
    assert shelf.books()["running"].account.figures.counts["failed"] == 1
    assert shelf.looks == 3
    running.close()
    assert state_of(shelf.books()["running"]) is RunStanding.DONE


def test_what_takes_long_is_read_seldom_and_one_answer_waits_for_a_part(shelf: Shelf, tmp_path: Path) -> None:
    for name in "abc":
        write_journal(tmp_path / name, [None])
    shelf.cost = 0.6
    books = shelf.books(budget=1.0)
    assert shelf.looks == 2 and [state_of(book) for book in books.values()].count(RunStanding.UNREAD) == 1
    unread = next(book for book in books.values() if not book.known)
    assert run_document(unread, BEGUN)["counts"] is None
    shelf.books()
    assert shelf.looks == 3
    for name in "abc":
        os.utime(tmp_path / name, (BEGUN, BEGUN))
    shelf.books()
    assert shelf.looks == 3  # not yet: a look takes 0.6 s
    shelf.books(later=6.1)
    assert shelf.looks > 3


def test_states_of_tasks_nobody_looks_at_are_forgotten(
    shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_shelf, "MOST_STATES", 5)
    for name in "ab":
        write_journal(tmp_path / name, [None] * 3)
    books = shelf.books()
    assert sum(len(book.account.tasks) for book in books.values()) == 3
    for name in "ab":
        book = shelf.shelf.take(books[name].file.id)
        assert len(book.account.tasks) == 3 and book.account.workers
        assert run_document(book, BEGUN + 100)["counts"]["done"] == 3
    assert len(books["a"].account.tasks) == 0 and books["a"].account.figures.counts["done"] == 3


def test_what_is_wrong_with_a_journal_is_words(shelf: Shelf, tmp_path: Path) -> None:
    write_journal(tmp_path / "over", [None])
    data = (tmp_path / "over").read_bytes()
    (tmp_path / "over").write_bytes(data[:4096] + b"\xff" * (len(data) - 4096))
    book = shelf.books()["over"]
    assert state_of(book) is RunStanding.UNREADABLE
    assert book.problem == "cannot read the journal over: database disk image is malformed"
    document = run_document(book, BEGUN)
    assert document["counts"] is None and document["state"] == "unreadable" and document["control"] is False


def test_a_run_that_has_gone_is_not_found(shelf: Shelf, tmp_path: Path) -> None:
    write_journal(tmp_path / "over", [None])
    (book,) = shelf.books().values()
    (tmp_path / "over").unlink()
    shelf.now += 1.0
    with pytest.raises(Problem) as caught:
        shelf.shelf.take(book.file.id)
    assert caught.value.status == 404


def test_a_link_that_has_taken_the_place_of_a_journal_is_not_followed(shelf: Shelf, tmp_path: Path) -> None:
    place = tmp_path / "over"
    write_journal(place, [None])
    write_journal(tmp_path / "other", ["failed"])
    tmp_path.chmod(0o1777)
    (book,) = [one for name, one in shelf.books().items() if name == "over"]
    place.unlink()
    place.symlink_to(tmp_path / "other")
    book.seen, book.next_look = None, 0.0  # the directory is not read again yet
    shelf.shelf.look()
    assert book.problem == "another user has put a link in the place of this journal"
