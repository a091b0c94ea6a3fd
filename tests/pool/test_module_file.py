"""The file of a client's modules."""

from __future__ import annotations

import os
import resource
import tempfile
from pathlib import Path

import pytest

from cexec.pool.module_file import ModuleFile


@pytest.fixture
def no_memory_files(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> int:
        raise PermissionError

    monkeypatch.setattr(os, "memfd_create", refused)


@pytest.mark.usefixtures("no_memory_files")
def test_where_there_are_no_files_in_memory_it_has_a_name_until_it_is_closed() -> None:
    file = ModuleFile.of(b"data")
    assert Path(file.path).read_bytes() == b"data"
    file.close()
    assert not Path(file.path).exists()


@pytest.mark.usefixtures("no_memory_files")
def test_a_file_that_finds_no_room_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Regression: each try on a full disk left a file and a descriptor."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before, limits = os.listdir("/proc/self/fd"), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            ModuleFile.of(bytes(100))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == [] and os.listdir("/proc/self/fd") == before
