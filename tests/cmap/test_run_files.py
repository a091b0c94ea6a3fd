"""The files that options name: every output beside every other file of a run, and tables that a run goes on with."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cexec.cmap.results import joblog
from cexec.cmap.run_files import named_files, open_table
from cexec.cmap.run_options import Options
from cexec.errors import UsageError


@pytest.fixture(autouse=True)
def _directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkdir("d")
    os.symlink("d", "link")
    for name in ("app.pub", "d/file"):
        Path(name).write_text("x")
    os.link("d/file", "hard")


# How each option of the run as a whole names a file.
READS: dict[str, Callable[[str], dict[str, Any]]] = {
    "-a": lambda path: {"arg_file": [path]},
    "--params": lambda path: {"params": path},
    "--input": lambda path: {"input": [f"name={path}"]},
    "--program": lambda path: {"program": [f"any={path}"]},
}
WRITES: dict[str, Callable[[str], dict[str, Any]]] = {
    "--joblog": lambda path: {"joblog": path},
    "--state": lambda path: {"state": path},
    "--report": lambda path: {"report": path},
}


@pytest.mark.parametrize(("one", "other"), [*itertools.product({**READS, **WRITES}, WRITES)])
@pytest.mark.parametrize(("name", "same"), [("hard", "link/file"), ("new", "d/../new")])
def test_every_output_is_a_file_of_its_own(one: str, other: str, name: str, same: str) -> None:
    """Regression: --report replaced the table, the joblog, the journal."""
    options = {**READS, **WRITES}
    if one == other:
        named_files(Options(**options[one](name)), "app.pub")
        return
    with pytest.raises(UsageError, match=re.escape("is the same file as")) as caught:
        named_files(Options(**options[one](name), **options[other](same)), "app.pub")
    assert f"{one} {name}" in str(caught.value) and f"{other} {same}" in str(caught.value)


@pytest.mark.parametrize("option", WRITES)
@pytest.mark.parametrize("path", ["app.pub", "./app.pub"])
def test_no_output_is_the_key(option: str, path: str) -> None:
    with pytest.raises(UsageError, match=re.escape(f"{option} {path} is the same file as the key app.pub")):
        named_files(Options(**WRITES[option](path)), "app.pub")


@pytest.mark.parametrize("path", ["s-wal", "s-shm", "s-lock", "s-journal", "link/../s-wal"])
def test_the_files_of_a_journal_are_taken(path: str) -> None:
    with pytest.raises(UsageError, match=r"is the same file as --state /.*/s-"):
        named_files(Options(state="s", joblog=path), "app.pub")
    os.symlink("s", "soft")
    with pytest.raises(UsageError, match=r"is the same file as --state /.*/s-"):
        named_files(Options(state="soft", joblog=path), "app.pub")


def test_a_table_of_results_is_an_output_and_a_directory_keeps_its_numbers() -> None:
    with pytest.raises(UsageError, match=r"--results \./t\.csv is the same file as --joblog t\.csv"):
        named_files(Options(results="./t.csv", joblog="t.csv"), "app.pub")
    with pytest.raises(UsageError, match=r"--joblog link is a directory, but must be a file"):
        named_files(Options(results="link", joblog="link"), "app.pub")
    for directory in ("d", "link", "new"):
        with pytest.raises(UsageError, match=f"--report {directory}/7 would be the result of a row in --results"):
            named_files(Options(results=directory, report=f"{directory}/7"), "app.pub")
    named_files(Options(results="d", report="d/report.html", state="d/state", joblog="d/log"), "app.pub")


def test_what_is_written_to_as_it_is() -> None:
    os.mkfifo("fifo")
    for path in ("/dev/null", "/dev/stderr", "fifo"):
        named_files(Options(joblog=path, report=path), "app.pub")
    for path, kind in (("/dev/null", "a device"), ("fifo", "a FIFO"), ("d", "a directory")):
        with pytest.raises(UsageError, match=f"--state {path} is {kind}, but must be a file"):
            named_files(Options(state=path), "app.pub")
    for option in ("--joblog", "--report"):
        with pytest.raises(UsageError, match=f"{option} d is a directory, but must be a file"):
            named_files(Options(**WRITES[option]("d")), "app.pub")


def opened(path: str, header: bytes = joblog.HEADER, *, overwrite: bool = False, resumed: bool = False) -> bytes:
    file = open_table(path, "--joblog", header, overwrite=overwrite, resumed=resumed)
    file.append([b"line\n"])
    file.close()
    return Path(path).read_bytes()


def test_a_table_is_begun_once_and_gone_on_with() -> None:
    assert opened("log") == joblog.HEADER + b"line\n"
    with pytest.raises(
        UsageError, match=r"--joblog log exists already; remove it, or add --overwrite; --resume goes on"
    ):
        opened("log")
    assert opened("log", resumed=True) == joblog.HEADER + b"line\n" * 2
    assert opened("log", resumed=True, overwrite=True) == joblog.HEADER + b"line\n" * 3
    assert opened("log", overwrite=True) == joblog.HEADER + b"line\n"


def test_a_run_goes_on_with_what_a_run_has_begun_only() -> None:
    """Regression: --resume added lines to any file."""
    for header in (joblog.HEADER, b'{"seq": '):
        for overwrite in (False, True):
            with pytest.raises(UsageError, match=r"--joblog d/file does not begin as one of this run would"):
                opened("d/file", header, resumed=True, overwrite=overwrite)
    assert Path("d/file").read_text() == "x"
    Path("t.jsonl").write_text('{"seq": 1}\n')
    assert opened("t.jsonl", b'{"seq": ', resumed=True) == b'{"seq": 1}\nline\n'
    assert opened("new.jsonl", b'{"seq": ') == b"line\n"
