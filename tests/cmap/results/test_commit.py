"""The end of a task: all of it or nothing, whenever the power of kill -9 strikes."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from time import sleep
from typing import Any

import pytest

from cexec.cmap.results import commit as commit_module
from cexec.cmap.results.appending import AppendFile
from cexec.cmap.results.commit import commit, unsaved
from cexec.cmap.results.journal import NEW, RESUME, Journal, TaskClaim
from cexec.cmap.results.outcome import TaskOutcome
from cexec.errors import LocalError
from tests.environment import ROOT
from tests.needs import require_namespaces

TASKS = 60  # of the coordinator that is killed
KILLS = 25


class Killed(BaseException):
    """Stands for kill -9 at one place."""


class Coordinator:
    """One task that adds to two files and has two results."""

    def __init__(self, directory: Path, mode: str = NEW) -> None:
        self.directory = directory
        self.journal = Journal(str(directory / "state"), mode, now=0.0)
        self.log = AppendFile.open(str(directory / "log"), b"head\n")
        self.table = AppendFile.open(str(directory / "table"))

    def claim(self) -> TaskClaim | None:
        return self.journal.claim(b"k" * 16, 1, "command")

    def commit(self) -> None:
        renames = []
        for name in ("one", "two"):
            (self.directory / f"{name}.tmp").write_text(name)
            renames.append((str(self.directory / f"{name}.tmp"), str(self.directory / name)))
        commit(
            self.journal,
            self.claim(),
            TaskOutcome(1, succeeded=True, command=str),
            appends=[(self.log, [b"line\n"]), (self.table, [b"row ", b"one\n"])],
            renames=renames,
        )

    def die(self) -> None:
        self.journal.abandon()

    def state(self) -> dict[str, str]:
        names = ("log", "table", "one", "two")
        return {name: (self.directory / name).read_text() for name in names if (self.directory / name).exists()}


COMMITTED = {"log": "head\nline\n", "table": "row one\n", "one": "one", "two": "two"}
UNTOUCHED = {"log": "head\n", "table": ""}


def test_a_task_leaves_everything_behind(tmp_path: Path) -> None:
    coordinator = Coordinator(tmp_path)
    coordinator.commit()
    coordinator.journal.close()
    assert coordinator.state() == COMMITTED
    again = Coordinator(tmp_path, RESUME)
    assert again.claim() is None
    assert again.state() == COMMITTED
    again.die()


def test_without_a_journal_everything_is_left_behind_too(tmp_path: Path) -> None:
    (tmp_path / "a.tmp").write_text("a")
    log = AppendFile.open(str(tmp_path / "log"))
    outcome = TaskOutcome(1, succeeded=True, command=str)
    commit(None, None, outcome, appends=[(log, [b"x"])], renames=[(str(tmp_path / "a.tmp"), str(tmp_path / "a"))])
    assert (tmp_path / "a").read_text() == "a"
    assert (tmp_path / "log").read_bytes() == b"x"


STEPS = [
    ("cexec.cmap.results.journal.Journal.intend", False, UNTOUCHED),
    ("cexec.cmap.results.journal.Journal.intend", True, UNTOUCHED),
    ("cexec.cmap.results.appending.AppendFile.append", False, UNTOUCHED),
    ("cexec.cmap.results.appending.AppendFile.append", True, UNTOUCHED),
    ("cexec.cmap.results.journal.Journal.commit", False, UNTOUCHED),
    ("cexec.cmap.results.journal.Journal.commit", True, COMMITTED),
    ("os.rename", False, COMMITTED),
    ("os.rename", True, COMMITTED),
    ("cexec.cmap.results.journal.Journal.settle", False, COMMITTED),
    ("cexec.cmap.results.journal.Journal.settle", True, COMMITTED),
]


@pytest.mark.parametrize(("step", "after", "expected"), STEPS)
def test_killed_at_any_step_a_task_is_whole_or_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, after: bool, expected: dict[str, str]
) -> None:
    coordinator = Coordinator(tmp_path)
    with monkeypatch.context() as patch:
        module, _, name = step.rpartition(".")
        owner: object = os if module == "os" else _find(module)
        real = getattr(owner, name)

        def dying(*arguments: object) -> None:
            if after:
                real(*arguments)
            raise Killed

        patch.setattr(owner, name, dying)
        with pytest.raises(Killed):
            coordinator.commit()
    coordinator.die()

    again = Coordinator(tmp_path, RESUME)
    assert again.state() == expected
    claim = again.claim()
    assert (claim is None) == (expected is COMMITTED)
    if claim is not None:
        again.journal.database.rollback()
        again.commit()
    assert again.state() == COMMITTED
    again.die()


def _find(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(sys.modules[module], name)


def test_a_full_disk_leaves_the_task_unsaved_and_the_next_run_saves_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    coordinator = Coordinator(tmp_path)
    append = coordinator.table.append
    monkeypatch.setattr(coordinator.table, "append", lambda _: append(_failing()))
    with pytest.raises(LocalError, match="no space left"):
        coordinator.commit()
    assert coordinator.state() == UNTOUCHED
    coordinator.die()
    again = Coordinator(tmp_path, RESUME)
    assert again.state() == UNTOUCHED
    again.commit()
    assert again.state() == COMMITTED
    again.die()


def _failing() -> Iterator[bytes]:
    yield b"row "
    raise OSError(28, "")


def test_a_journal_on_a_full_disk_takes_back_what_was_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    coordinator = Coordinator(tmp_path)
    intend = coordinator.journal.intend

    def intend_then_full(claim: TaskClaim, places: object) -> None:
        intend(claim, places)  # type: ignore[arg-type]
        coordinator.journal.database.execute("PRAGMA query_only=ON")

    monkeypatch.setattr(coordinator.journal, "intend", intend_then_full)
    with pytest.raises(LocalError, match="cannot use the journal"):
        coordinator.commit()
    assert coordinator.state() == UNTOUCHED
    coordinator.die()
    again = Coordinator(tmp_path, RESUME)
    assert again.claim() is not None
    assert again.state() == UNTOUCHED
    again.die()


def test_a_commit_that_failed_is_not_made_by_accident_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    coordinator = Coordinator(tmp_path)
    flush = coordinator.journal.flush
    failures = [LocalError("database or disk is full")]

    def failing_once() -> None:
        if coordinator.journal.database.execute("SELECT 1 FROM task WHERE state = 1").fetchone() and failures:
            raise failures.pop()
        flush()

    monkeypatch.setattr(coordinator.journal, "flush", failing_once)
    with pytest.raises(LocalError, match="disk is full"):
        coordinator.commit()
    coordinator.journal.close()
    again = Coordinator(tmp_path, RESUME)
    assert again.journal.counts() == (0, 0)
    assert again.state() == UNTOUCHED
    again.die()


def test_a_result_that_cannot_be_renamed_is_completed_by_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    coordinator = Coordinator(tmp_path)

    def refusing(_: object) -> None:
        raise LocalError("cannot write one: input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(commit_module, "rename_all", refusing)
        with pytest.raises(LocalError, match="cannot write one"):
            coordinator.commit()
    coordinator.journal.close()
    again = Coordinator(tmp_path, RESUME)
    assert again.state() == COMMITTED
    assert again.claim() is None
    again.die()


def test_a_result_that_cannot_be_completed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    coordinator = Coordinator(tmp_path)
    monkeypatch.setattr(commit_module, "rename_all", lambda _: None)
    coordinator.commit()
    coordinator.journal.database.rollback()  # what it would have settled is not yet durable
    coordinator.die()
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "x").touch()
    with pytest.raises(LocalError, match=r"cannot complete what .*state began: .*: is a directory"):
        Coordinator(tmp_path, RESUME)


def test_what_a_coordinator_that_stops_says() -> None:
    assert unsaved([3]) == "task 3 is not saved"
    assert unsaved({9, 7, 3, 8}) == "tasks 3, 7-9 are not saved"


# the real thing

PROGRAM = f"""
import os, signal, sys
from cexec.cmap.results.appending import AppendFile
from cexec.cmap.results.commit import commit, unsaved
from cexec.cmap.results.journal import RESUME, Journal
from cexec.cmap.results.outcome import TaskOutcome
from cexec.cmap.results import joblog
from cexec.cmap.results.attempt_files import FileOutput, sweep, temporary_name
from cexec.errors import LocalError

