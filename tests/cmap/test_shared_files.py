"""The files to which all tasks of a run add."""

from __future__ import annotations

from pathlib import Path

import pytest

from cexec.cmap.results import joblog
from cexec.cmap.run_options import Options
from cexec.cmap.shared_files import SharedFiles, names_a_command
from cexec.errors import UsageError


def kinds(options: Options) -> list[str]:
    files = SharedFiles(options, ["x"], overwrite=False, resumed=False)
    files.close()
    return [type(writer).__name__ for writer in files.writers]


def test_both_outputs_are_printed_unless_they_go_elsewhere(tmp_path: Path) -> None:
    assert kinds(Options()) == ["Printed", "Printed"]
    assert kinds(Options(collect="concat")) == ["Printed", "Concatenated"]
    assert kinds(Options(collect="wc -c")) == ["Printed", "Collected"]
    assert kinds(Options(results=str(tmp_path / "all.csv"))) == ["DelimitedResults"]
    assert kinds(Options(results=str(tmp_path / "all.jsonl"))) == ["JsonResults"]
    assert kinds(Options(line_buffer=True)) == []


def test_only_lines_are_heard_as_they_come() -> None:
    assert SharedFiles(Options(), (), overwrite=False, resumed=False).live is None
    assert SharedFiles(Options(line_buffer=True), (), overwrite=False, resumed=False).live is not None


def test_a_joblog_begins_with_its_columns(tmp_path: Path) -> None:
    assert kinds(Options(joblog=str(tmp_path / "log")))[0] == "Joblog"
    assert (tmp_path / "log").read_bytes() == joblog.HEADER


def test_a_file_that_cannot_be_opened_is_wrong_use(tmp_path: Path) -> None:
    (tmp_path / "all.csv").write_text("another table\n")
    options = Options(joblog=str(tmp_path / "log"), results=str(tmp_path / "all.csv"))
    with pytest.raises(UsageError, match="exists already"):
        SharedFiles(options, ["x"], overwrite=False, resumed=False)


def test_two_words_are_no_commands() -> None:
    assert [names_a_command(word) for word in ("", "concat", "blocks", "sort")] == [False, False, False, True]
