"""Names that a file system does not take."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from cexec.cmap.inputs.file_names import LONGEST_TEMPORARY, NameCheck
from cexec.cmap.results.attempt_files import temporary_name

STRANGE = ["caf\udce9", "é", "a:b", "tab\t", "a b.", "*?"]


@pytest.mark.parametrize("name", STRANGE)
def test_an_ordinary_file_system_takes_any_name(tmp_path: Path, name: str) -> None:
    assert NameCheck(str(tmp_path), may_write=True).problem(name) == ""
    assert os.listdir(tmp_path) == []


def test_a_name_that_is_too_long_is_told(tmp_path: Path) -> None:
    check = NameCheck(str(tmp_path), may_write=False)
    assert check.problem("x" * 255) == ""
    assert check.problem("x" * 256) == "its name is 256 bytes long, and at most 255 fit"
    assert check.problem("é" * 128) == "its name is 256 bytes long, and at most 255 fit"


def test_a_path_that_is_too_long_is_told() -> None:
    longest = 4096 - 2 - LONGEST_TEMPORARY  # of a directory
    for size, problem in ((longest, ""), (longest + 1, "its path is too long")):
        directory = ("d" * 99 + "/") * 50
        assert NameCheck(directory[:size], may_write=False).problem("x") == problem


def test_no_temporary_name_is_longer() -> None:
    assert len(temporary_name("f" * 16)) <= LONGEST_TEMPORARY


def test_what_a_file_system_refuses_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def picky(path: str | bytes, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if b":" in os.fsencode(path):
            raise OSError(errno.EINVAL, "Invalid argument")
        return real(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", picky)
    check = NameCheck(str(tmp_path), may_write=True)
    assert check.problem("a:b") == "the file system does not take its name: invalid argument"
    assert check.problem("a b") == ""
    assert os.listdir(tmp_path) == []
    assert NameCheck(str(tmp_path), may_write=False).problem("a:b") == ""
