"""What clients ask of runs: the reading of journals and the questions to running `cmap`s, off the event loop.

Contract: the methods return documents, and raise `Problem`: 403 for who may not, 404 where there is no such run, 409
for a run that cannot do it now, 503 for a `cmap` that does not answer.  One thread reads journals, others ask; at most
MOST_ASKED questions wait.  `close` waits for no journal.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from cexec.cmap.control.asking import ask
from cexec.errors import CexecError, NoRunError, NotAllowedError, NotFollowedError, SilentPeerError, UsageError
from cexec.gate.access.caller import TokenRole
from cexec.gate.problem import Problem
from cexec.gate.runs.run_documents import failed_document, run_document, worker_document
from cexec.gate.runs.run_shelf import RunShelf
from cexec.system.call_threads import Threads

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cexec.cmap.control.control_messages import ControlRequest, ControlStatus
    from cexec.gate.access.caller import Caller
    from cexec.gate.runs.run_shelf import RunBook

T = TypeVar("T")
ANSWER = 5.0  # seconds (ours) for which a running cmap is waited for
ASKERS = 4  # (ours) cmaps that are asked at once
MOST_ASKED = 64  # (ours) questions that run or wait
MOST_MAPPED = 100_000  # (ours) tasks, or cells, of one map
PAGE = 100  # (ours) runs, or failed tasks, of one answer


def may_see_runs(identity: Caller) -> bool:
    """Returns True if the token is for all applications: a journal does not say which one it is for."""
    return identity.applications is None


class RunDesk:
    """`paths` are those of --runs; None: there are no runs here."""

    def __init__(self, paths: Sequence[str] | None) -> None:
        self.offered = paths is not None
        self._shelf = RunShelf(paths or ())
        self._reader = Threads(1, "reader of journals")
        self._askers = Threads(ASKERS, "asker of cmap")
        self._asked = 0

    def close(self) -> None:
        for threads in (self._reader, self._askers):
            threads.shutdown(wait=False, cancel_futures=True)

    async def list_runs(self, identity: Caller, limit: int, after: str | None) -> dict[str, Any]:
        """The runs whose journals changed last come first."""
        self._check(identity)
        return await self._read(partial(self._list, limit, after))

    async def show(self, identity: Caller, id: str) -> dict[str, Any]:
        self._check(identity)
        return await self._read(partial(self._show, id))

    async def map(self, identity: Caller, id: str, first: int, count: int | None, cells: int | None) -> dict[str, Any]:
        """Returns the states of tasks, each or in `cells` cells."""
        self._check(identity)
        return await self._read(partial(self._map, id, first, count, cells))

    async def failed(self, identity: Caller, id: str, limit: int, after: int) -> dict[str, Any]:
        self._check(identity)
        return await self._read(partial(self._failed, id, limit, after))

    async def control(self, identity: Caller, id: str, request: ControlRequest) -> dict[str, Any]:
        """Asks the running cmap for something; returns the run as it is then."""
        self._check(identity)
        identity.require(TokenRole.ADMIN)
        path, document = await self._read(partial(self._to_control, id))
        if self._asked >= MOST_ASKED:
            raise Problem(503, "too many runs are asked for something; try again in a moment")
        self._asked += 1
        try:
            status = await asyncio.get_running_loop().run_in_executor(self._askers, _ask, path, request)
        finally:
            self._asked -= 1
        told: dict[str, Any] = document | {"weight": status.weight, "state": "paused" if status.paused else "running"}
        return told | ({"eta": None} if status.paused else {})

    def _check(self, identity: Caller) -> None:
        if not self.offered:
            raise Problem(404, "this cgate shows no runs; it is started with --runs DIR for that")
        if not may_see_runs(identity):
            raise Problem(403, "runs are shown to tokens for all applications; this token is for some only")

    async def _read(self, what: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._reader, what)

    # in the thread of the reader

    def _list(self, limit: int, after: str | None) -> dict[str, Any]:
        self._shelf.look()
        books = list(self._shelf.books.values())
        begin = 0
        if after is not None:
            ids = [book.file.id for book in books]
            if after not in ids:
                raise Problem(404, "the run of the parameter after is not there any more; begin with the first page")
            begin = ids.index(after) + 1
        part, now = books[begin : begin + limit], self._shelf.now()
        more = part[-1].file.id if begin + limit < len(books) else None
        runs = [run_document(book, now) for book in part]
        return {"runs": runs, "next": more, "problems": list(self._shelf.problems)}

    def _show(self, id: str) -> dict[str, Any]:
        book = self._shelf.take(id)
        workers = [] if book.problem else [worker_document(one) for one in book.account.workers]
        more = 0 if book.problem else book.account.more_workers
        return run_document(book, self._shelf.now()) | {"workers": workers, "more_workers": more}

    def _map(self, id: str, first: int, count: int | None, cells: int | None) -> dict[str, Any]:
        account = self._readable(id).account
        size = len(account.tasks)
        there = max(0, size - first + 1) if count is None else max(0, min(count, size - first + 1))
        cell = 1 if cells is None else max(1, -(-there // cells))
        if cell == 1:
            there = min(there, MOST_MAPPED)
        states = account.tasks.codes(first, there, cell, account.running)
        return {"first": first, "count": there, "size": size, "cell": cell, "states": states}

    def _failed(self, id: str, limit: int, after: int) -> dict[str, Any]:
        book = self._readable(id)
        try:
            rows = book.account.failed(after, limit)
        except CexecError as error:
            raise Problem(409, str(error).replace(book.file.path, book.file.name)) from None
        more = rows[-1].task if rows and book.account.tasks.failed(rows[-1].task, 1) else None
        return {"failed": [failed_document(row) for row in rows], "next": more}

    def _to_control(self, id: str) -> tuple[str, dict[str, Any]]:
        book = self._readable(id)
        return book.file.path, run_document(book, self._shelf.now())

    def _readable(self, id: str) -> RunBook:
        book = self._shelf.take(id)
        if book.problem:
            raise Problem(409, f"the journal cannot be read: {book.problem}")
        return book


def _ask(path: str, request: ControlRequest) -> ControlStatus:
    """Asks in a thread; no path of this machine is told."""
    try:
        return ask(path, request, ANSWER)
    except (NoRunError, UsageError):
        raise Problem(409, "no cmap runs with this journal, or none that can be asked from here") from None
    except NotAllowedError:
        raise Problem(403, "the run belongs to another user; cgate steers those of its own account") from None
    except NotFollowedError as error:
        raise Problem(409, f"cmap does not do that now: {error}") from None
    except SilentPeerError:
        raise Problem(503, f"cmap has not answered within {ANSWER:g} seconds; is it stopped?") from None
    except CexecError:
        raise Problem(503, "what answers for this run cannot be understood, or asked") from None
