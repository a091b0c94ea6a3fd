"""The copy of a journal: what it knows, and that nothing is touched."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from cexec.cmap.results.appending import AppendFile
from cexec.cmap.results.journal import NEW, RESUME, Journal
from cexec.cmap.results.journal_copy import copied
from cexec.errors import UsageError


@pytest.fixture(autouse=True)
def _directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_copy_is_a_journal_and_nothing_is_completed_or_taken_back() -> None:
    """A run that was killed would have its table cut, and its results would get their names."""
    journal = Journal("s", NEW, now=0.0)
    table = AppendFile.open("log")
    table.append([b"kept"])
    place = table.place()
    assert place is not None
    journal.intend([place])
    journal.flush()
    token = journal.token
    table.append([b" and more"])
    table.close()
    for ending in ("", "-wal", "-shm"):
        shutil.copy(f"s{ending}", f"killed{ending}")
    journal.close()
    before = {path.name: path.read_bytes() for path in Path().glob("killed*")}
    with copied("killed") as path:
        copy = Journal(path, RESUME, now=1.0)
        assert copy.token == token
        copy.close()
    assert not os.path.exists(path)
    assert Path("log").read_bytes() == b"kept and more"
    assert Path("killed").read_bytes() == before["killed"]
    Journal("killed", RESUME, now=1.0).close()
    assert Path("log").read_bytes() == b"kept"


def test_what_is_no_journal_is_told_and_nothing_is_no_copy() -> None:
    Path("text").write_text("x" * 5000)
    with pytest.raises(UsageError, match="text is no journal of cmap"), copied("text"):
        pass
    with copied("nothing") as path:
        assert not os.path.exists(path)
    assert os.listdir() == ["text"]
