"""cmap --stats, --report and `cmap explain`, as a user types them."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import preloaded
from tests.environment import clean_environment, command
from tests.service import Application


def run(*arguments: str | os.PathLike[str]) -> subprocess.CompletedProcess[str]:
    return preloaded.run_text(command("cmap", *arguments), env=clean_environment(), timeout=30)


def test_a_run_is_watched_and_explained(application: Application, service: Callable[..., Any], tmp_path: Path) -> None:
    service(
        "sh", "-c", '[ "$1" != bad ] || { echo so; echo sad >&2; echo >&2; exit 3; }', "sh", options=["--allow-args"]
    )
    state, report = tmp_path / "state", tmp_path / "report.html"
    options: list[str | Path] = ["--stats", "--bar", "--report", report, "--state", state]
    done = run(*options, application.public, "--", "{}", ":::", "good", "bad", "fine")
    assert done.returncode == 1 and done.stdout == "so\n"
    first, head, worker, failed = [line for line in done.stderr.splitlines() if line not in ("", "sad")]
    assert first.startswith("2 tasks succeeded, 1 failed;") and head.startswith("worker ")
    assert worker.split()[1:3] == ["2", "1"] and failed.startswith("task 2 (bad) failed on ")
    assert failed.endswith(": exited with 3: sad")  # the last line of its standard error
    page = report.read_text()
    assert "ended with status 1" in page and "exited with 3" in page
    explained = run("explain", "--state", state, "2")
    assert explained.returncode == 0
    assert explained.stdout.splitlines()[1].endswith(": exited with 3: sad") and "attempt 1, " in explained.stdout
    assert run("explain", "--state", state).stdout.startswith("2 tasks done, 1 failed, 0 left")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--state", "none"], "no journal"),
        (["--state", "/dev/null"], "no journal"),
        (["--state", __file__], "is no journal of cmap"),
        ([], "--state"),
        (["--state", "x", "y"], "a whole number"),
    ],
)
def test_what_cannot_be_explained_is_wrong_use(arguments: list[str], words: str) -> None:
    done = run("explain", *arguments)
    assert done.returncode == 100 and words in done.stderr and done.stdout == ""


def test_a_report_that_cannot_be_written_is_said_at_once(application: Application) -> None:
    done = run("--report", "/dev/null/report.html", application.public, ":::", "a")
    assert done.returncode == 100 and "cannot write /dev/null/report.html" in done.stderr


def test_the_package_rich_is_not_imported_where_no_table_is_drawn(
    application: Application, service: Callable[..., Any], tmp_path: Path
) -> None:
    service("cat")
    options = ["--stats", "--report", str(tmp_path / "r.html"), "--bar", "--eta", "--progress"]
    python, *words = command("cmap", *options, application.public, ":::", "a")
    argv = [python, "-X", "importtime", *words]
    done = subprocess.run(argv, env=clean_environment(), capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout) == (0, "a\n")
    assert re.search(r"\| +cexec.cmap.watch.display$", done.stderr, re.MULTILINE)
    assert not re.search(r"\| +rich$", done.stderr, re.MULTILINE)


NOTHING_LEFT = "cmap: nothing to do: of 2 tasks none is left for --resume; 1 failed, which --resume-failed runs again\n"


def test_after_resume_the_report_shows_all_runs_and_why_tasks_failed(
    application: Application, service: Callable[..., Any], tmp_path: Path
) -> None:
    """Regression: the page of a run that goes on counted what had failed before as done, and said "all done"."""
    gate = tmp_path / "gate"
    script = f'[ "$1" != bad ] || {{ echo first words >&2; echo last words >&2; [ -e {gate} ] || exit 3; }}'
    service("sh", "-c", script, "sh", options=["--allow-args"])
    table = tmp_path / "runs.csv"
    table.write_text("seed,size\nbad,1\ngood,2\n")
    state, report = tmp_path / "state", tmp_path / "report.html"
    options: list[str | Path] = [
        "--params",
        table,
        "--state",
        state,
        "--report",
        report,
        application.public,
        "--",
        "{seed}",
    ]
    assert run(*options).returncode == 1
    page = report.read_text()
    assert "<pre>first words\nlast words\n</pre>" in page and "<th>seed</th><th>size</th>" in page
    assert f"--params {table}" in page and os.uname().nodename in page and "Run 1" not in page
    again = run("--resume", *options)
    assert (again.returncode, again.stderr) == (0, NOTHING_LEFT)
    page = report.read_text()
    assert "Run 1, " in page and "2 attempts: 1 succeeded, 1 failed" in page and "exited with 3" in page
    figures = dict(re.findall(r"<dt>(.*?)</dt><dd>(?:<a [^>]*>)?([^<]*)", page))
    assert (figures["tasks done"], figures["tasks failed"]) == ("1", "1") and "all done" not in page
    gate.touch()
    assert run("--resume-failed", *options).returncode == 0
    page = report.read_text()
    assert "Run 1, " in page and "Run 2, " in page and "Failed tasks" not in page and "all done" in page
