"""Runs of `cmap` in a real browser: a run with failures, one that is paused, and journals with hostile texts."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.cmap.watch.journals import write_journal
from tests.environment import command, local_environment
from tests.gate.gates import Gate
from tests.gate.page.conftest import open_page, take_pictures
from tests.service import Application
from tests.waiting import PATIENCE

HOSTILE = "<img src=x onerror=\"document.title='taken'\"><script>document.title='taken'</script>"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of --runs."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def gate(key: Application, runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gate]:
    running = Gate(key, tmp_path_factory.mktemp("gate") / "state", ["--runs", os.fspath(runs)])
    try:
        yield running
    finally:
        running.close()


@contextmanager
def cmap(key: Application, journal: Path, script: str, *inputs: str) -> Iterator[subprocess.Popen[bytes]]:
    """A `cmap` that runs a script for each input."""
    argv = command("cmap", key.public, "--state", journal, "--", script, ":::", *inputs)
    options: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(argv, env=local_environment(), **options) as started:
        try:
            yield started
        finally:
            started.kill()


def show_run(page: Any, name: str) -> None:
    page.get_by_role("button", name=f"Show the run {name}", exact=True).click()
    page.locator("#run-title", has_text=name).wait_for()


def legend(page: Any, text: str) -> Any:
    return page.locator("#run-legend li", has_text=text)


def test_a_run_with_failures_is_shown(page: Any, key: Application, runs: Path) -> None:
    script = 'echo "no scene {} <b>here</b>" >&2; test {} -ne 3'
    with cmap(key, runs / "nightly", script, *map(str, range(1, 13))) as started:
        assert started.wait(PATIENCE) == 1
    show_run(page, "nightly")
    for text in ("done 11", "failed 1", "running 0", "waiting 0"):
        legend(page, text).wait_for()
    failed = page.locator("#failed-rows tr")
    assert failed.locator("td.said").text_content() == "no scene 3 <b>here</b>"
    words = failed.locator("td.words")
    assert words.text_content() == "'echo \"no scene 3 <b>here</b>\" >&2; test 3 -ne 3'"
    assert words.get_attribute("title").startswith(f"cexec -n {key.public} -- ")
    (work,) = page.locator("#work-rows tr").all()
    assert work.locator("td").nth(1).text_content() == "11" and work.locator("td").nth(2).text_content() == "1"
    told = page.text_content("#run-figures")
    assert "12 of 12 over" in told and "nightly" in told and "--state" in told and "Processor time" in told
    assert page.get_attribute("#run-map", "aria-label") == "Map of 12 tasks: 11 done, 1 failed, 0 running, 0 waiting"
    assert not page.locator("#run-control").is_visible()  # nobody is there to be paused
    page.locator("#run-map").hover(position={"x": 18 * 2 + 5, "y": 5})
    page.get_by_text("task 3: failed").wait_for()


def test_hostile_texts_of_a_journal_are_text(page: Any, runs: Path) -> None:
    name = f"{HOSTILE.replace('/', '')}.journal"
    write_journal(runs / name, [None, HOSTILE], command=HOSTILE, task=HOSTILE, worker=HOSTILE)
    show_run(page, name)
    failed = page.locator("#failed-rows tr")
    failed.locator("td.said", has_text=HOSTILE).wait_for()
    assert failed.text_content().count(HOSTILE) == 3  # command, last line, worker
    assert HOSTILE in page.text_content("#work-rows") and HOSTILE in page.text_content("#run-figures")
    assert name in page.text_content("#run-rows")
    assert page.title() == "cgate" and page.locator("#runs img, #runs script").count() == 0


def test_axe_finds_nothing_in_a_run(page: Any, runs: Path) -> None:
    from axe_playwright_python.sync_playwright import Axe

    outcomes = ["cannot read scene.blend: no space left" if number % 97 == 0 else None for number in range(300)]
    begun, words = time.time() - 400, "cmap render.pub --params frames.csv"
    write_journal(runs / "render.journal", outcomes, begun=begun, command=words, worker="node1@10.0.0.2")
    show_run(page, "render.journal")
    legend(page, "failed 4").wait_for()
    usual = page.viewport_size
    for scheme, width in (("light", 400), ("dark", 1400)):
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size({"width": width, "height": 900})
        found = Axe().run(page)
        assert found.response["violations"] == [], found.generate_report()
        overflow = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert overflow == 0  # only tables scroll sideways
    page.emulate_media(color_scheme="light")
    page.set_viewport_size(usual)
    take_pictures(page, "runs-", "#runs")


def test_who_may_not_steer_is_not_offered_it(browser: Any, gate: Gate, runs: Path, key: Application) -> None:
    with cmap(key, runs / "watched", "until test -e /nowhere/{}; do sleep 0.05; done", "1"):
        page = open_page(browser, gate.state, "--role", "submitter")
        show_run(page, "watched")
        legend(page, "running 1").wait_for()
        assert not page.locator("#run-control").is_visible()
        page.context.close()


def test_a_run_is_paused_continued_and_given_another_weight(
    page: Any, http: httpx.Client, gate: Gate, key: Application, runs: Path, tmp_path: Path
) -> None:
    script = f"until test -e {tmp_path}/{{}}; do sleep 0.05; done; test {{}} -ne 2"
    with cmap(key, runs / "steered", script, *map(str, range(1, 41))) as started:
        show_run(page, "steered")
        legend(page, "running 4").wait_for()
        page.fill("#run-weight", "70000")
        page.get_by_role("button", name="Change the weight").click()
        assert page.evaluate("document.getElementById('run-weight').validity.rangeOverflow")  # it has not been sent
        page.fill("#run-weight", "7")
        page.get_by_role("button", name="Change the weight").click()
        page.locator("#run-answer", has_text="the weight is 7").wait_for()
        page.get_by_role("button", name="Pause", exact=True).press("Enter")
        page.locator("#run-answer", has_text="paused").wait_for()
        page.locator("#run-state", has_text="paused").wait_for()
        assert page.evaluate("document.activeElement.id") == "run-continue"
        for number in range(1, 5):
            (tmp_path / str(number)).touch()
        for text in ("done 3", "failed 1", "running 0", "waiting 36"):
            legend(page, text).wait_for()
        (run,) = [one for one in http.get("/v1/runs").json()["runs"] if one["name"] == "steered"]
        assert (run["state"], run["weight"], run["eta"], run["control"]) == ("paused", 7, None, True)
        told = [line.partition("status=200 ")[2] for line in gate.lines if "(steered)" in line]
        assert told == [f"run {run['id']} (steered) {words}" for words in ("given the weight 7", "paused")]
        take_pictures(page, "steered-", "#run")
        page.get_by_role("button", name="Continue", exact=True).press("Enter")
        legend(page, "running 4").wait_for()
        for number in range(5, 41):
            (tmp_path / str(number)).touch()
        assert started.wait(PATIENCE) == 1
    page.locator("#run-state", has_text="over").wait_for()
    assert not page.locator("#run-control").is_visible()
