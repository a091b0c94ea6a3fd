"""cmap explain: why a task waits, where it ran, how it failed; from the journal of a run that goes on, or is over.

Contract: `explain(path, task, now)` gives lines of text; it reads only, and disturbs no coordinator.  `UsageError` when
there is no such journal or task, `LocalError` when it cannot be read.  `now` is the wall clock's.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from cexec.cmap.results.journal_format import DONE, FAILED, ONCE_FORMAT, WAITING, real_path, shown, version_of
from cexec.cmap.results.journal_reader import reading
from cexec.cmap.run.observer import Observer
from cexec.errors import UsageError
from cexec.system.storage.lockfile import holder
from cexec.system.units import show_count, show_duration, show_number

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable
    from typing import Any

    from cexec.cmap.results.journal import Journal
    from cexec.cmap.run.observer import Counts

MOST_LINES = 20  # (ours) tasks of a kind that are named
INTERVAL = 1.0  # seconds (ours) between two notes
RESUME = "cmap --resume goes on with it"
RESUME_ONCE = "cmap --resume --repeat-once runs it again"


class StatusNote(Observer):
    """Writes into the journal how the run stands, where `explain` finds it."""

    def __init__(
        self, journal: Journal, wall_clock: Callable[[], float] = time.time, weight: Callable[[], int] = lambda: 1
    ) -> None:
        """`weight` is the run's share of the turns, which may change."""
        self._journal = journal
        self._weight = weight
        self._wall_clock = wall_clock
        self._due = 0.0
        self._counts: Counts | None = None

    def counted(self, counts: Counts, now: float) -> None:
        turned = self._counts is not None and counts.paused is not self._counts.paused
        self._counts = counts
        if now >= self._due or turned:
            self._due = now + INTERVAL
            self._note(counts)

    def closed(self, status: int, now: float) -> None:
        if self._counts is not None:
            self._note(self._counts)

    def _note(self, counts: Counts) -> None:
        leases = sum(counts.leases.values())
        status = {
            "time": self._wall_clock(), "total": counts.total, "waiting": counts.waiting, "running": counts.running,
            "leases": leases, "workers": len(counts.leases), "paused": counts.paused,
            "weight": self._weight(),
        }  # fmt: skip
        self._journal.note(json.dumps(status))


def explain(path: str, task: int | None, now: float) -> list[str]:
    """Returns lines about one task, or about all if `task` is None."""
    with reading(path) as database:
        return explain_database(database, path, task, now)


def explain_database(database: sqlite3.Connection, path: str, task: int | None, now: float) -> list[str]:
    """As `explain`, of a journal that is open; `path` is its name."""
    story = _Story(database, path, now)
    return story.all() if task is None else story.one(task)


