"""All parts of cmap but the network: a table of tasks over workers that fail, vanish and lie, killed and resumed."""

from __future__ import annotations

import csv
import io
import random
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cexec.cmap.inputs.checks import check_rows
from cexec.cmap.inputs.sources import Selection, table_from
from cexec.cmap.inputs.task_plan import Plan, Work
from cexec.cmap.inputs.tasks import STDOUT, Task
from cexec.cmap.results import joblog
from cexec.cmap.results.appending import AppendFile
from cexec.cmap.results.attempt_files import PREFIX, AttemptFiles, sweep
from cexec.cmap.results.collect import CommitOrder, Concatenated, DelimitedResults, Ended, Joblog
from cexec.cmap.results.commit import commit
from cexec.cmap.results.journal import NEW, RESUME, RESUME_FAILED, Claim, Journal
from cexec.cmap.results.outcome import Outcome
from cexec.cmap.results.validate import Validator
from cexec.cmap.run.policy import Policy
from cexec.cmap.run.scheduler import FAILED, LOST, SUCCEEDED, Attempt, Cancel, Scheduler

ROWS = 40
APPLICATION = b"application"
FAILS = 13  # the row whose program always fails


class Killed(Exception):
    """Stands for kill -9."""


class Coordinator:
    """A run of `cmap --params p.csv --stdout 'out/{id}.txt' --state state --joblog log --results r.csv` and so on."""

    def __init__(self, mode: str, seed: int, *, dies_after: int = 10**9) -> None:
        self.random = random.Random(seed)
        self.dies_after = dies_after
        self.journal = Journal("state", mode, now=0.0)
        table = table_from(params="p.csv")
        work = Work(stdin_text="{text}", arguments=["{id}"], stdout="out/{id}.txt")
        self.plan = Plan(work, table)
        self.selection = Selection(len(table), order="random", seed=seed)
        sweep(["out"], self.journal.token)
        check_rows(self.plan, self.selection.ascending(), lambda task: self.journal.is_done(task.key(APPLICATION)))
        log = AppendFile.open("log", joblog.HEADER)
        rows = AppendFile.open("r.csv", DelimitedResults.header(table.columns))
        collected = AppendFile.open("collected")
        self.writers: list[Any] = [Joblog(log), DelimitedResults(rows), Concatenated(collected, headed=True)]
        self.judge = Validator("grep -q right stdout", "--validate")
        self.turns: CommitOrder[tuple[Ended, AttemptFiles, Claim]] = CommitOrder(self.selection.ascending())
        self.claims: dict[int, Claim] = {}
        self.running: dict[Attempt, tuple[Task, AttemptFiles]] = {}
        self.attempts: list[AttemptFiles] = []

    def run(self) -> int:
        policy = Policy(retries=3, crash_limit=0)
        self.scheduler = Scheduler(policy, self.wanted(), len(self.selection))
        for worker in "abcd":
            self.scheduler.worker_joined(worker, 2)
        now = 0.0
        while not self.scheduler.over:
            now += 1.0
            attempt = self.scheduler.next_task(self.random.choice("abcd"), now)
            if attempt is not None:
                task = self.plan.task(attempt.task)
                self.attempts.append(AttemptFiles(task, self.journal.token))
                self.running[attempt] = (task, self.attempts[-1])
                self.scheduler.began(attempt, now)
            if self.running and self.random.random() < 0.6:
                self.end(self.random.choice(list(self.running)), now)
        self.journal.close()
        self.close_files()
        return self.scheduler.exit_status()

    def wanted(self) -> Iterator[int]:
        for number in self.selection:
            task = self.plan.task(number)
            claim = self.journal.claim(task.key(APPLICATION), number, task.command_line("app.pub"))
            if claim is None:
                self.save(self.turns.skip(number))
            else:
                self.claims[number] = claim
                yield number

    def end(self, attempt: Attempt, now: float) -> None:
        """One of the things that can happen to a job on a worker."""
        task, files = self.running.pop(attempt)
        fate = self.random.random()
        how, reason = SUCCEEDED, ""
        if fate < 0.2:
            how, reason = LOST, "disconnected unexpectedly"
        elif task.number == FAILS:
            how, reason = FAILED, "exited with 4"
        files.outputs[STDOUT].append(b"wrong" if 0.2 <= fate < 0.3 else b"right " + task.stdin.data)
        if how == SUCCEEDED:
            verdict = self.judge.judge(task, files.outputs)
            how, reason = (SUCCEEDED if verdict.accepted else FAILED), verdict.reason
        self.scheduler.ended(attempt, how, now, status=4, reason=reason)
        settled = False
        while (event := self.scheduler.next_event()) is not None:
            assert not isinstance(event, Cancel)
            settled = True
            outcome = Outcome(
                task.number,
                succeeded=not event.reason,
                command=partial(task.command_line, "app.pub"),
                worker=attempt.worker,
                exitval=4 if event.reason else 0,
                reason=event.reason,
            )
            ended = Ended(task, outcome, files.outputs)
            self.save(self.turns.put(task.number, (ended, files, self.claims[task.number])))
        if not settled:
            files.discard()

    def save(self, items: list[tuple[Ended, AttemptFiles, Claim]]) -> None:
        for ended, files, claim in items:
            succeeded = ended.outcome.succeeded
            appends = [(writer.file, writer.additions(ended)) for writer in self.writers]
            renames = files.finish() if succeeded else []
            commit(self.journal, claim, ended.outcome, appends=appends, renames=renames)
            if not succeeded:
                files.discard()
            self.dies_after -= 1
            if not self.dies_after:
                raise Killed

    def die(self) -> None:
        self.journal._database.close()
        self.journal._lock.close()
        self.close_files()

    def close_files(self) -> None:
        for writer in self.writers:
            writer.file.close()
        for files in self.attempts:
            for output in files.outputs.values():
                output.close()


