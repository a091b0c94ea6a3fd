"""Files that a run as a whole reads and writes, which are all different ones."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from cexec.cmap.inputs import named_files
from cexec.cmap.inputs.named_files import NamedFiles
from cexec.errors import UsageError


@pytest.fixture(autouse=True)
def _directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkdir("d")
    os.symlink("d", "link")
    Path("d/file").write_text("x")
    os.link("d/file", "hard")
    os.symlink("d/file", "soft")


NAMES = ("d/file", "link/file", "hard", "soft", "./d/../d/file")
NEW = ("new", "./new", "d/../new")


@pytest.mark.parametrize(("one", "other"), [*itertools.product(NAMES, NAMES), *itertools.product(NEW, NEW)])
def test_an_output_is_neither_an_input_nor_another_output(one: str, other: str) -> None:
    for add in (NamedFiles.reads, NamedFiles.writes):
        files = NamedFiles()
        add(files, "--one", one)
        with pytest.raises(UsageError, match=re.escape(f"--other {other} is the same file as --one {one}")):
            files.writes("--other", other)


def test_inputs_may_be_the_same_and_so_may_what_is_written_to_as_it_is() -> None:
    os.mkfifo("fifo")
    files = NamedFiles()
    for _ in range(2):
        files.reads("-a", "hard")
        for path in ("/dev/null", "fifo", "/dev/stdout", "/dev/fd/2"):
            files.writes("--joblog", path)


@pytest.fixture
def out(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The file `out`, open as standard output is."""
    with open("out", "w") as file:
        monkeypatch.setattr(named_files, "STANDARD_OUTPUT", file.fileno())
        yield file.fileno()


def test_standard_output_is_an_output(out: int) -> None:
    files = NamedFiles()
    files.add_standard()
    with pytest.raises(UsageError, match="--joblog out is the same file as standard output"):
        files.writes("--joblog", "out")
    files.writes("--report", f"/dev/fd/{out}")  # on purpose


def test_an_input_that_is_standard_output_is_told(out: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As cat does: `cmap app.pub < file >> file`."""
    monkeypatch.setattr(named_files, "STANDARD_INPUT", out)
    with pytest.raises(UsageError, match="standard output is the same file as standard input"):
        NamedFiles().add_standard()


def test_standard_output_and_error_may_be_one(out: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(named_files, "STANDARD_ERROR", out)
    NamedFiles().add_standard()
