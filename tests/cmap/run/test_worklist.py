"""Which tasks of a run are to be run."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cexec.cmap.inputs.blocks import BlockReader
from cexec.cmap.inputs.checks import check_block_task
from cexec.cmap.inputs.result_checks import ResultRules
from cexec.cmap.inputs.tables import Words
from cexec.cmap.inputs.task_plan import Plan, Work
from cexec.cmap.results.journal import NEW, RESUME, Journal, TaskEnd
from cexec.cmap.results.outcome import TaskOutcome
from cexec.cmap.run.scheduler import NOTHING_YET
from cexec.cmap.run.worklist import Worklist


@pytest.fixture(autouse=True)
def _directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def worklist(journal: Journal | None, skipped: list[int]) -> Worklist:
    plan = Plan(Work(arguments=["{}"]), Words(["a", "b", "c"]))
    return Worklist(plan, (3, 1, 2), journal=journal, application="app.pub", fingerprint="f", skip=skipped.append)


def test_rows_come_in_their_order() -> None:
    work = worklist(None, [])
    assert list(work.numbers()) == [3, 1, 2]
    assert work.task(3).arguments == [b"c"]
    assert work.claim(3) is None
    assert not work.is_done(work.task(3))


def test_without_a_journal_no_task_is_made_for_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    work = worklist(None, [])
    made: list[int] = []
    task = Plan.task

    def noted(plan: Plan, number: int) -> Any:
        made.append(number)
        return task(plan, number)

    monkeypatch.setattr(Plan, "task", noted)
    assert list(work.numbers()) == [3, 1, 2]
    assert work.task(3).arguments == [b"c"]
    assert made == [3]


def test_what_is_done_is_skipped() -> None:
    journal = Journal("state", NEW, now=0.0)
    work = worklist(journal, [])
    assert next(work.numbers()) == 3
    claim = work.claim(3)
    assert claim is not None
    journal.commit([TaskEnd(claim, TaskOutcome(3, succeeded=True, command=str), [])])
    work.close(3)
    assert work.claim(3) is None
    journal.close()
    skipped: list[int] = []
    journal = Journal("state", RESUME, now=1.0)
    work = worklist(journal, skipped)
    assert work.is_done(work.task(3))
    assert list(work.numbers()) == [1, 2]
    assert (work.done, skipped, work.failure) == (1, [3], None)
    journal.close()


def blocks(work: Work, given: list[bytes]) -> Worklist:
    reader = BlockReader(given)
    check = partial(check_block_task, rules=ResultRules())
    return Worklist(Plan(work, None), (), blocks=reader, application="app.pub", fingerprint="f", check=check)


def test_blocks_are_tasks_that_are_kept_until_they_are_over() -> None:
    work = blocks(Work(), [b"one", b"two"])
    assert [number for number in work.numbers() if number != NOTHING_YET] == [1, 2]
    assert work.task(2).stdin.data == b"two"
    work.close(2)
    with pytest.raises(AssertionError):
        work.task(2)


def test_a_block_whose_result_is_there_ends_the_run() -> None:
    Path("out1").touch()
    work = blocks(Work(stdout="out{#}"), [b"one", b"two"])
    assert not [number for number in work.numbers() if number != NOTHING_YET]
    assert "block 1: result out1 exists already" in str(work.failure)
