"""--report replaces an earlier report and nothing else; what cannot be replaced gets the last page."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from cexec.cmap.watch.report_file import BEGIN, ReportFile
from cexec.errors import UsageError

PAGE = BEGIN + "page"


@pytest.fixture(autouse=True)
def _directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def report(path: str, *, overwrite: bool = False) -> ReportFile:
    return ReportFile(path, overwrite=overwrite)


def test_an_earlier_report_and_an_empty_file_are_replaced() -> None:
    Path("empty").touch()
    for path in ("new", "new", "empty"):
        file = report(path)
        assert not file.final
        for page in (PAGE, PAGE + "!"):
            file.write([page])
            assert Path(path).read_text() == page
    assert sorted(os.listdir()) == ["empty", "new"]


def test_another_file_is_replaced_on_purpose_only() -> None:
    """Regression: the input table, app.pub and the journal were replaced, each time with status 0."""
    Path("table.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UsageError, match=r"--report table\.csv exists already and is no report of cmap; .*--overwrite"):
        report("table.csv")
    assert Path("table.csv").read_text() == "a,b\n1,2\n"
    report("table.csv", overwrite=True).write([PAGE])
    assert Path("table.csv").read_text() == PAGE


def test_a_symbolic_link_stays() -> None:
    """Regression: the page replaced the link."""
    os.mkdir("d")
    for name, target in (("link", "d/page"), ("dangling", "d/new")):
        os.symlink(target, name)
    Path("d/page").write_text(PAGE)
    for name, target in (("link", "d/page"), ("dangling", "d/new")):
        report(name).write([PAGE + name])
        assert os.readlink(name) == target
        assert Path(target).read_text() == PAGE + name
    assert sorted(os.listdir("d")) == ["new", "page"]


def test_a_device_stays() -> None:
    """Regression: /dev/null was replaced by a page, for everybody on the machine."""
    for _ in range(2):
        file = report("/dev/null")
        assert file.final
        file.write([PAGE])
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    assert not [name for name in os.listdir("/dev") if name.startswith(".")]


def test_a_fifo_gets_the_page_if_it_has_a_reader() -> None:
    """Regression: the page replaced the FIFO, and its reader waited for ever."""
    os.mkfifo("fifo")
    with pytest.raises(UsageError, match="cannot write fifo: nobody reads this FIFO; start its reader first"):
        report("fifo")
    reader = os.open("fifo", os.O_RDONLY | os.O_NONBLOCK)
    file = report("fifo")
    assert file.final
    file.write([PAGE])
    assert os.read(reader, 1000) == PAGE.encode()
    assert os.read(reader, 1) == b""
    os.close(reader)
    assert stat.S_ISFIFO(os.stat("fifo").st_mode)


def test_a_descriptor_of_ours_gets_the_page() -> None:
    """As /dev/stdout is one.  It is not opened again, which would begin at the first byte of a file."""
    with open("out", "wb", buffering=0) as out:
        out.write(b"before\n")
        file = report(f"/dev/fd/{out.fileno()}")
        assert file.final
        file.write([PAGE])
        out.write(b"after\n")
    assert Path("out").read_text() == f"before\n{PAGE}after\n"


def test_a_long_name_has_a_draft_all_the_same() -> None:
    report("x" * 255).write([PAGE])
    assert os.listdir() == ["x" * 255]