class _Story:
    """One look at a journal.  `holder`: the coordinator that uses it now, or nothing."""

    def __init__(self, database: sqlite3.Connection, path: str, now: float) -> None:
        self._database = database
        self._now = now
        process = holder(real_path(path))
        self._holder = f"cmap is {process}" if process else ""
        self._knows_once = version_of(database, path) >= ONCE_FORMAT
        found = database.execute("SELECT number, status FROM run ORDER BY number DESC LIMIT 1").fetchone()
        self._run: int = found[0] if found else 0
        self._status = parse_status((found and found[1]) or "{}")

    def all(self) -> list[str]:
        counts = dict(self._database.execute("SELECT state, count(*) FROM task GROUP BY state").fetchall())
        begun = "SELECT t.number, a.worker, a.started FROM attempt a JOIN task t USING (key, occurrence) "
        open_ones = self._database.execute(f"{begun} WHERE a.ended IS NULL AND t.run = ? AND t.state = ?",
                                           (self._run, WAITING)).fetchall()  # fmt: skip
        running = len(open_ones)
        done, failures = counts.get(DONE, 0), counts.get(FAILED, 0)
        lines = [f"{show_count(done, 'task')} done, {show_number(failures)} failed"]
        if self._holder:
            total = self._status.get("total")
            waiting = None if total is None else max(0, total - done - failures - running)
            lines[0] += (
                f", {running} running, {'?' if waiting is None else show_number(waiting)} waiting; {self._holder}"
            )
            if waiting != 0:
                lines.append(f"what waits: {self._why_all_wait()}")
        else:
            left = max(counts.get(WAITING, 0), (self._status.get("total") or 0) - done - failures)
            lines[0] += f", {show_number(left)} left; no cmap runs with this journal"
            if left:
                lines.append(f"what is left: {RESUME}")
        if self._holder:
            lines += _limited([f"task {n} runs on {shown(w)} since {_clock(s, self._now)}" for n, w, s in open_ones])
        failed = self._database.execute(
            "SELECT number, command, worker, reason FROM task WHERE state = ? ORDER BY number", (FAILED,)
        ).fetchall()
        lines += _limited(
            [f"task {n} failed on {shown(w) or 'no worker'}: {shown(r)}; {shown(c)}" for n, c, w, r in failed]
        )
        return lines

    def one(self, task: int) -> list[str]:
        found = self._database.execute(
            "SELECT key, occurrence, state, command, worker, runtime, reason FROM task WHERE number = ? "
            "ORDER BY run DESC LIMIT 1", (task,),
        ).fetchone()  # fmt: skip
        if found is None:
            total = self._status.get("total")
            if task < 1 or (total is not None and task > total):
                raise UsageError(f"there is no task {task}" + (f": they are 1 to {total}" if total else ""))
            return [f"task {task} has not been begun: {self._why_all_wait() if self._holder else RESUME}"]
        key, occurrence, state, command, worker, runtime, reason = found
        attempts = [
            (shown(at), started, ended, shown(why))
            for at, started, ended, why in self._database.execute(
                "SELECT worker, started, ended, reason FROM attempt WHERE key = ? AND occurrence = ? ORDER BY id",
                (key, occurrence),
            )
        ]
        lines = [f"task {task}: {shown(command)}"]
        if state == DONE:
            lines.append(f"done by {shown(worker)} in {show_duration(runtime)}")
        elif state == FAILED:
            lines.append(f"failed on {shown(worker) or 'no worker'}: {shown(reason)}")
        else:
            lines.append(self._why_waits(attempts, once=self._may_have_been_begun_once(key, occurrence)))
        return lines + [self._attempt(place, *attempt) for place, attempt in enumerate(attempts, 1)]

    def _may_have_been_begun_once(self, key: bytes, occurrence: int) -> bool:
        """True if a worker whose jobs must not be repeated may have begun the task."""
        query = "SELECT 1 FROM attempt WHERE key = ? AND occurrence = ? AND once"
        return self._knows_once and self._database.execute(query, (key, occurrence)).fetchone() is not None

    def _why_waits(self, attempts: list[tuple[str, float, float | None, str]], *, once: bool) -> str:
        if not self._holder and once:
            return f"not over; its worker's jobs must not be repeated (cservice --once): {RESUME_ONCE}"
        if not self._holder:
            return f"not over, and no cmap runs with this journal: {RESUME}"
        running = [worker for worker, _, ended, _ in attempts if ended is None]
        if running and attempts[-1][2] is None:
            return f"runs on {' and '.join(running)}"
        if attempts:
            last = attempts[-1]
            return f"waits to be tried again, rather not on {last[0]}: {last[3]}"
        return f"waits: {self._why_all_wait()}"

    def _why_all_wait(self) -> str:
        status = self._status
        if status.get("paused"):
            return "cmap is paused; cmap continue lets it go on"
        if not status.get("leases"):
            return "no worker has answered, or none that fits has a free slot; cps and cexec --explain tell more"
        slots, workers = status["leases"], status.get("workers", 0)
        return f"other tasks come first on {show_count(slots, 'lease')} of {show_count(workers, 'worker')}"

    def _attempt(self, place: int, worker: str, started: float, ended: float | None, reason: str) -> str:
        line = f"attempt {place}, {_clock(started, self._now)}, {worker}: "
        if ended is None:
            return line + (f"running for {show_duration(max(0.0, self._now - started))}" if self._holder else "cut off")
        return f"{line}{show_duration(ended - started)}, {reason or 'succeeded'}"


def parse_status(text: str | bytes) -> dict[str, Any]:
    """Returns what a run has noted of itself: whole numbers, flags and `time`; of what is damaged, nothing."""
    try:
        found = json.loads(text)
    except (TypeError, ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {
        name: value
        for name, value in found.items()
        if type(value) is int or isinstance(value, bool) or (name == "time" and type(value) is float)
    }


def _clock(when: float, now: float) -> str:
    """Returns the time of day, with the date if that is not today's."""
    then = time.localtime(when)
    today = time.localtime(now)[:3] == then[:3]
    return time.strftime("%H:%M:%S" if today else "%Y-%m-%d %H:%M:%S", then)


def _limited(lines: list[str]) -> list[str]:
    rest = len(lines) - MOST_LINES
    return lines if rest <= 0 else [*lines[:MOST_LINES], f"and {show_number(rest)} more"]
