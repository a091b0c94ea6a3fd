"""--report: whole pages, from nothing but themselves, with nothing in them that a peer could have meant as HTML."""

from __future__ import annotations

import os
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from cexec.cmap.run.ending import AttemptEnding, How
from cexec.cmap.watch.history import History
from cexec.cmap.watch.report import INTERVAL, LEAST_DRAWN, MOST_DRAWN, Report, page
from cexec.cmap.watch.report_file import ReportFile
from cexec.errors import UsageError
from tests.cmap.watch.watching import BEGIN, attempt, counts, play, settle

EVIL = "<script src='http://evil'>\x1b[2J\"&"


class Tags(HTMLParser):
    """The elements of a page, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes.update(name for name, _ in attrs)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_what_others_have_written_is_text() -> None:
    history = History()
    play(history, {1: (EVIL, 0, 1, EVIL)})
    history.began(attempt(2, worker=EVIL, label=EVIL), BEGIN + 1)
    text = "".join(page(history, EVIL))
    tags = Tags(text)
    assert not {"script", "img", "link", "iframe"} & set(tags.tags)
    assert not {name for name in tags.attributes if name.startswith("on") or name == "src"}
    assert set(re.findall(r"<[^>]* href=(\S*?)[ >]", text)) == {"#failures"}
    assert "\x1b" not in text and tags.text.count("<script src='http://evil'>") >= 4
    assert not re.search(r"url\(|@import", text)


def test_a_page_says_how_it_stands() -> None:
    history = History()
    play(history, {1: ("a@x", 0, 1, ""), 2: ("a@x", 0, 2, "exited with 3")})
    history.counted(counts(running=1), BEGIN + 4)
    text = "".join(page(history, "title"))
    assert f"http-equiv=refresh content={INTERVAL:.0f}" in text and "running</b>" in text
    assert text.count("<rect ") == 2 and "exited with 3" in text and "task 1, 1.00 s" in text
    history.closed(1, BEGIN + 4)
    text = "".join(page(history, "title"))
    assert "refresh" not in text and "ended with status 1" in text


def test_a_page_of_nothing() -> None:
    assert "No worker has begun" in "".join(page(History(), "title"))


def test_a_page_is_bounded() -> None:
    history = History()
    history.opened(None, BEGIN)
    for number in range(20_000):
        worker = f"w{number % 1000}@x"
        history.began(running := attempt(number, worker=worker), BEGIN + number / 1000)
        history.ended(running, AttemptEnding(How.SUCCEEDED), 0, BEGIN + number / 1000 + 0.5)
        settle(history, running, number / 1000 + 0.5)
    assert "".join(page(history, "title")).count("<rect ") <= max(MOST_DRAWN, 1000 * LEAST_DRAWN)


def test_it_is_rewritten_now_and_then_and_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    history = History()
    report = Report(ReportFile(str(path), overwrite=False), history, "title")
    report.begin()
    pages = {path.read_text()}
    for now in (0.0, 1.0, INTERVAL - 0.1, INTERVAL, INTERVAL + 1):
        history.counted(counts(), BEGIN + now)
        report.counted(counts(), BEGIN + now)
        pages.add(path.read_text())
    assert len(pages) == 3
    history.closed(0, BEGIN + 7)
    report.closed(0, BEGIN + 7)
    assert "all done" in path.read_text()
    assert os.listdir(tmp_path) == ["report.html"]


def test_a_report_that_cannot_be_written_is_said_before_and_no_reason_to_stop_after(tmp_path: Path) -> None:
    directory = tmp_path / "reports"
    with pytest.raises(UsageError, match="cannot write"):
        Report(ReportFile(str(directory / "r.html"), overwrite=False), History(), "title").begin()
    directory.mkdir()
    report = Report(ReportFile(str(directory / "r.html"), overwrite=False), History(), "title")
    report.begin()
    (directory / "r.html").unlink()
    directory.rmdir()
    report.closed(0, BEGIN)
    assert "no such file" in report.problem