@pytest.fixture(autouse=True)
def _table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("p.csv").write_text("id,text\n" + "".join(f'x{number},"text, {number}"\n' for number in range(1, ROWS + 1)))
    Path("out").mkdir()


def check_everything(failures: int) -> None:
    """Every row's result is there once, in every form."""
    others = [number for number in range(1, ROWS + 1) if number != FAILS]
    files = {path.name: path.read_text() for path in Path("out").iterdir()}
    assert files == {f"x{number}.txt": f"right text, {number}" for number in others}
    lines = [line.split("\t") for line in Path("log").read_text().splitlines()[1:]]
    assert Counter(line[0] for line in lines if line[6] == "0") == Counter(map(str, others))
    assert [line[0] for line in lines if line[6] != "0"] == [str(FAILS)] * failures
    rows = list(csv.DictReader(io.StringIO(Path("r.csv").read_text())))
    assert sorted(row["Stdout"] for row in rows if row["Exitval"] == "0") == sorted(files.values())
    blocks = Path("collected").read_text()
    heads = "".join(f"# row {n}: id=x{n} text='text, {n}'\nright text, {n}" for n in others)
    assert blocks == heads


def test_a_run_without_interruption() -> None:
    assert Coordinator(NEW, seed=1).run() == 1
    check_everything(failures=1)


@pytest.mark.parametrize("seed", range(4))
def test_a_run_that_is_killed_again_and_again(seed: int) -> None:
    mode = NEW
    while True:
        coordinator = Coordinator(mode, seed, dies_after=7)
        try:
            coordinator.run()
            break
        except Killed:
            coordinator.die()
            mode = RESUME
    check_everything(failures=1)
    assert not [path for path in Path("out").iterdir() if path.name.startswith(PREFIX)]


def test_failed_tasks_are_tried_again_when_that_is_wanted() -> None:
    Coordinator(NEW, seed=2).run()
    assert Coordinator(RESUME, seed=3).run() == 0
    check_everything(failures=1)
    assert Coordinator(RESUME_FAILED, seed=3).run() == 1
    check_everything(failures=2)
