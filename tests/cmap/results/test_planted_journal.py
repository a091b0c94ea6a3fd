"""Journals, and files beside them, that another user has put where everybody can make files."""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from cexec.cmap.results.appending import AppendFile
from cexec.cmap.results.attempt_files import make_results_directory
from cexec.cmap.results.journal import RESUME, Journal
from cexec.cmap.results.journal_reader import reading
from cexec.cmap.watch.report_file import ReportFile
from cexec.errors import UsageError
from tests.needs import NOBODY, require_second_user


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A directory such as /tmp."""
    made = tmp_path / "shared"
    made.mkdir()
    made.chmod(0o1777)
    return made


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    made = tmp_path / "victim"
    made.write_text("precious")
    made.chmod(0o644)
    return made


def give_away(path: Path) -> None:
    require_second_user()
    os.chown(path, NOBODY, NOBODY, follow_symlinks=False)


def planted(path: Path, victim: Path) -> Path:
    """A journal whose pending task replaces the victim's file, with a file that the attacker has made."""
    Journal(str(path), RESUME, now=0.0).close()
    evil = path.with_name("evil")
    evil.write_text("evil")
    status = evil.stat()
    renames = json.dumps([[str(evil), str(victim), status.st_ino, status.st_size]])
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("INSERT INTO pending VALUES (?, ?, ?)", (b"k" * 16, 0, renames))
    path.chmod(0o644)
    return path


def test_the_renames_of_another_users_journal_are_never_done(shared: Path, victim: Path) -> None:
    """0.1.0 gave the attacker's file the name of the victim's."""
    journal = planted(shared / "state", victim)
    give_away(journal)
    with pytest.raises(UsageError, match="belongs to another user"):
        Journal(str(journal), RESUME, now=0.0)
    assert victim.read_text() == "precious"
    os.chown(journal, os.getuid(), os.getgid())
    Journal(str(journal), RESUME, now=0.0).close()
    assert victim.read_text() == "evil"  # so the test can fail


def test_a_journal_that_everybody_can_write_to_is_not_used(shared: Path, victim: Path) -> None:
    journal = planted(shared / "state", victim)
    journal.chmod(0o666)
    with pytest.raises(UsageError, match="other users can write to it"):
        Journal(str(journal), RESUME, now=0.0)
    assert victim.read_text() == "precious"


@pytest.mark.parametrize("ending", ["-lock", "-wal", "-shm", "-journal"])
def test_a_link_beside_a_journal_is_not_followed(ending: str, shared: Path, victim: Path) -> None:
    """0.1.0 emptied the file that a link in the place of the lock led to."""
    (shared / f"state{ending}").symlink_to(victim)
    with pytest.raises(UsageError, match="it is a symbolic link"):
        Journal(str(shared / "state"), RESUME, now=0.0)
    assert victim.read_text() == "precious"


@pytest.mark.parametrize("ending", ["-lock", "-wal", "-shm", "-journal"])
def test_a_file_of_another_user_beside_a_journal_is_no_part_of_it(ending: str, shared: Path) -> None:
    """SQLite would play back what a planted log says."""
    path = shared / f"state{ending}"
    path.write_bytes(b"")
    path.chmod(0o644)
    give_away(path)
    with pytest.raises(UsageError, match="belongs to another user"):
        Journal(str(shared / "state"), RESUME, now=0.0)


def test_a_link_in_the_place_of_a_journal_is_not_followed(shared: Path, tmp_path: Path) -> None:
    Journal(str(tmp_path / "own"), RESUME, now=0.0).close()
    (shared / "state").symlink_to(tmp_path / "own")
    with pytest.raises(UsageError, match="it is a symbolic link"):
        Journal(str(shared / "state"), RESUME, now=0.0)


def test_an_own_journal_in_a_shared_directory_is_used_again(shared: Path) -> None:
    for _ in range(2):
        Journal(str(shared / "state"), RESUME, now=0.0).close()


