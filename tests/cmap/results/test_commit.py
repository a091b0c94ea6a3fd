"""The end of a task: all of it or nothing, whenever the power of kill -9 strikes."""

from __future__ import annotations

import errno
import os
import random
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import count
from pathlib import Path
from time import sleep
from typing import Any

import pytest

from cexec.cmap.inputs.tasks import DATA, FILE, STDOUT, Result, Task, TaskInput
from cexec.cmap.results import syncing
from cexec.cmap.results.appending import AppendFile
from cexec.cmap.results.attempt_files import AttemptFiles, sweep
from cexec.cmap.results.collect import EndedTask
from cexec.cmap.results.commit import Committer, FinishedTask, Saved, unsaved
from cexec.cmap.results.journal import NEW, RESUME, Journal, TaskClaim, TaskIdentity
from cexec.cmap.results.journal_rows import TASK_ENDS
from cexec.cmap.results.journal_store import RowChange
from cexec.cmap.results.outcome import TaskOutcome
from cexec.cmap.results.renames import ResultDirectories
from cexec.cmap.results.syncing import Syncer
from cexec.errors import LocalError
from tests.environment import ROOT
from tests.needs import require_namespaces

pytestmark = pytest.mark.usefixtures("process_end")

TASKS = 60  # of the coordinator that is killed
KILLS = 25


class Killed(BaseException):
    """Stands for kill -9 at one place."""


class Writer:
    """Adds fixed pieces to a file for each task."""

    def __init__(self, file: AppendFile, *pieces: bytes) -> None:
        self.file = file
        self._pieces = pieces

    def adds(self, ended: EndedTask) -> bool:
        return bool(self._pieces)

    def additions(self, ended: EndedTask) -> Iterable[bytes]:
        return self._pieces


class Coordinator:
    """One task that adds to two files and has two results."""

    def __init__(self, directory: Path, mode: str = NEW, *, has_journal: bool = True) -> None:
        self.directory = directory
        self.journal = Journal(str(directory / "state"), mode, now=0.0)
        sweep([str(directory)], self.journal.token)
        self.log = AppendFile.open(str(directory / "log"), b"head\n")
        self.table = AppendFile.open(str(directory / "table"))
        self.syncer = Syncer()
        writers = [Writer(self.log, b"line\n"), Writer(self.table, b"row ", b"one\n")]
        self.committer = Committer(self.journal if has_journal else None, writers, self.syncer)

    def claim(self, number: int = 1) -> TaskClaim | None:
        return self.journal.claim(TaskIdentity(b"k" * 15 + bytes([number]), number), "command")

    def finished(self, number: int = 1, directory: str = "") -> FinishedTask:
        """A task with the results `one` and `two`, or one2 and two2 for task 2."""
        place, suffix = self.directory / directory, "" if number == 1 else str(number)
        results = [Result(STDOUT, str(place / f"one{suffix}")), Result(FILE, str(place / f"two{suffix}"), "2")]
        task = Task(number, stdin=TaskInput(DATA), results=results)
        files = AttemptFiles(task, self.journal.token)
        files.outputs[STDOUT].append(b"one")
        files.outputs["2"].append(b"two")
        outcome = TaskOutcome(number, succeeded=True, command=str)
        return FinishedTask(EndedTask(task, outcome, files.outputs), files, self.claim(number))

    def save(self, *group: FinishedTask) -> Saved:
        return self.committer.save(group)

    def commit(self) -> None:
        """Saves the task; raises what went wrong."""
        if (error := self.save(self.finished()).error) is not None:
            raise error

    def die(self) -> None:
        self.syncer.close()
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
    coordinator = Coordinator(tmp_path, has_journal=False)
    coordinator.commit()
    assert coordinator.state() == COMMITTED
    coordinator.die()


