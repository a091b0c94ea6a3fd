"""Temporary files that get their names, also after a crash."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cexec.cmap.results.renames import Rename, ResultDirectories, complete, remove, seen
from cexec.errors import LocalError
from tests.cmap.results.renaming import carry_out
from tests.needs import require_second_user

NOBODY = 65534


@pytest.fixture(autouse=True)
def _in_a_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def made(name: str, content: str = "content") -> Rename:
    Path(f"{name}.tmp").write_text(content)
    return seen(f"{name}.tmp", name)


def test_a_result_that_cannot_be_renamed_is_told() -> None:
    rename = made("a")
    os.mkdir("a")
    with pytest.raises(LocalError, match="cannot write a: is a directory"):
        carry_out([rename])


@pytest.mark.parametrize("again", [False, True])
def test_a_result_gets_its_name_also_where_its_directory_was_moved_to(again: bool) -> None:
    """Regression: the journal called it done already, so it was run again, and stood in the joblog twice."""
    os.mkdir("d")
    rename = made("d/a")
    directories = ResultDirectories()
    directories.hold([rename])
    os.rename("d", "moved")
    if again:
        os.mkdir("d")
    directories.carry_out([rename])
    directories.close()
    assert os.listdir("moved") == ["a"]


@pytest.mark.parametrize("instead", [None, "other"])
def test_a_directory_that_was_moved_before_it_was_held_is_told(instead: str | None) -> None:
    os.mkdir("d")
    rename = made("d/a")
    os.rename("d", "moved")
    if instead is not None:
        os.mkdir("d")
        Path("d/a.tmp").write_text(instead)
    directories = ResultDirectories()
    with pytest.raises(LocalError, match="cannot write d/a: its directory was removed or moved while the task ran"):
        directories.hold([rename])
    directories.close()


def test_a_directory_that_cannot_be_listed_can_have_results() -> None:
    require_second_user()
    os.mkdir("d")
    rename = made("d/a")
    for path in (".", "d"):
        os.chmod(path, 0o733)
    os.seteuid(NOBODY)
    try:
        with pytest.raises(PermissionError):
            os.listdir("d")
        carry_out([rename])
    finally:
        os.seteuid(0)
    assert os.listdir("d") == ["a"]


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
