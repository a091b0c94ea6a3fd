"""--report: whole pages, from nothing but themselves, with nothing in them that a peer could have meant as HTML."""

from __future__ import annotations

import html
import os
import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from cexec.cmap.inputs.tasks import NOTHING, Task, TaskInput
from cexec.cmap.results.outcome import TaskOutcome
from cexec.cmap.run.ending import AttemptEnding, How
from cexec.cmap.watch.earlier_runs import EarlierRun, EarlierRuns
from cexec.cmap.watch.history import Failure, History
from cexec.cmap.watch.report import INTERVAL, LONGEST_COMMAND, About, Report, page
from cexec.cmap.watch.report_file import ReportFile
from cexec.cmap.watch.time_lines import LEAST_DRAWN, MOST_DRAWN
from cexec.errors import UsageError
from tests.cmap.watch.watching import BEGIN, attempt, counts, play, settle
from tests.needs import require_tool

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
    text = "".join(page(history, About(EVIL, EVIL, 1.0, EVIL, EVIL, [EVIL, "b"])))
    tags = Tags(text)
    assert not {"script", "img", "link", "iframe"} & set(tags.tags)
    assert not {name for name in tags.attributes if name.startswith("on") or name == "src"}
    assert set(re.findall(r"<[^>]* href=\"(\S*?)\"[ >]", text)) == {"#failures"}
    assert "\x1b" not in text and tags.text.count("<script src='http://evil'>") >= 4
    assert not re.search(r"url\(|@import", text)


def test_a_page_says_how_it_stands() -> None:
    history = History()
    play(history, {1: ("a@x", 0, 1, ""), 2: ("a@x", 0, 2, "exited with 3")})
    history.counted(counts(running=1), BEGIN + 4)
    text = "".join(page(history, About("title")))
    assert f'http-equiv="refresh" content="{INTERVAL:.0f}"' in text and "running</b>" in text
    assert text.count("<rect ") == 2 and "exited with 3" in text and "task 1, 1.00 s" in text
    history.closed(1, BEGIN + 4)
    text = "".join(page(history, About("title")))
    assert "refresh" not in text and "ended with status 1" in text


def test_a_page_of_nothing() -> None:
    assert "No worker has begun" in "".join(page(History(), About("title")))


def test_a_page_is_bounded() -> None:
    history = History()
    history.opened(None, BEGIN)
    for number in range(20_000):
        worker = f"w{number % 1000}@x"
        history.began(running := attempt(number, worker=worker), BEGIN + number / 1000)
        history.ended(running, AttemptEnding(How.SUCCEEDED), 0, BEGIN + number / 1000 + 0.5)
        settle(history, running, number / 1000 + 0.5)
    assert "".join(page(history, About("title"))).count("<rect ") <= max(MOST_DRAWN, 1000 * LEAST_DRAWN)


def test_it_is_rewritten_now_and_then_and_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    history = History()
    report = Report(ReportFile(str(path), overwrite=False), history, About("title"))
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
        Report(ReportFile(str(directory / "r.html"), overwrite=False), History(), About("title")).begin()
    directory.mkdir()
    report = Report(ReportFile(str(directory / "r.html"), overwrite=False), History(), About("title"))
    report.begin()
    (directory / "r.html").unlink()
    directory.rmdir()
    report.closed(0, BEGIN)
    assert "no such file" in report.problem


def html_of(history: History, about: About, earlier: EarlierRuns | None = None) -> str:
    return "".join(page(history, about, earlier))


def test_the_page_tells_command_line_start_host_and_columns() -> None:
    about = About("cmap a.pub", "cmap a.pub --params 'my runs.csv'", 1_700_000_000.0, "host-7", "1.2", ["seed", "size"])
    text = Tags(html_of(History(), about)).text
    for word in (about.command, "host-7", "1.2", "seed, size", "2023-11-1"):
        assert word in text
    long = Tags(html_of(History(), About("t", "x" * 3000))).text
    assert "x" * LONGEST_COMMAND + " ..." in long and "x" * (LONGEST_COMMAND + 1) not in long


def test_attempts_and_tasks_are_told_apart() -> None:
    """One task that fails twice and then succeeds has three attempts, and one that fails twice has failed once."""
    history = History()
    history.opened(2, BEGIN)
    for number, task, reason in ((1, 1, "bad"), (2, 1, "bad"), (3, 1, ""), (4, 2, "bad"), (5, 2, "bad")):
        running = attempt(task)
        history.began(running, BEGIN + number)
        history.ended(running, AttemptEnding(How.FAILED if reason else How.SUCCEEDED, reason), 0, BEGIN + number + 0.5)
        if number in (3, 5):
            settle(history, running, number + 0.5, reason)
    history.counted(counts(total=2), BEGIN + 6)
    text = html_of(history, About("t"))
    figures = dict(re.findall(r"<dt>(.*?)</dt><dd>(?:<a [^>]*>)?([^<]*)", text))
    assert (figures["tasks done"], figures["tasks failed"], figures["attempts"]) == ("1", "1", "5")
    assert "1 succeeded, 4 failed" in text and "The numbers are those of attempts" in text
    assert '<td data-name="attempts" class="right">2</td>' in text and history.failures[0].attempts == 2