number = 1
remaining = int(sys.argv[1]) if sys.argv[1:] else {TASKS}  # tasks until it waits to be killed
try:
    journal = Journal("state", RESUME, now=0.0)
    sweep(["results"], journal.token)
    log = AppendFile.open("joblog", joblog.HEADER)
    out = AppendFile(1, "standard output")
    for number in range(1, {TASKS + 1}):
        claim = journal.claim(number.to_bytes(16, "big"), number, "")
        if claim is None:
            continue
        if not remaining:
            signal.pause()
        remaining -= 1
        result = FileOutput("results/" + temporary_name(journal.token), f"results/{{number}}")
        result.append(b"result %d" % number)
        result.close()
        outcome = TaskOutcome(number, succeeded=number % 7 != 0, command=str, exitval=int(number % 7 == 0))
        block = [b"begin %d\\n" % number, b"x" * 5000 + b"\\n", b"end %d\\n" % number]
        appends = [(log, [joblog.line(outcome)]), (out, block)]
        commit(journal, claim, outcome, appends=appends, renames=[(result.path, f"results/{{number}}")])
    journal.close()
except LocalError as error:
    sys.exit(f"{{error}}; {{unsaved(range(number, {TASKS + 1}))}}")
"""


def test_a_coordinator_that_is_killed_many_times_does_each_task_once(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    randomness = random.Random(4)
    kills = 0
    while True:
        with open(tmp_path / "out", "ab") as out:
            environment = {**os.environ, "PYTHONPATH": os.fspath(ROOT)}
            steps = randomness.randint(1, 3)
            command = [sys.executable, "-c", PROGRAM]
            if kills < KILLS:
                command.append(str(steps + 2))  # so that also a fast machine is killed at work more than five times
            process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=out)
        if kills < KILLS:
            _wait_for_progress(tmp_path / "joblog", steps, process)
            sleep(randomness.random() * 0.004)
            process.send_signal(signal.SIGKILL)
            kills += 1
        if process.wait() == 0:
            break
        assert process.returncode == -signal.SIGKILL
    _check_each_once(tmp_path)
    assert kills > 5


def _check_each_once(directory: Path) -> None:
    numbers = list(range(1, TASKS + 1))
    lines = (directory / "joblog").read_text().splitlines()[1:]
    assert [int(line.split("\t")[0]) for line in lines] == numbers
    assert Counter(line.split("\t")[6] for line in lines) == {"0": 52, "1": 8}
    block = "begin {0}\n" + "x" * 5000 + "\nend {0}\n"
    assert (directory / "out").read_text() == "".join(block.format(number) for number in numbers)
    found = {path.name: path.read_text() for path in (directory / "results").iterdir()}
    assert found == {str(number): f"result {number}" for number in numbers}


FULL_DISK = """
mount -t tmpfs -o size=8m tmpfs small && cd small && mkdir results && head -c 7700000 /dev/zero > ballast
python() { "$PYTHON" -c "$PROGRAM" >> out; }
python && exit 3
python && exit 4
rm ballast
python && cp -r joblog out results ../copy
"""


def test_a_really_full_disk_stops_the_coordinator_and_room_lets_it_go_on(tmp_path: Path) -> None:
    require_namespaces()
    for name in ("small", "copy"):
        (tmp_path / name).mkdir()
    environment = {**os.environ, "PYTHONPATH": os.fspath(ROOT), "PYTHON": sys.executable, "PROGRAM": PROGRAM}
    command = ["unshare", "--map-root-user", "--mount", "sh", "-c", FULL_DISK]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = r"cannot .*(no space left on device|disk is full|disk i/o error)(; .*)?; tasks \d+-60 are not saved"
    assert [bool(re.fullmatch(said, line)) for line in done.stderr.splitlines()] == [True, True], done.stderr
    _check_each_once(tmp_path / "copy")


def _wait_for_progress(log: Path, steps: int, process: subprocess.Popen[bytes]) -> None:
    """Until so many more tasks have ended, so that a kill hits a coordinator at work and not one that starts."""
    before = log.stat().st_size if log.exists() else 0
    while process.poll() is None and (log.stat().st_size if log.exists() else 0) < before + steps * 25:
        sleep(0.0005)