def test_a_log_that_is_planted_after_the_check_is_not_played_back(
    shared: Path, victim: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Regression: SQLite played it back, and its pending task replaced a file of the journal's user."""
    Journal(str(shared / "state"), RESUME, now=0.0).close()
    copy = shared / "copy"
    copy.write_bytes((shared / "state").read_bytes())
    evil = shared / "evil"
    evil.write_text("evil")
    renames = json.dumps([[str(evil), str(victim), evil.stat().st_ino, evil.stat().st_size]])
    with closing(sqlite3.connect(copy)) as database:
        with database:
            database.execute("INSERT INTO pending VALUES (?, ?, ?)", (b"k" * 16, 0, renames))
        log = Path(f"{copy}-wal").read_bytes()
    assert log
    planted: list[str] = []
    connect = sqlite3.connect

    def plant(path: str, **options: Any) -> sqlite3.Connection:
        if path == str(shared / "state") and not planted:
            planted.append(path)
            if not Path(f"{path}-wal").exists():  # in a sticky directory nobody can replace another user's file
                Path(f"{path}-wal").write_bytes(log)
        return connect(path, **options)

    monkeypatch.setattr(sqlite3, "connect", plant)
    Journal(str(shared / "state"), RESUME, now=0.0).close()
    assert planted
    assert victim.read_text() == "precious"


@pytest.mark.parametrize("resumed", [False, True])
def test_every_file_of_a_journal_is_made_before_sqlite_opens_it(
    resumed: bool, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And none of these names is free for another user at any time until the run ends."""
    path = str(shared / "state")
    if resumed:
        Journal(path, RESUME, now=0.0).close()
    names = [f"{path}{ending}" for ending in ("", "-wal", "-shm", "-journal")]
    free: list[str] = []
    connect = sqlite3.connect

    def look(database: str, **options: Any) -> sqlite3.Connection:
        if database == path:
            free.extend(name for name in names if not os.path.exists(name))
        connection = connect(database, **options)
        if database == path:
            connection.set_trace_callback(lambda _: free.extend(name for name in names if not os.path.exists(name)))
        return connection

    monkeypatch.setattr(sqlite3, "connect", look)
    journal = Journal(path, RESUME, now=0.0)
    journal.flush()
    assert free == []
    journal.close()
    assert sorted(os.listdir(shared)) == ["state"]


def test_a_journal_where_everybody_can_replace_files_is_not_used(shared: Path) -> None:
    shared.chmod(0o777)
    with pytest.raises(UsageError, match="every user can replace files in"):
        Journal(str(shared / "state"), RESUME, now=0.0)


def test_looking_at_another_users_journal_makes_nothing_beside_it(shared: Path, victim: Path) -> None:
    """SQLite makes an index for whoever reads a journal with a log, and older versions follow a link there."""
    journal = planted(shared / "state", victim)
    writer = sqlite3.connect(journal)
    writer.execute("INSERT INTO run (token) VALUES ('x')")
    writer.commit()
    index = Path(f"{journal}-shm")
    index.unlink()
    index.symlink_to(victim)
    give_away(journal)
    with reading(str(journal)) as database:
        assert database.execute("SELECT count(*) FROM run").fetchone()
    assert index.is_symlink() and victim.read_text() == "precious"
    writer.close()


def test_no_joblog_or_report_is_written_through_a_planted_link(shared: Path, victim: Path) -> None:
    (shared / "out").symlink_to(victim)
    with pytest.raises(UsageError, match="it is a symbolic link"):
        AppendFile.open(str(shared / "out"), b"header\n")
    with pytest.raises(UsageError, match="it is a symbolic link"):
        ReportFile(str(shared / "out"), overwrite=True)
    assert victim.read_text() == "precious"


def test_no_joblog_is_written_into_another_users_file(shared: Path) -> None:
    (shared / "out").write_text("")
    give_away(shared / "out")
    with pytest.raises(UsageError, match="belongs to another user"):
        AppendFile.open(str(shared / "out"), b"header\n")


@pytest.mark.parametrize("planted_as", ["a link", "a directory of another user"])
def test_no_results_are_kept_where_another_user_leads_them(planted_as: str, shared: Path, tmp_path: Path) -> None:
    if planted_as == "a link":
        (tmp_path / "elsewhere").mkdir()
        (shared / "results").symlink_to(tmp_path / "elsewhere")
    else:
        (shared / "results").mkdir()
        give_away(shared / "results")
    with pytest.raises(UsageError, match=r"it is a symbolic link|belongs to another user"):
        make_results_directory(str(shared / "results"), None, lambda number: False, overwrite=False, advice="")
    own = str(shared / "own")
    for _ in range(2):
        make_results_directory(own, None, lambda number: False, overwrite=False, advice="")
