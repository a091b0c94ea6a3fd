"""Temporary files that get their names, also after a crash."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cexec.cmap.results.renames import Rename, carry_out, complete, remove, seen
from cexec.errors import LocalError


@pytest.fixture(autouse=True)
def _in_a_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def made(name: str, content: str = "content") -> Rename:
    Path(f"{name}.tmp").write_text(content)
    return seen(f"{name}.tmp", name)


def test_a_result_that_cannot_be_renamed_is_told() -> None:
    Path("a.tmp").touch()
    rename = seen("a.tmp", "no/b")
    with pytest.raises(LocalError, match="cannot write no/b: no such file or directory"):
        carry_out([rename])


def test_a_file_whose_directory_was_moved_is_told() -> None:
    os.mkdir("d")
    Path("d/x.tmp").write_text("x")
    os.rename("d", "moved")
    os.mkdir("d")
    with pytest.raises(LocalError, match="cannot write d/x: its directory was removed or moved while the task ran"):
        seen("d/x.tmp", "d/x")


def test_what_a_kill_left_is_completed_once() -> None:
    renames = [made("a"), made("b")]
    carry_out(renames[:1])
    for _ in range(2):
        assert complete(renames)
        assert sorted(os.listdir()) == ["a", "b"]


def test_a_missing_temporary_file_is_not_a_finished_rename() -> None:
    rename = made("a")
    os.unlink("a.tmp")
    assert not complete([rename])
    Path("a").write_text("content")  # another file of that name and size
    other = seen("a", "a")
    assert complete([rename]) == (other.inode == rename.inode)  # a file system may use the number again


def test_a_file_that_lost_its_content_is_not_a_result() -> None:
    rename = made("a")
    os.truncate("a.tmp", 0)
    assert not complete([rename])
    assert os.listdir() == []
    carried = made("b")
    carry_out([carried])
    os.truncate("b", 3)
    assert not complete([carried])
    assert os.listdir() == []


def test_a_directory_that_lost_a_file_is_not_a_result() -> None:
    os.mkdir("1.tmp")
    Path("1.tmp/stdout").write_text("content")
    rename = seen("1.tmp", "1")
    assert rename.size == 7
    carry_out([rename])
    assert complete([rename])
    os.truncate("1/stdout", 0)
    assert not complete([rename])
    assert os.listdir() == []


def test_one_missing_file_takes_the_others_of_its_task_with_it() -> None:
    renames = [made("a"), made("b")]
    carry_out(renames[:1])
    os.unlink("b.tmp")
    assert not complete(renames)
    assert os.listdir() == []


def test_a_name_that_is_taken_by_a_directory_does_not_stop_anything() -> None:
    rename = made("a")
    os.mkdir("a")
    Path("a/x").touch()
    assert not complete([rename])
    assert os.listdir() == ["a"]


def test_an_old_journal_knows_only_names() -> None:
    made("a")
    old = Rename("a.tmp", "a", None, None)
    assert complete([old])
    assert complete([old])
    os.unlink("a")
    assert not complete([old])


def test_removing_what_is_not_there_is_no_error() -> None:
    remove("nothing")
    os.mkdir("d")
    os.symlink("d", "link")
    remove("link")
    assert os.listdir() == ["d"]
