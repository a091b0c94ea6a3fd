"""What is known of the runs in the directories of --runs, read again where a journal has changed.

Contract: blocking, for one thread at a time.  `look` brings as many accounts up to date as `budget` seconds allow, the
ones that changed last first; `take(id)` brings one up to date.  Memory for the states of tasks stays below MOST_STATES.
A journal that takes long to be read is read the more seldom.  Its cmap is asked what runs, if it
can be asked.  What is wrong with a journal is words of its `RunBook`;
only `take` raises: `Problem` 404 for a run that is not there.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cexec.cmap.control.asking import ask
from cexec.cmap.control.control_messages import MOST_TASKS, ControlAction, ControlRequest
from cexec.cmap.results.journal_format import real_path
from cexec.cmap.watch.run_account import PATIENCE, RunAccount
from cexec.errors import CexecError
from cexec.gate.problem import Problem
from cexec.gate.runs.run_directory import JournalFile, RunDirectory
from cexec.system.storage.lockfile import holder
from cexec.system.storage.own_files import check_output

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SCAN, LEAST = 0.2, 0.5  # seconds (ours) between two looks into the directories, and at one journal
SHARE = 10.0  # (ours) times as long as such a look has taken pass until the next one
BUDGET = 1.0  # seconds (ours) for the looks at all journals that one answer waits for
WORD = 0.3  # seconds (ours) for which a cmap is waited for that is asked what runs
PATIENCE_WITH_OTHERS = 3.0  # seconds (ours) that one look at a journal of another user may take
MOST_STATES = 32_000_000  # bytes (ours) for the states of tasks


@dataclass(slots=True)
class RunBook:
    """One journal.  `known`: it has been read; `problem`: why it cannot be, in words."""

    file: JournalFile
    account: RunAccount
    known: bool = False
    problem: str = ""
    seen: object = None  # the stamp of the file, and its holder, of the last look
    next_look: float = 0.0  # by the steady clock
    wanted: float = 0.0  # when somebody last asked for more than its figures
    held: int = 0  # bytes of states


class RunShelf:
    """`wall` and `monotonic` are for tests."""

    def __init__(
        self,
        paths: Sequence[str],
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.problems: list[str] = []
        self.books: dict[str, RunBook] = {}  # by id, those that changed last first
        self._directory = RunDirectory(paths)
        self._wall = wall
        self._monotonic = monotonic
        self._next_scan = 0.0

    def now(self) -> float:
        return self._wall()

    def look(self, budget: float = BUDGET) -> None:
        self._scan()
        until = self._monotonic() + budget
        for book in self.books.values():
            if self._monotonic() >= until:
                return
            self._bring_up_to_date(book)

    def take(self, id: str) -> RunBook:
        """Returns a run whose map is there."""
        self._scan()
        book = self.books.get(id)
        if book is None:
            raise Problem(404, "there is no such run; it may have been removed")
        book.wanted = self._monotonic()
        self._bring_up_to_date(book, whole=True)
        return book

    def _scan(self) -> None:
        now = self._monotonic()
        if now < self._next_scan:
            return
        files, self.problems = self._directory.scan()
        self._next_scan = self._monotonic() + max(SCAN, SHARE * (self._monotonic() - now))
        before = self.books
        self.books = {}
        for file in files:
            book = before.get(file.id) or RunBook(file, RunAccount(file.path))
            book.file = file
            self.books[file.id] = book

    def _bring_up_to_date(self, book: RunBook, *, whole: bool = False) -> None:
        if book.file.problem:
            book.problem = book.file.problem
            return
        begun = self._monotonic()
        seen = book.file.stamp, holder(real_path(book.file.path))
        missing = whole and not book.held and not book.problem
        if not missing and (begun < book.next_look or (seen == book.seen and book.known)):
            return
        try:
            check_output(book.file.path)  # it may be another one since the directory was read
            book.account.begun = _begun(book.file) if seen[1] else None
            book.account.look(self._wall(), PATIENCE_WITH_OTHERS if book.file.owner else PATIENCE)
            book.problem = ""
        except CexecError as error:
            book.problem = str(error).replace(book.file.path, book.file.name)
        except OSError:
            book.problem = "another user has put a link in the place of this journal"
        book.known, book.seen = True, seen
        book.held = len(book.account.tasks)
        book.next_look = self._monotonic() + max(LEAST, SHARE * (self._monotonic() - begun))
        self._keep_small(book)

    def _keep_small(self, latest: RunBook) -> None:
        """Forgets the states of those tasks for which nobody has asked for the longest time."""
        held = sum(book.held for book in self.books.values())
        for book in sorted(self.books.values(), key=lambda one: one.wanted):
            if held <= MOST_STATES:
                return
            if book is not latest and book.held:
                held -= book.held
                book.held = 0
                book.account.forget()


def _begun(file: JournalFile) -> frozenset[int] | None:
    """Returns the tasks whose programs run now, as their cmap says; None if it does not."""
    try:
        status = ask(file.path, ControlRequest(ControlAction.STATUS), WORD)
    except CexecError:
        return None
    return frozenset(status.tasks) if len(status.tasks) < MOST_TASKS else None
