"""One task: by what it is known, and how it looks."""

from __future__ import annotations

import os
from pathlib import Path

from cexec.cmap.inputs.store import Spool
from cexec.cmap.inputs.tasks import BLOCK, DATA, NOTHING, PATH, SHARED, STDOUT, Result, Task, TaskInput


def task(number: int = 1, **given: object) -> Task:
    given.setdefault("stdin", TaskInput(NOTHING))
    return Task(number, **given)  # type: ignore[arg-type]


def test_the_key_does_not_depend_on_number_results_and_label() -> None:
    one = task(1, arguments=[b"a"], results=[Result(STDOUT, "x")], label="a", parameters={"1": "a"})
    assert one.key(b"app") == task(2, arguments=[b"a"]).key(b"app")


def test_every_command_and_input_has_a_key_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x")
    (tmp_path / "g").write_bytes(b"x")
    f, g = str(tmp_path / "f"), str(tmp_path / "g")
    different = [
        task(),
        task(arguments=[b""]),
        task(arguments=[b"a", b"b"]),
        task(arguments=[b"ab"]),
        task(environment={"a": b"b"}),
        task(environment={"b": b"a"}),
        task(environment={"a": b"b", "c": b"d"}),
        task(arguments=[b"a"], environment={"a": b"b"}),
        task(texts=[("a", b"b")]),
        task(texts=[("b", b"a")]),
        task(stdin=TaskInput(DATA)),
        task(stdin=TaskInput(DATA, data=b"a")),
        task(stdin=TaskInput(BLOCK, data=b"a")),
        task(stdin=TaskInput(PATH, path=f)),
        task(stdin=TaskInput(PATH, path=g)),
        task(stdin=TaskInput(SHARED, data=b"hash", spool=Spool())),
        task(sends=[("f", f)]),
        task(sends=[("g", g)]),
        task(sends=[("h", f)]),
    ]
    assert len({each.key(b"app") for each in different}) == len(different)
    assert task().key(b"app") != task().key(b"other")


def test_a_file_that_has_changed_is_the_same_task_with_another_input(tmp_path: Path) -> None:
    path = tmp_path / "f"
    key = task(stdin=TaskInput(PATH, path=str(path))).key(b"")
    stamps, old_keys = set(), set()
    for content, time in ((b"x", 1), (b"x", 2), (b"xy", 2), (None, 0)):
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_bytes(content)
            os.utime(path, ns=(1, time))
        it = task(stdin=TaskInput(PATH, path=str(path)))
        assert it.key(b"") == key
        stamps.add(it.stamp())
        old_keys.add(it.old_key(b""))
    assert stamps == {"1:1", "1:2", "2:2", ":"}
    assert len(old_keys) == 4


def test_a_task_without_files_has_no_stamp() -> None:
    assert task(stdin=TaskInput(DATA, data=b"x")).stamp() == ""


def test_the_row_as_variables() -> None:
    row = task(7, parameters={"id": "1", "sample name": "x", "1": "y", "ä": "a\0b"})
    assert row.variables() == {
        "PARAM_id": "1", "PARAM_sample_name": "x", "PARAM_1": "y", "PARAM__": "ab", "CMAP_TASK": "7",
    }  # fmt: skip
