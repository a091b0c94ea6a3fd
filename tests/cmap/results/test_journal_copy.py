"""The copy of a journal: what it knows, and that nothing is touched."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from cexec.cmap.results.journal import RESUME, Journal
from cexec.cmap.results.journal_copy import copied
from cexec.errors import UsageError


@pytest.fixture(autouse=True)
def _directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_copy_is_a_journal_and_what_was_begun_is_not_completed() -> None:
    Journal("s", "new", now=0.0).close()
    with closing(sqlite3.connect("s")) as database:
        database.execute("UPDATE run SET token = 'the token'")
        database.execute("INSERT INTO pending DEFAULT VALUES")
        database.commit()
    before = Path("s").read_bytes()
    with copied("s") as path:
        with closing(sqlite3.connect(path)) as database:
            assert database.execute("SELECT count(*) FROM pending").fetchone() == (0,)
        journal = Journal(path, RESUME, now=1.0)
        assert journal.token == "the token"
        journal.close()
    assert not os.path.exists(path)
    assert Path("s").read_bytes() == before
    assert os.listdir() == ["s"]


def test_what_is_no_journal_is_told_and_nothing_is_no_copy() -> None:
    Path("text").write_text("x" * 5000)
    with pytest.raises(UsageError, match="text is no journal of cmap"), copied("text"):
        pass
    with copied("nothing") as path:
        assert not os.path.exists(path)
    assert os.listdir() == ["text"]
