"""Which files of a directory are journals."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from cexec.cmap.results.journal import Journal
from cexec.gate.runs import run_directory
from cexec.gate.runs.run_directory import RunDirectory
from tests.cmap.watch.journals import BEGUN, write_journal
from tests.needs import require_second_user


def names(directory: Path) -> list[str]:
    found, problems = RunDirectory([str(directory)]).scan()
    assert problems == []
    return sorted(one.name for one in found)


def test_journals_are_found_and_nothing_else(tmp_path: Path) -> None:
    write_journal(tmp_path / "over", [None])
    running = Journal(str(tmp_path / "running"), "new", now=BEGUN)
    other = sqlite3.connect(tmp_path / "other.sqlite")
    other.execute("CREATE TABLE task (x)")
    other.commit()
    other.close()
    (tmp_path / "text").write_text("SQLite format 3")
    (tmp_path / "empty").touch()
    (tmp_path / "half").write_bytes((tmp_path / "over").read_bytes()[:50])
    (tmp_path / "directory").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "dangling").symlink_to("nowhere")
    try:
        assert sorted(path.name for path in tmp_path.glob("running*")) != ["running"]  # it has files beside it
        assert names(tmp_path) == ["over", "running"]
    finally:
        running.close()


def test_a_link_is_followed_where_nobody_else_can_have_put_it(tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    write_journal(tmp_path / "over", [None])
    (place / "link").symlink_to(tmp_path / "over")
    assert names(place) == ["link"]
    assert RunDirectory([str(tmp_path), str(place)]).scan()[0][0].name == "over"  # one journal is one run
    assert len(RunDirectory([str(tmp_path), str(place)]).scan()[0]) == 1
    place.chmod(0o1777)
    assert names(place) == []


def test_a_newer_version_is_told(tmp_path: Path) -> None:
    write_journal(tmp_path / "new", [None])
    with closing(sqlite3.connect(tmp_path / "new")) as database:
        database.execute("PRAGMA user_version=99")
    (found,), _ = RunDirectory([str(tmp_path)]).scan()
    assert found.problem == "a newer cmap has written this journal; update cexec here"


def test_those_that_changed_last_come_first_and_many_are_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_journal(tmp_path / "a", [None])
    for age, name in enumerate("bcd", 1):
        shutil.copy(tmp_path / "a", tmp_path / name)
        os.utime(tmp_path / name, (BEGUN + age, BEGUN + age))
    os.utime(tmp_path / "a", (BEGUN, BEGUN))
    monkeypatch.setattr(run_directory, "MOST_JOURNALS", 2)
    found, problems = RunDirectory([str(tmp_path)]).scan()
    assert [one.name for one in found] == ["d", "c"]
    assert problems == ["4 journals are there; the 2 that changed last are shown"]
    monkeypatch.setattr(run_directory, "MOST_NAMES", 3)
    assert "more than 3 files" in RunDirectory([str(tmp_path)]).scan()[1][0]


def test_what_cannot_be_looked_into_is_said(tmp_path: Path) -> None:
    write_journal(tmp_path / "over", [None])
    found, problems = RunDirectory([str(tmp_path / "gone"), str(tmp_path)]).scan()
    assert len(found) == 1 and problems == [f"cannot look into {tmp_path / 'gone'}: no such file or directory"]


def test_the_journal_of_another_user_has_his_name(tmp_path: Path) -> None:
    require_second_user()
    write_journal(tmp_path / "his", [None])
    os.chown(tmp_path / "his", 65534, 65534)
    (found,), _ = RunDirectory([str(tmp_path)]).scan()
    assert found.owner == "nobody"
