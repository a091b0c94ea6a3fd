"""What a job writes: kept, whole or not there, swept."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Container
from pathlib import Path

import pytest

from cexec.cmap.inputs.tasks import FILE, NOTHING, STDERR, STDOUT, Result, Task, TaskInput
from cexec.cmap.results import attempt_files
from cexec.cmap.results.attempt_files import (
    AttemptFiles,
    FileOutput,
    Output,
    make_results_directory,
    sweep,
    temporary_name,
)
from cexec.errors import LocalError, UsageError
from tests.cmap.results.renaming import carry_out

pytestmark = pytest.mark.usefixtures("process_end")

TOKEN = "0123456789abcdef"


@pytest.fixture(autouse=True)
def _in_a_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def task(*wanted: Result) -> Task:
    return Task(7, stdin=TaskInput(NOTHING), results=list(wanted), parameters={"id": "7"})


def everything() -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in Path().rglob("*") if path.is_file()}


@pytest.mark.parametrize("size", [0, 1, attempt_files.MEMORY, attempt_files.MEMORY + 1, 3 * attempt_files.MEMORY])
def test_an_output_gives_back_what_it_was_given(size: int) -> None:
    data = os.urandom(size)
    output = Output()
    for start in range(0, size, 50_000):
        output.append(memoryview(data)[start : start + 50_000])
    assert (output.size, b"".join(output.pieces()), b"".join(output.pieces())) == (size, data, data)
    output.close()
    assert b"".join(output.pieces()) == b""


def test_results_get_their_names_at_the_end_only() -> None:
    os.mkdir("d")
    files = AttemptFiles(task(Result(STDOUT, "d/out"), Result(FILE, "d/pic", "p.png")), TOKEN)
    files.outputs[STDOUT].append(b"to the file")
    files.outputs["p.png"].append(b"picture")
    files.outputs[STDERR].append(b"kept here")
    assert not os.path.exists("d/out")
    assert all(name.startswith(f"d/.cmap-{TOKEN}-") for name in everything())
    files.finish(sync=True)
    assert [(rename.final, rename.size) for rename in files.renames] == [("d/out", 11), ("d/pic", 7)]
    carry_out(files.renames)
    assert everything() == {"d/out": b"to the file", "d/pic": b"picture"}
    assert b"".join(files.outputs[STDERR].pieces()) == b"kept here"


def test_an_attempt_that_does_not_count_leaves_nothing() -> None:
    os.mkdir("results")
    files = AttemptFiles(task(Result(STDERR, "err")), TOKEN, "results")
    files.outputs[STDERR].append(b"x")
    files.outputs[STDOUT].append(b"x")
    files.discard()
    files.discard()
    assert everything() == {}
    assert os.listdir("results") == []


def test_a_task_has_a_directory_of_its_own_in_results() -> None:
    os.mkdir("results")
    files = AttemptFiles(task(Result(STDERR, "err")), TOKEN, "results")
    files.outputs[STDOUT].append(b"out")
    files.outputs[STDERR].append(b"err")
    files.finish(sync=True)
    carry_out(files.renames)
    assert everything() == {"err": b"err", "results/7/stdout": b"out", "results/7/parameters.json": b'{"id": "7"}\n'}
    assert json.loads(Path("results/7/parameters.json").read_text()) == {"id": "7"}


def test_nothing_is_left_when_one_of_several_results_cannot_be_begun() -> None:
    with pytest.raises(LocalError, match="cannot write no/err: no such file or directory"):
        AttemptFiles(task(Result(STDOUT, "out"), Result(STDERR, "no/err")), TOKEN)
    assert everything() == {}
    with pytest.raises(LocalError, match="no such file"):
        AttemptFiles(task(Result(STDOUT, "out")), TOKEN, "no")
    assert everything() == {}


def full(*_: object) -> int:
    raise OSError(errno.ENOSPC, "")


@pytest.mark.parametrize("call", ["write", "close"])
def test_a_full_disk_is_told_with_the_file_that_the_user_asked_for(monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    output = FileOutput("draft", "out")
    with monkeypatch.context() as patch, pytest.raises(LocalError, match="cannot write out: no space left on device"):
        patch.setattr(os, call, full)
        output.append(b"x")
        output.close()


def test_a_full_disk_does_not_keep_an_attempt_from_being_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    files = AttemptFiles(task(Result(STDOUT, "out")), TOKEN)
    with monkeypatch.context() as patch:
        patch.setattr(os, "close", full)
        files.discard()
    assert everything() == {}


def test_a_file_output_is_read_while_it_is_written() -> None:
    output = FileOutput("out", "out")
    output.append(b"one")
    assert b"".join(output.pieces()) == b"one"
    output.append(b"two")
    output.close()
    assert (output.size, b"".join(output.pieces())) == (6, b"onetwo")


def test_what_a_killed_run_left_is_swept_and_nothing_else() -> None:
    os.makedirs("d/e")
    other = temporary_name("f" * 16)
    for name in ("keep", ".cmap-keep", temporary_name(TOKEN), f"d/{temporary_name(TOKEN)}", f"d/{other}"):
        Path(name).write_bytes(b"")
    inside = Path("d") / temporary_name(TOKEN)
    inside.mkdir()
    (inside / "stdout").write_bytes(b"x")
    sweep(["", "d"], TOKEN)
    assert sorted(everything()) == sorted([".cmap-keep", "keep", f"d/{other}"])
    assert not inside.exists()


def results_in(path: str, numbers: Container[int] | None, *done: int, overwrite: bool = False) -> None:
    make_results_directory(path, numbers, done.__contains__, overwrite=overwrite, advice="remove it")


def test_the_directory_of_results_is_made_and_looked_at() -> None:
    results_in("a/b", [1, 2])
    assert os.path.isdir("a/b")
    os.mkdir("a/b/2")
    results_in("a/b", [1, 3])
    results_in("a/b", [1, 2], 2)
    for numbers in ([1, 2], None):
        with pytest.raises(UsageError, match="row 2: result a/b/2 exists already; remove it"):
            results_in("a/b", numbers)


def test_directories_of_results_are_replaced_on_purpose() -> None:
    for name in ("1", "2", "3", "007", "x"):
        os.makedirs(f"d/{name}/stdout")
    results_in("d", range(2, 4), 3, overwrite=True)
    assert sorted(os.listdir("d")) == ["007", "1", "3", "x"]
    results_in("d", None, overwrite=True)  # with --pipe
    assert sorted(os.listdir("d")) == ["007", "x"]


def test_what_is_no_result_is_not_removed() -> None:
    """An input may be called 1, and --results be the directory that it is in."""
    os.makedirs("d/2/stdout")
    Path("d/1").write_text("an input")
    Path("d/2/mine").write_text("not ours")
    os.symlink("2", "d/3")
    for number in (1, 2, 3):
        with pytest.raises(UsageError, match=f"row {number}: d/{number} is no result of cmap, so it is not replaced"):
            results_in("d", [number], overwrite=True)
    assert sorted(os.listdir("d")) == ["1", "2", "3"]


def test_many_rows_cost_nothing_where_few_results_are() -> None:
    os.makedirs("d/999999999999")
    with pytest.raises(UsageError, match="row 999999999999: result d/999999999999 exists already"):
        results_in("d", range(1, 10**14))


def test_a_directory_of_results_that_cannot_be_used_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("file").write_bytes(b"")
    with pytest.raises(UsageError, match="--results file: file exists"):
        results_in("file", [1])
    with pytest.raises(UsageError, match="--results file/d: not a directory"):
        results_in("file/d", [1])
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(UsageError, match="--results d: directory cannot be written"):
        results_in("d", [1])
