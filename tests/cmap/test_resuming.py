"""Runs that go on from a journal: the real set-up and the real coordinator, with workers that are made up."""

from __future__ import annotations

import asyncio
import io
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from cexec.client.aio.lease_job import LeaseJob
from cexec.cmap.results import syncing
from cexec.cmap.run.coordinator import Coordinator
from cexec.cmap.run.observer import Observer
from cexec.cmap.run_options import Options
from cexec.cmap.setup import Setup
from cexec.errors import CexecError, LocalError, UsageError
from cexec.protocol.connection.frames import Exit, Go
from tests.cmap.fakes import FakeLease, Workers, clock, exited, in_virtual_time, read_input, terms

FOR_EVER = 1e9


@pytest.fixture(autouse=True)
def _directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("key").touch()


class Killed(BaseException):
    """Stands for kill -9 of the coordinator."""


class Cluster:
    """What the tasks do, and which of them were begun, by their first argument."""

    def __init__(self, *, once: bool = False) -> None:
        self.begun: list[str] = []
        self.fails: set[str] = set()
        self.hangs: set[str] = set()
        self.kills: str = ""
        self.once = once
        self.told: list[str] = []
        self.argument = "{}"

    async def program(self, lease: FakeLease, job: LeaseJob, go: Go) -> Exit:
        name = os.fsdecode(job.arguments[0])
        self.begun.append(name)
        await asyncio.sleep(FOR_EVER if name in self.hangs else 0.1)
        if name == self.kills:
            raise Killed
        content = read_input(job) or name.encode("utf-8", "surrogateescape")
        job.sinks[1].write(memoryview(b"result of " + content))
        return exited(name in self.fails)

    def run(self, *inputs: str, observers: Sequence[Observer] = (), **values: Any) -> int:
        """One call of cmap; the tasks' argument is their input.  What is said at the end is in `told`."""
        self.begun.clear()
        setup = Setup(
            Options(**values),
            application="app.pub",
            key="key",
            fingerprint="f",
            arguments=[self.argument],
            inputs=[(":::", list(inputs))] if inputs else [],
            stdin=io.BytesIO(),
        )

        async def coordinate() -> int:
            parts = setup.parts(terms(), observers, lambda text: None)
            parts.find_worker = Workers(self.program, "abcd", once=self.once).find_worker
            parts.clock = clock
            return await Coordinator(parts).run()

        killed = True
        try:
            setup.open()
            status = in_virtual_time(coordinate())
            self.told = setup.left_undone
            killed = False
            return status
        except (LocalError, UsageError):
            killed = False
            raise
        finally:
            if killed and setup.journal is not None:
                setup.journal.abandon()
            else:
                setup.close()


def results(directory: str = ".") -> dict[str, str]:
    return {path.name: path.read_text() for path in Path(directory).glob("*.out")}


# done means on disk