STEPS = [
    ("cexec.cmap.results.journal.Journal.intend", False, UNTOUCHED),
    ("cexec.cmap.results.journal.Journal.intend", True, UNTOUCHED),
    ("cexec.cmap.results.appending.AppendFile.append", False, UNTOUCHED),
    ("cexec.cmap.results.appending.AppendFile.append", True, UNTOUCHED),
    ("cexec.cmap.results.journal.Journal.commit", False, UNTOUCHED),
    ("cexec.cmap.results.journal.Journal.commit", True, COMMITTED),
    ("cexec.cmap.results.syncing.sync_content", False, UNTOUCHED),
    ("cexec.cmap.results.syncing.sync_content", True, UNTOUCHED),
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

        def dying(*arguments: object, **names: object) -> None:
            if after:
                real(*arguments, **names)
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
        again.die()
        again = Coordinator(tmp_path, RESUME)
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

    def intend_then_full(places: Any) -> None:
        intend(places)
        coordinator.journal.store.database.execute("PRAGMA query_only=ON")

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
    write = coordinator.journal.store.write
    failures = [LocalError("database or disk is full")]

    def failing_once(changes: Any, **options: Any) -> None:
        changes = list(changes)
        if any(isinstance(change, RowChange) and change.statement is TASK_ENDS for change in changes) and failures:
            raise failures.pop()
        write(changes, **options)

    monkeypatch.setattr(coordinator.journal.store, "write", failing_once)
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

    def refusing(*_: object) -> None:
        raise LocalError("cannot write one: input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(ResultDirectories, "carry_out", refusing)
        with pytest.raises(LocalError, match="cannot write one"):
            coordinator.commit()
    coordinator.journal.close()
    again = Coordinator(tmp_path, RESUME)
    assert again.state() == COMMITTED
    assert again.claim() is None
    again.die()


def test_results_whose_directory_is_moved_while_the_journal_commits_are_there_and_done_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: the journal and the joblog had the task, its results had no names, and --resume ran it again."""
    (tmp_path / "results").mkdir()
    coordinator = Coordinator(tmp_path)
    commit = coordinator.journal.commit

    def moved_meanwhile(ends: Any) -> None:
        commit(ends)
        (tmp_path / "results").rename(tmp_path / "elsewhere")

    monkeypatch.setattr(coordinator.journal, "commit", moved_meanwhile)
    group = [coordinator.finished(directory="results")]
    saved = coordinator.save(*group)
    assert (list(saved.tasks), saved.error) == (group, None)
    assert sorted(os.listdir(tmp_path / "elsewhere")) == ["one", "two"]
    coordinator.die()
    again = Coordinator(tmp_path, RESUME)
    assert again.claim() is None
    assert again.state() == {"log": "head\nline\n", "table": "row one\n"}
    again.die()


def test_results_whose_directory_was_moved_before_the_journal_knew_are_not_done(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    coordinator = Coordinator(tmp_path)
    task = coordinator.finished(directory="results")
    (tmp_path / "results").rename(tmp_path / "elsewhere")
    (tmp_path / "results").mkdir()
    saved = coordinator.save(task)
    assert list(saved.tasks) == [] and "was removed or moved while the task ran" in str(saved.error)
    assert coordinator.state() == UNTOUCHED and coordinator.journal.counts() == (0, 0)
    coordinator.die()


def test_a_result_that_can_never_get_its_name_does_not_end_the_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    coordinator = Coordinator(tmp_path)
    monkeypatch.setattr(ResultDirectories, "carry_out", lambda *_: None)
    monkeypatch.setattr(coordinator.journal, "settle", lambda _: None)
    coordinator.commit()
    coordinator.die()
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "x").touch()
    again = Coordinator(tmp_path, RESUME)
    assert again.journal.counts() == (0, 0)
    assert again.claim() is not None
    again.die()


# groups


def test_a_group_is_saved_together(tmp_path: Path) -> None:
    coordinator = Coordinator(tmp_path)
    group = [coordinator.finished(number) for number in (1, 2)]
    saved = coordinator.save(*group)
    assert (list(saved.tasks), saved.error) == (group, None)
    assert coordinator.state() == {**COMMITTED, "log": "head\nline\nline\n", "table": "row one\nrow one\n"}
    assert (tmp_path / "two2").read_text() == "two"
    assert coordinator.journal.counts() == (2, 0)
    coordinator.die()


def test_a_failed_sync_of_a_result_means_not_saved_and_is_not_retried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    coordinator = Coordinator(tmp_path)
    group = [coordinator.finished(number) for number in (1, 2, 3)]
    calls: list[str] = []

    def fail(fd: int) -> None:
        calls.append(name := os.readlink(f"/proc/self/fd/{fd}"))
        if os.path.samestat(os.fstat(fd), os.stat(group[1].files.outputs["2"].path)):  # type: ignore[attr-defined]
            calls.append("failed")
            raise OSError(errno.EIO, "Input/output error")
        assert name

    monkeypatch.setattr(syncing, "sync_content", fail)
    saved = coordinator.save(*group)
    assert list(saved.tasks) == group[:1]
    assert str(saved.error) == f"cannot bring {tmp_path}/two2 to disk: input/output error"
    assert calls.count("failed") == 1
    assert coordinator.state() == COMMITTED
    assert [task.committed for task in group] == [True, False, False]
    coordinator.die()
    again = Coordinator(tmp_path, RESUME)
    assert [again.claim(number) is not None for number in (1, 2, 3)] == [False, True, True]
    again.die()


def test_a_failed_sync_of_a_table_means_that_no_task_of_the_group_is_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    coordinator = Coordinator(tmp_path)

    def fail() -> None:
        raise LocalError("cannot bring table to disk: input/output error")

    monkeypatch.setattr(coordinator.table, "sync", fail)
    saved = coordinator.save(coordinator.finished(1), coordinator.finished(2))
    assert (list(saved.tasks), str(saved.error)) == ([], "cannot bring table to disk: input/output error")
    assert coordinator.state() == UNTOUCHED
    assert coordinator.journal.counts() == (0, 0)
    coordinator.die()


def test_what_a_pipe_took_before_its_reader_left_is_saved(tmp_path: Path) -> None:
    coordinator = Coordinator(tmp_path)
    group = [coordinator.finished(number) for number in (1, 2, 3)]
    append, calls = coordinator.table.append, count()

    def break_later(pieces: Iterable[bytes]) -> None:
        if next(calls):
            raise LocalError("cannot write to standard output: broken pipe")
        append(pieces)

    coordinator.table.append = break_later  # type: ignore[method-assign]
    saved = coordinator.save(*group)
    assert (list(saved.tasks), str(saved.error)) == (group[:1], "cannot write to standard output: broken pipe")
    assert coordinator.state() == COMMITTED
    assert coordinator.journal.counts() == (1, 0)
    coordinator.die()


@pytest.mark.parametrize("removed", [True, False])
def test_a_directory_of_results_that_was_made_again_has_no_task_that_is_done(tmp_path: Path, removed: bool) -> None:
    (tmp_path / "d").mkdir()
    coordinator = Coordinator(tmp_path)
    task = coordinator.finished(1, "d")
    (tmp_path / "d").rename(tmp_path / "moved")
    if removed:
        shutil.rmtree(tmp_path / "moved")
    (tmp_path / "d").mkdir()
    saved = coordinator.save(task)
    assert not saved.tasks and "directory was removed or moved" in str(saved.error)
    assert coordinator.state() == UNTOUCHED
    coordinator.die()
    again = Coordinator(tmp_path, RESUME)
    assert again.journal.counts() == (0, 0)
    again.die()


def test_a_directory_that_vanishes_between_commit_and_rename_has_no_task_that_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "d").mkdir()
    coordinator = Coordinator(tmp_path)
    commit = coordinator.journal.commit

    def commit_and_move(ends: Any) -> None:
        commit(ends)
        shutil.rmtree(tmp_path / "d")
        (tmp_path / "d").mkdir()

    monkeypatch.setattr(coordinator.journal, "commit", commit_and_move)
    saved = coordinator.save(coordinator.finished(1, "d"))
    assert not saved.tasks and "cannot write" in str(saved.error)
    coordinator.journal.close()
    coordinator.syncer.close()
    again = Coordinator(tmp_path, RESUME)
    assert again.journal.counts() == (0, 0)
    assert again.claim() is not None
    again.die()


def test_everything_is_on_disk_before_the_journal_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "d").mkdir()
    coordinator = Coordinator(tmp_path)
    steps: list[str] = []
    task = coordinator.finished(1, "d")
    temporary = {os.path.basename(path) for path in map(str, (tmp_path / "d").iterdir())}

    def noting(step: Callable[[int], None]) -> Callable[[int], None]:
        def note(fd: int) -> None:
            name = os.path.basename(os.readlink(f"/proc/self/fd/{fd}"))
            steps.append("result" if name in temporary else name)
            step(fd)

        return note

    monkeypatch.setattr(syncing, "sync_content", noting(os.fdatasync))
    monkeypatch.setattr(os, "fsync", noting(os.fsync))
    for name in ("intend", "commit", "settle"):
        monkeypatch.setattr(coordinator.journal, name, _noted(getattr(coordinator.journal, name), name, steps))
    assert list(coordinator.save(task).tasks) == [task]
    coordinator.die()
    at = steps.index("commit")
    assert sorted(steps[:3]) == ["intend", "result", "result"]
    assert {"log", "table", "d", tmp_path.name} <= set(steps[3:at])  # the new directory's parent, too
    assert steps[at + 1 :] == ["d", "settle"]


def _noted(call: Callable[[Any], None], name: str, steps: list[str]) -> Callable[[Any], None]:
    def note(argument: Any) -> None:
        steps.append(name)
        call(argument)

    return note


def test_what_a_coordinator_that_stops_says() -> None:
    assert unsaved([3]) == "task 3 is not saved"
    assert unsaved({9, 7, 3, 8}) == "tasks 3, 7-9 are not saved"


# the real thing

PROGRAM = f"""
import os, signal, sys
from cexec.cmap.inputs.tasks import DATA, STDOUT, Result, Task, TaskInput
from cexec.cmap.results.appending import AppendFile
from cexec.cmap.results.attempt_files import AttemptFiles, sweep
from cexec.cmap.results.collect import EndedTask, Joblog
from cexec.cmap.results.commit import Committer, FinishedTask, unsaved
from cexec.cmap.results.journal import RESUME, Journal, TaskIdentity
from cexec.cmap.results.outcome import TaskOutcome
from cexec.cmap.results.renames import ResultDirectories
from cexec.cmap.results import joblog
from cexec.cmap.results.syncing import Syncer
from cexec.errors import LocalError

class Block:
    file = AppendFile(1, "standard output")

    def adds(self, ended):
        return True

    def additions(self, ended):
        number = ended.task.number
        return [b"begin %d\\n" % number, b"x" * 5000 + b"\\n", b"end %d\\n" % number]

number = 1
remaining = int(sys.argv[1]) if sys.argv[1:] else {TASKS}  # tasks until it waits to be killed
try:
    journal = Journal("state", RESUME, now=0.0)
    sweep(["results"], journal.token)
    log = AppendFile.open("joblog", joblog.HEADER)
    committer = Committer(journal, [Joblog(log), Block()], Syncer())
    for number in range(1, {TASKS + 1}):
        claim = journal.claim(TaskIdentity(number.to_bytes(16, "big"), number), "")
        if claim is None:
            continue
        if not remaining:
            signal.pause()
        remaining -= 1
        task = Task(number, stdin=TaskInput(DATA), results=[Result(STDOUT, f"results/{{number}}")])
        files = AttemptFiles(task, journal.token)
        files.outputs[STDOUT].append(b"result %d" % number)
        outcome = TaskOutcome(number, succeeded=number % 7 != 0, command=str, exitval=int(number % 7 == 0))
        ended = EndedTask(task, outcome, files.outputs)
        saved = committer.save([FinishedTask(ended, files, claim)])
        if saved.error:
            files.discard()
            raise saved.error
        if number % 7 == 0:
            files.discard()
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
    assert found == {str(number): f"result {number}" for number in numbers if number % 7}


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
