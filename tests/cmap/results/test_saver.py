"""The ends of tasks, one after the other."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterable, Sequence
from itertools import count, islice
from pathlib import Path
from typing import Any

import pytest

from cexec.cmap.inputs.tasks import DATA, STDOUT, Result, Task, TaskInput
from cexec.cmap.results.appending import AppendFile
from cexec.cmap.results.attempt_files import AttemptFiles
from cexec.cmap.results.collect import Collected, Concatenated, EndedTask
from cexec.cmap.results.commit import Committer, FinishedTask, Saved
from cexec.cmap.results.outcome import TaskOutcome
from cexec.cmap.results.saver import GATHER, LARGEST_GROUP, MOST_WAITING, Saver
from cexec.cmap.results.syncing import Syncer
from cexec.cmap.results.validate import Validator
from cexec.errors import LocalError
from tests.cmap.fakes import BEGIN, clock, in_virtual_time
from tests.waiting import one_turn

pytestmark = pytest.mark.usefixtures("process_end")


@pytest.fixture(autouse=True)
def _directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def finished(number: int, output: bytes, *, succeeded: bool = True, result: str = "") -> FinishedTask:
    results = [Result(STDOUT, result)] if result else []
    task = Task(number, stdin=TaskInput(DATA), results=results, parameters={"n": str(number)})
    files = AttemptFiles(task, "0" * 16)
    files.outputs[STDOUT].append(output)
    outcome = TaskOutcome(number, succeeded=succeeded, command=str)
    return FinishedTask(EndedTask(task, outcome, files.outputs), files, None)


class Run:
    """A saver that writes into one file."""

    def __init__(self, order: Iterable[int] | None, collector: Validator | None = None) -> None:
        file = AppendFile.open("out")
        writer = Concatenated(file) if collector is None else Collected(file)
        self.saved: list[int] = []
        self.syncer = Syncer()
        self.saver = Saver(Committer(None, [writer], self.syncer), order=order, collector=collector)
        self.saver.saved = lambda ended: self.saved.append(ended.task.number)

    def __call__(self, *things: FinishedTask | int) -> str:
        """A number is skipped; what is written at the end."""

        async def play() -> None:
            running = asyncio.create_task(self.saver.run())
            for thing in things:
                if isinstance(thing, int):
                    self.saver.skip(thing)
                else:
                    self.saver.put(thing)
                await one_turn()
            self.saver.close()
            await running

        try:
            asyncio.run(play())
        finally:
            self.syncer.close()
        return Path("out").read_text()


def test_tasks_are_saved_as_they_come() -> None:
    run = Run(None)
    assert run(finished(2, b"two "), finished(1, b"one ")) == "two one "
    assert run.saved == [2, 1]
    assert not list(run.saver.unsaved)


def test_tasks_are_saved_in_order() -> None:
    assert Run(range(1, 5))(finished(3, b"three "), 2, finished(1, b"one "), finished(4, b"four ")) == "one three four "


def test_what_never_has_its_turn_is_saved_at_the_end() -> None:
    run = Run(range(1, 5))
    assert run(finished(4, b"four "), finished(2, b"two ")) == "two four "
    assert run.saved == [2, 4]


def test_results_of_a_task_that_failed_are_not_kept() -> None:
    run = Run(None)
    assert run(finished(1, b"x", succeeded=False, result="a"), finished(2, b"y", result="b")) == "y"
    assert sorted(os.listdir()) == ["b", "out"]


def test_a_command_collects_in_order() -> None:
    run = Run((1, 2), Validator('echo "$PARAM_n: $(cat stdout)"', "--collect"))
    assert run(finished(2, b"two"), finished(1, b"one")) == "1: one\n2: two\n"


def test_what_cannot_be_saved_ends_it_and_is_named() -> None:
    run = Run((1, 2, 3), Validator("test $PARAM_n != 2", "--collect"))
    with pytest.raises(LocalError, match="row 2: --collect exited with 1"):
        run(finished(3, b""), finished(2, b""), finished(1, b""))
    assert run.saved == [1]
    assert sorted(run.saver.unsaved) == [2, 3]


# groups


class Recorder:
    """A committer that waits for a slow disk: it notes the tasks of each group, and when it was asked about one.

    It is asked when the first task of a group has come, and again just before the group is saved.
    """

    def __init__(self, *, fails_at: int = 0) -> None:
        self.groups: list[list[int]] = []
        self.asked: list[float] = []
        self.threads: set[int] = set()
        self._fails_at = fails_at

    def takes_time(self, group: Iterable[FinishedTask]) -> bool:
        self.asked.append(clock() - BEGIN)
        return True

    def only_prints(self, group: Iterable[FinishedTask]) -> bool:
        return False

    def save(self, group: Sequence[FinishedTask]) -> Saved:
        numbers = [task.ended.task.number for task in group]
        self.groups.append(numbers)
        self.threads.add(threading.get_ident())
        if self._fails_at in numbers:
            place = numbers.index(self._fails_at)
            return Saved(group[:place], LocalError("the disk is broken"))
        return Saved(group)


def saved_by(recorder: Recorder, *steps: float | int) -> Saver:
    """A whole number puts so many tasks, a fraction is waited for."""

    async def play() -> Saver:
        committer: Any = recorder
        saver = Saver(committer)
        running = asyncio.create_task(saver.run())
        numbers = count(1)
        for step in steps:
            if isinstance(step, int):
                for number in islice(numbers, step):
                    saver.put(finished(number, b""))
            else:
                await asyncio.sleep(step)
        saver.close()
        await running
        return saver

    return in_virtual_time(play())


def test_tasks_that_end_within_a_moment_are_saved_together() -> None:
    recorder = Recorder()
    saved_by(recorder, 0.5, 1, 0.05, 1, 0.05, 1, 0.5, 1, 0.5)
    assert recorder.groups == [[1, 2, 3], [4]]
    assert recorder.asked[:2] == [pytest.approx(0.5), pytest.approx(0.5 + GATHER)]
    assert threading.get_ident() not in recorder.threads


def test_the_last_tasks_wait_for_nobody() -> None:
    recorder = Recorder()
    saved_by(recorder, 0.5, 2)
    assert recorder.groups == [[1, 2]]
    assert recorder.asked == [pytest.approx(0.5)] * 2


def test_a_group_has_an_end() -> None:
    recorder = Recorder()
    saved_by(recorder, 2 * LARGEST_GROUP + 10)
    assert [len(group) for group in recorder.groups] == [LARGEST_GROUP, LARGEST_GROUP, 10]


def test_nothing_new_should_begin_while_much_waits_for_the_disk() -> None:
    async def fill() -> tuple[bool, bool]:
        committer: Any = Recorder()
        saver = Saver(committer)
        for number in range(MOST_WAITING - 1):
            saver.put(finished(number, b""))
        before = saver.full
        saver.put(finished(MOST_WAITING, b""))
        return before, saver.full

    assert in_virtual_time(fill()) == (False, True)


def test_what_a_broken_disk_did_not_take_is_named_and_thrown_away() -> None:
    recorder = Recorder(fails_at=3)
    with pytest.raises(LocalError, match="the disk is broken"):
        saved_by(recorder, 5)
    assert recorder.groups == [[1, 2, 3, 4, 5]]


def printed_by(*tasks: FinishedTask, order: Iterable[int] | None = None, reads: bool = True) -> tuple[bytes, Saver]:
    """Returns what is in a pipe as soon as the last task was put, and the saver after its end."""
    reading, writing = os.pipe()
    committer = Committer(None, [Concatenated(AppendFile(writing, "a pipe"))], Syncer())

    async def play() -> tuple[bytes, Saver]:
        saver = Saver(committer, order=order)
        running = asyncio.create_task(saver.run())
        await one_turn()  # one turn of the loop, in which `run` begins and then waits for tasks
        if not reads:
            os.close(reading)
        for task in tasks:
            saver.put(task)
        found = os.read(reading, 1 << 16) if reads else b""
        saver.close()
        if reads:
            await running
        else:
            with pytest.raises(LocalError, match="broken pipe"):
                await running
        return found, saver

    try:
        return asyncio.run(play())
    finally:
        os.close(writing)
        if reads:
            os.close(reading)


def test_what_goes_to_a_pipe_is_written_when_it_is_put() -> None:
    found, saver = printed_by(finished(1, b"one "), finished(2, b"two "))
    assert found == b"one two " and list(saver.unsaved) == []


def test_what_goes_to_a_pipe_waits_for_its_turn_too() -> None:
    found, _ = printed_by(finished(2, b"two "), finished(3, b"three "), finished(1, b"one "), order=[1, 2, 3])
    assert found == b"one two three "


def test_nothing_is_saved_after_a_pipe_whose_reader_has_gone() -> None:
    _, saver = printed_by(finished(1, b"one "), finished(2, b"two "), reads=False)
    assert sorted(saver.unsaved) == [1, 2]


def test_whoever_waits_for_room_is_woken_when_a_group_is_saved() -> None:
    async def play() -> list[bool]:
        committer: Any = Recorder()
        saver = Saver(committer)
        for number in range(1, MOST_WAITING + 1):
            saver.put(finished(number, b""))
        assert saver.full
        found = [await saver.room(0.1)]
        running = asyncio.create_task(saver.run())
        found.append(await saver.room(10.0))
        saver.close()
        await running
        return found

    assert in_virtual_time(play()) == [False, True]