class Settled(Observer):
    """Notes what the file of a task contains when the task is said to be saved, and how many syncs there had been."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def settled(self, task: Any, outcome: Any, now: float) -> None:
        self.seen.append(Path(task.results[0].path).read_text())


def test_observers_hear_of_a_task_when_it_is_on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    syncs: list[int] = []
    monkeypatch.setattr(syncing, "sync_content", syncs.append)
    settled = Settled()
    assert Cluster().run("a", "b", "c", stdout="{}.out", state="state", observers=[settled]) == 0
    assert sorted(settled.seen) == ["result of a", "result of b", "result of c"]
    assert len(syncs) == 3


@pytest.mark.parametrize("state", ["", "state"])
def test_without_sync_nothing_is_brought_to_disk(monkeypatch: pytest.MonkeyPatch, state: str) -> None:
    monkeypatch.setattr(syncing, "sync_content", lambda _: pytest.fail("synced"))
    assert Cluster().run("a", "b", stdout="{}.out", joblog="log", state=state, no_sync=True) == 0
    assert sorted(results()) == ["a.out", "b.out"]


def test_without_a_journal_results_are_on_disk_too(monkeypatch: pytest.MonkeyPatch) -> None:
    syncs: list[int] = []
    monkeypatch.setattr(syncing, "sync_content", syncs.append)
    assert Cluster().run("a", "b", stdout="{}.out", joblog="log") == 0
    assert len(syncs) == 3


def test_a_disk_that_fails_ends_the_run_and_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster()

    def fail(_: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(syncing, "sync_content", fail)
        with pytest.raises(LocalError, match=r"cannot bring .\.out to disk: input/output error"):
            cluster.run("a", "b", stdout="{}.out", state="state")
    assert sorted(os.listdir()) == ["key", "state"]
    assert cluster.run("a", "b", stdout="{}.out", state="state", resume=True) == 0
    assert sorted(cluster.begun) == ["a", "b"]


@pytest.mark.parametrize("how", ["remove", "move"])
def test_a_results_directory_that_is_made_again_during_a_run_loses_no_task(how: str) -> None:
    cluster = Cluster()

    class Spoiler(Observer):
        def ended(self, *_: object) -> None:
            if os.path.isdir("d") and not os.path.exists("spoilt"):
                Path("spoilt").touch()
                if how == "move":
                    os.rename("d", "moved")
                else:
                    shutil.rmtree("d")
                os.mkdir("d")

    os.mkdir("d")
    with pytest.raises(LocalError, match="its directory was removed or moved while the task ran"):
        cluster.run(*"abcdefghijkl", stdout="d/{}.out", state="state", joblog="log", observers=[Spoiler()])
    assert cluster.run(*"abcdefghijkl", stdout="d/{}.out", state="state", joblog="log", resume=True) == 0
    assert results("d") == {f"{name}.out": f"result of {name}" for name in "abcdefghijkl"}
    assert cluster.run(*"abcdefghijkl", stdout="d/{}.out", state="state", joblog="log", resume=True) == 0
    assert cluster.begun == []
    lines = Path("log").read_text().splitlines()[1:]
    assert sorted(line.split("\t")[0] for line in lines) == sorted(map(str, range(1, 13)))


# once


def test_what_ran_at_a_once_worker_when_cmap_was_killed_does_not_run_again() -> None:
    cluster = Cluster(once=True)
    cluster.kills, cluster.hangs = "b", {"c", "d"}
    with pytest.raises(CexecError, match="Killed"):
        cluster.run(*"abcd", stdout="{}.out", state="state")
    begun = sorted(cluster.begun)
    assert {"b", "c", "d"} <= set(begun)
    cluster.kills, cluster.hangs = "", set()
    assert cluster.run(*"abcde", stdout="{}.out", state="state", resume=True) == 0
    assert cluster.begun == ["e"]
    assert len(cluster.told) == 1 and "2-4, which a worker whose jobs must not be repeated" in cluster.told[0]
    assert cluster.run(*"abcde", stdout="{}.out", state="state", resume=True, repeat_once=True) == 0
    assert {"b", "c", "d"} <= set(cluster.begun)
    assert cluster.told == []
    assert sorted(results()) == [f"{name}.out" for name in "abcde"]


def test_repeating_once_needs_a_run_that_goes_on() -> None:
    with pytest.raises(UsageError, match="--repeat-once needs --resume"):
        Cluster().run("a", state="state", repeat_once=True)


# names and texts

LATIN = "caf\udce9"


def test_texts_that_are_no_utf_8_are_kept_and_found_again() -> None:
    cluster = Cluster()
    cluster.fails = {"b"}
    assert cluster.run(LATIN, "b", stdout="{}.out", state="state\udce9", joblog="log") == 1
    assert Path(f"{LATIN}.out").read_bytes() == b"result of caf\xe9"
    assert cluster.run(LATIN, "b", "c", stdout="{}.out", state="state\udce9", joblog="log", resume=True) == 0
    assert cluster.begun == ["c"]


# inputs that change, rows that move


def test_a_mended_input_is_run_by_retry_failed() -> None:
    for name in "ab":
        Path(f"{name}.in").write_text(name)
    cluster = Cluster()
    cluster.fails = {"b"}
    values: dict[str, Any] = {"stdin": "{}.in", "stdout": "{}.out", "state": "state"}
    assert cluster.run("a", "b", **values) == 1
    cluster.fails = set()
    Path("b.in").write_text("mended")
    assert cluster.run("a", "b", **values, retry_failed=True) == 0
    assert cluster.begun == ["b"]
    assert results() == {"a.out": "result of a", "b.out": "result of mended"}
    assert cluster.told == []


def test_a_failed_task_that_has_become_another_one_is_told() -> None:
    cluster = Cluster()
    cluster.fails = {"b"}
    assert cluster.run("a", "b", state="state") == 1
    assert cluster.run("a", "c", state="state", retry_failed=True) == 0
    assert cluster.begun == []
    assert len(cluster.told) == 1 and "not run again: task 2, which failed" in cluster.told[0]


@pytest.mark.parametrize(
    ("rows", "row"),
    [("xabc", 1), ("cba", 1), ("acb", 2), ("bc", 1)],
    ids=["inserted", "reversed", "exchanged", "removed"],
)
@pytest.mark.parametrize("numbered", [{"results": "d"}, {"stdout": "{#}.out"}], ids=["directory", "number"])
def test_a_rows_result_is_never_put_under_another_ones_number(rows: str, row: int, numbered: dict[str, Any]) -> None:
    cluster = Cluster()
    assert cluster.run(*"abc", state="state", **numbered) == 0
    before = {path: path.read_bytes() for path in Path().glob("**/*out")}
    with pytest.raises(UsageError, match=rf"row {row}: result \S+ exists already"):
        cluster.run(*rows, state="state", **numbered, resume=True)
    assert {path: path.read_bytes() for path in Path().glob("**/*out")} == before


@pytest.mark.parametrize("numbered", [{"results": "d"}, {"stdout": "{#}.out"}], ids=["directory", "number"])
def test_rows_that_are_added_at_the_end_disturb_nothing(numbered: dict[str, Any]) -> None:
    cluster = Cluster()
    assert cluster.run(*"ab", state="state", **numbered) == 0
    assert cluster.run(*"abba", state="state", **numbered, resume=True) == 0
    assert sorted(cluster.begun) == ["a", "b"]  # rows that are equal to others have results of their own
    contents = [path.read_text() for path in sorted(Path().glob("**/*out"))]
    assert contents == [f"result of {name}" for name in "abba"]


def test_equal_rows_in_random_order_have_their_own_results() -> None:
    cluster = Cluster()
    cluster.kills = "x"
    rows = "aaaaaaaa"
    with pytest.raises(CexecError, match="Killed"):
        cluster.run(*rows, "x", stdout="{#}.out", state="state", order="random")
    assert cluster.run(*rows, stdout="{#}.out", state="state", resume=True) == 0
    assert sorted(results()) == [f"{number}.out" for number in range(1, 9)]


def test_rows_may_move_where_results_are_called_by_the_input() -> None:
    cluster = Cluster()
    assert cluster.run(*"abc", state="state", stdout="{}.out") == 0
    assert cluster.run(*"xcba", state="state", stdout="{}.out", resume=True) == 0
    assert cluster.begun == ["x"]
    assert results() == {f"{name}.out": f"result of {name}" for name in "abcx"}


@pytest.mark.parametrize("values", [{"stdout": "{}" + "x" * 250}, {"stdout": "{}", "stdin_text": ""}])
def test_a_name_that_is_too_long_is_told_before_anything_runs(values: dict[str, Any]) -> None:
    cluster = Cluster()
    with pytest.raises(UsageError, match=r"row 2: cannot write \S+: its name is 256 bytes long, and at most 255 fit"):
        cluster.run("a", "b" * (6 if "stdin_text" not in values else 256), state="state", **values)
    assert cluster.begun == []
    assert cluster.run("a", "b", state="state", **values) == 0  # the journal has not suffered


def test_equal_tasks_with_other_names_of_results_are_found_again() -> None:
    """The names come from a column that the worker does not see."""
    cluster = Cluster()
    values: dict[str, Any] = {"params": "p.csv", "stdout": "{id}.out", "state": "state"}
    table = Path("p.csv")
    table.write_text("word,id\na,x\na,y\n")
    cluster.argument = "{word}"
    assert cluster.run(**values) == 0
    table.write_text("word,id\na,new\na,y\na,x\n")
    assert cluster.run(**values, resume=True) == 0
    assert len(cluster.begun) == 1
    assert sorted(results()) == ["new.out", "x.out", "y.out"]
