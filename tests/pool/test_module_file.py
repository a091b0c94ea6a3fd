"""The file of a client's modules."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cexec.pool.module_file import ModuleFile


def test_where_there_are_no_files_in_memory_it_has_a_name_until_it_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> int:
        raise PermissionError

    monkeypatch.setattr(os, "memfd_create", refused)
    file = ModuleFile.of(b"data")
    assert Path(file.path).read_bytes() == b"data"
    file.close()
    assert not Path(file.path).exists()