@pytest.mark.parametrize(
    ("columns", "heads"),
    [(["seed", "size"], ["seed", "size"]), (["1"], ["inputs"]), ([], ["inputs"]), (list("abcdefghi"), ["inputs"])],
)
def test_a_failed_task_shows_its_columns_and_the_last_lines_of_its_stderr(columns: list[str], heads: list[str]) -> None:
    history = History()
    task = Task(
        7, stdin=TaskInput(NOTHING), label="11 small", parameters=dict(zip(columns, ("11", "small"), strict=False))
    )
    said = ["Traceback: <b>", "  ValueError: \x1b[2Jseed"]
    outcome = TaskOutcome(7, succeeded=False, command=str, worker="w", reason="exited with 1", last_words=said)
    history.opened(1, BEGIN)
    history.settled(task, outcome, BEGIN + 1)
    text = html_of(history, About("t", columns=columns))
    found = Tags(text)
    assert re.findall("<th>([^<]*)</th>", text)[:-5] == ["task", *heads]
    assert "Traceback: <b>\n  ValueError: \N{REPLACEMENT CHARACTER}[2Jseed\n" in found.text
    assert ("11 small" in found.text) == (heads == ["inputs"] or not columns)


def test_earlier_runs_are_on_the_page_with_their_attempts_and_failures() -> None:
    run = EarlierRun(1, 1_700_000_000.0)
    run.add("w@x", 0.0, 2.0, How.SUCCEEDED, 1, "")
    run.add("w@x", 1.0, 3.0, How.FAILED, 2, "exited with 9")
    failure = Failure(2, "command two", {}, "w@x", "exited with 9", 2.0, 9)
    text = html_of(History(), About("t", columns=["seed"]), EarlierRuns([run], [failure], 1))
    assert "Run 1, 2023-11-1" in text and "2 attempts: 1 succeeded, 1 failed; 3.00 s" in text
    assert text.count("<rect ") == 2 and "command two" in text and "1 in earlier runs" in text


def test_what_failed_before_is_not_done() -> None:
    """Regression: a page said "all done", with a green bar, although a task had failed in an earlier run."""
    history = History()
    history.opened(4, BEGIN)
    history.counted(counts(total=4, done=4, succeeded_before=3, failed_before=1), BEGIN)
    history.closed(0, BEGIN + 1)
    earlier = EarlierRuns([EarlierRun(1, 1.0)], [Failure(2, "two", {}, "w", "bad", 1.0, 9)], 1)
    text = html_of(history, About("t"), earlier)
    figures = dict(re.findall(r"<dt>(.*?)</dt><dd>(?:<a [^>]*>)?([^<]*)", text))
    assert (figures["tasks done"], figures["tasks failed"], figures["tasks left"]) == ("3", "1", "0")
    assert "1 task failed" in text and "all done" not in text
    assert re.findall(r'<i class="(\w+)" style="width:(\d+)', text)[:2] == [("succeeded", "75"), ("failed", "25")]


def test_a_failure_of_an_earlier_run_that_is_tried_again_counts_once(tmp_path: Path) -> None:
    history = History()
    report = Report(ReportFile(str(tmp_path / "r.html"), overwrite=False), history, About("t"))
    report.earlier = EarlierRuns([EarlierRun(1, 1.0)], [Failure(2, "two", {}, "w", "bad", 1.0, 9)], 1)
    history.opened(1, BEGIN)
    for observer in (history, report):
        settle(observer, attempt(2), 1, "bad again")
    report.closed(1, BEGIN + 1)
    text = (tmp_path / "r.html").read_text()
    assert "bad again" in text and "in earlier runs" not in text and text.count('<td data-name="task">') == 1


@pytest.mark.parametrize("width", [380, 320, 1280])
def test_no_screen_is_too_narrow(tmp_path: Path, width: int) -> None:
    require_tool("chromium")
    history = History()
    long = "a-very-long-name-" * 8
    play(history, {n: (f"{long}{n}@10.0.0.{n}", 0, n, long if n % 2 else "") for n in range(1, 9)})
    history.failures[0].last_words = ["x" * 300, "second line"]
    history.closed(1, BEGIN + 9)
    run = EarlierRun(1, 1.0)
    run.add(long, 0.0, 2.0, How.FAILED, 2, long)
    about = About(long, long * 20, 1.0, long, "1", [long, "b"])
    text = html_of(history, about, EarlierRuns([run], [Failure(99, long, {}, long, long, 1.0, 9)], 1))
    script = (
        "d=this.contentDocument.documentElement;"
        "r=[...d.querySelectorAll('.ticks')].map(t=>[...t.children].map(i=>i.getBoundingClientRect())"
        ".filter(b=>b.width));"
        "o=r.flatMap(t=>t.filter((b,n)=>n&&b.left<t[n-1].right)).length;"
        "document.title=d.scrollWidth+' '+d.clientWidth+' '+r.flat().length+' '+o"
    )
    frame = tmp_path / "frame.html"
    content, measure = html.escape(text), html.escape(script)
    frame.write_text(
        f"<iframe width={width} height=900 style='border:0' srcdoc='{content}' onload=\"{measure}\"></iframe>"
    )
    argv = [
        "chromium",
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path}/profile",
        "--dump-dom",
    ]
    done = subprocess.run([*argv, frame.as_uri()], capture_output=True, text=True, timeout=120)
    found = re.search(r"<title>(\d+) (\d+) (\d+) (\d+)</title>", done.stdout)
    assert found, done.stderr[-2000:]
    assert int(found[1]) == int(found[2]) and abs(int(found[2]) - width) < 20  # a scroll bar beside it, perhaps
    assert int(found[3]) >= 4 and int(found[4]) == 0  # the marks of the axis do not overlap
