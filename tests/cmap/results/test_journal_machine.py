"""A run with a journal that is killed between any two of its steps, and goes on, against a model of what it said.

What was committed is never run again, has its file and its row in the table, each once; of what was not committed
nothing is left (N4, N8).  docs/architecture.md, `cexec/cmap/results/journal.py`.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cexec.cmap.results.appending import AppendFile
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
from cexec.cmap.results.renames import seen
from cexec.errors import UsageError
from tests.cmap.results.renaming import carry_out

TASKS = st.integers(0, 5)
STEPS = ["intended", "added", "committed", "renamed", "settled"]


class Run:
    """One run over the tasks, in the steps in which `commit` saves them.  All that knows the journal's calls."""

    def __init__(self, directory: Path, mode: str) -> None:
        self._directory = directory
        self.journal = Journal(str(directory / "state"), mode, now=1000.0, sync=False)
        self.table = AppendFile.open(str(directory / "table"))

    def claim(self, number: int) -> TaskClaim | None:
        return self.journal.claim(TaskIdentity(bytes([number]) * 16, number), f"command {number}")

    def finish(self, claim: TaskClaim, number: int, *, succeeded: bool, until: str) -> None:
        """Saves a task, and stops behind one of the steps."""
        temporary, final = self._directory / f"{number}.part", self._directory / f"{number}.result"
        temporary.write_text(f"result {number}\n")
        place = self.table.place()
        assert place is not None
        outcome = TaskOutcome(number, succeeded=succeeded, command=str, exitval=0 if succeeded else 1)
        renames = [seen(str(temporary), str(final))]
        steps: list[Callable[[], object]] = [
            lambda: self.journal.intend([place]),
            lambda: self.table.append([f"row {number}\n".encode()]),
            lambda: self.journal.commit([TaskEnd(claim, outcome, renames)]),
            lambda: carry_out(renames),
            lambda: self.journal.settle([claim]),
        ]
        for name, step in zip(STEPS, steps, strict=True):
            step()
            if name == until:
                return

    def kill(self) -> None:
        self.journal.abandon()
        self.table.close()

    def close(self) -> None:
        self.journal.close()
        self.table.close()


class Journals(RuleBasedStateMachine):
    """`ended`: the tasks that were committed, and if they succeeded; `rows`: what the table has to contain."""

    @initialize()
    def begin(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="cexec-journal-"))
        self.run = Run(self.directory, NEW)
        self.mode = NEW
        self.claims: dict[int, TaskClaim] = {}
        self.asked: set[int] = set()  # in this run
        self.ended: dict[int, bool] = {}
        self.rows: list[str] = []

    @rule(number=TASKS)
    def claim(self, number: int) -> None:
        if number in self.asked:
            return
        self.asked.add(number)
        found = self.run.claim(number)
        if self.mode in (NEW, RESUME):
            assert (found is not None) == (number not in self.ended)
        elif self.mode == RESUME_FAILED:
            assert (found is not None) == (not self.ended.get(number, False))
        else:
            assert (found is not None) == (self.ended.get(number) is False)
        if found is not None:
            self.claims[number] = found

    @precondition(lambda self: self.claims)
    @rule(index=TASKS, succeeded=st.booleans(), until=st.sampled_from([*STEPS, "settled", "settled"]))
    def finish(self, index: int, succeeded: bool, until: str) -> None:
        number = sorted(self.claims)[index % len(self.claims)]
        self.run.finish(self.claims.pop(number), number, succeeded=succeeded, until=until)
        if until in STEPS[2:]:
            self.ended[number] = succeeded
            self.rows.append(f"row {number}")
        if until != "settled":
            self.kill_and_go_on()

    @rule()
    def kill_and_go_on(self) -> None:
        self.run.kill()
        self._open(RESUME)

    @rule(mode=st.sampled_from([RESUME, RESUME_FAILED, RETRY_FAILED]))
    def end_and_go_on(self, mode: str) -> None:
        self.run.close()
        self._open(mode)

    def _open(self, mode: str) -> None:
        self.run = Run(self.directory, mode)
        self.mode = mode
        self.claims.clear()
        self.asked.clear()

    @rule()
    def nobody_else_may_go_on_with_it(self) -> None:
        with pytest.raises(UsageError):
            Journal(str(self.directory / "state"), RESUME, now=1000.0, patience=0.0)

    @precondition(lambda self: self.ended)
    @rule()
    def nor_begin_anew(self) -> None:
        self.run.close()
        with pytest.raises(UsageError, match="--resume"):
            Run(self.directory, NEW)
        self._open(RESUME)

    @invariant()
    def it_counts_what_has_ended(self) -> None:
        done = sum(self.ended.values())
        assert self.run.journal.counts() == (done, len(self.ended) - done)

    @invariant()
    def everything_that_has_ended_is_there_once(self) -> None:
        assert (self.directory / "table").read_text().split("\n")[:-1] == self.rows
        for number in range(6):
            final = self.directory / f"{number}.result"
            assert final.exists() == (number in self.ended)
            if number in self.ended:
                assert final.read_text() == f"result {number}\n"

    def teardown(self) -> None:
        if hasattr(self, "run"):
            self.run.kill()
            shutil.rmtree(self.directory)


TestJournals = Journals.TestCase
TestJournals.settings = settings(max_examples=12, stateful_step_count=25, deadline=None)
