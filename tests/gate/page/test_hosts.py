"""The page over four hosts: `cgate` and the browser on the first, workers on the others."""

from __future__ import annotations

import shlex
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from cexec.protocol.decisions.reputation import FAILURES_ALLOWED
from tests.environment import clean_environment, command
from tests.gate.page.conftest import PICTURES, chromium, open_page, row_of, take_pictures
from tests.lab import Lab
from tests.needs import find_tool, require_namespaces, require_tool
from tests.python.clients import ALLOW, SHELL
from tests.service import Application, Service
from tests.waiting import PATIENCE, wait_until

NAMES = ("red", "green", "<i>blue</i>")


class Site:
    """`lab`: the hosts; `page`: an admin's page, in a browser on the first host; `workers`: on the other hosts.

    `runs`: the directory of --runs.
    """

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        self.lab = lab = stack.enter_context(Lab(4))
        self.application = Application(directory, "render")
        self.workers = []
        for number, name in enumerate(NAMES, 2):
            options = [*ALLOW, "--name", f"node{number}", "--label", f"room={name}"]
            worker = Service(self.application, SHELL, options, lab.host(number))
            stack.callback(worker.close)
            self.workers.append(worker)
        self._directory = directory
        self.runs = directory / "runs"
        self.runs.mkdir()
        self.serve("127.0.0.1:0")
        stack.callback(self.stop)
        program = directory / "chromium-there"
        program.write_text(f'#!/bin/sh\nexec {shlex.join(lab.host(1).inside([str(find_tool("chromium"))]))} "$@"\n')
        program.chmod(0o755)
        browser = stack.enter_context(chromium(str(program)))
        self.page = open_page(browser, directory / "state", viewport={"width": 1400, "height": 1000})

    def serve(self, address: str) -> None:
        """Starts `cgate` on the first host; it listens at `address` then, whose port is known."""
        log = self._directory / "log"
        options = ["--http", address, "--state", str(self._directory / "state"), "--runs", str(self.runs)]
        argv = command("cgate", *options, self.application.public)
        with log.open("w") as stream:
            self._gate = self.lab.host(1).popen(argv, env=clean_environment(), stdin=subprocess.DEVNULL, stderr=stream)
        wait_until(lambda: " at http://" in log.read_text(), explain=log.read_text)
        self.address = log.read_text().partition(" at http://")[2].partition(";")[0]

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        self._gate.send_signal(how)
        self._gate.wait(PATIENCE)

    def start(self, text: str, worker: str) -> str:
        """Starts a script on this worker with the form of the page; returns the id of the job."""
        page = self.page
        page.fill("#start-form [name=args]", text)
        page.locator("#start-form [name=workers] option", has_text=worker).wait_for(state="attached")
        page.select_option("#start-form [name=workers]", label=worker)
        before = page.text_content("#start-answer")
        page.click("#start-form button")
        page.locator("#start-answer", has_text="job ", has_not_text=before or "starting").wait_for()
        return str(page.text_content("#start-answer")).removeprefix("job ")

    def run_cmap(self, name: str, script: str, *inputs: str) -> int:
        """Runs a script for each input; returns the exit status."""
        argv = command("cmap", self.application.public, "--state", self.runs / name, "--", script, ":::", *inputs)
        ended = self.lab.host(1).run(argv, env=clean_environment(), stdin=subprocess.DEVNULL, capture_output=True)
        return int(ended.returncode)

    def take_pictures(self) -> None:
        if PICTURES is None:
            return
        self.page.wait_for_timeout(30_000)  # the plots have something to show
        take_pictures(self.page)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    require_namespaces()
    require_tool("chromium")
    with ExitStack() as stack:
        yield Site(tmp_path, stack)


def worker_row(page: Any, name: str) -> Any:
    return page.locator("#worker-rows tr", has_text=name)


def test_a_cluster_of_hosts_is_shown_and_steered(site: Site) -> None:
    page = site.page
    for number, name in enumerate(NAMES, 2):
        row = worker_row(page, f"node{number}")
        row.get_by_text(f"room={name}").wait_for()
        assert site.lab.host(number).address in row.text_content() and "0/4" in row.text_content()

    # A job on a chosen worker is followed while it counts, and killed.
    script = r"for i in $(seq 1000); do printf '\033[32mframe %d\033[0m done\n' $i; sleep 0.2; done"
    endless = site.start(script, "node3")
    row_of(page, endless).locator("td.running").wait_for()
    assert "node3@" in row_of(page, endless).text_content()
    worker_row(page, "node3").get_by_text("1 for").wait_for()
    row_of(page, endless).get_by_role("button", name="Output").click()
    page.locator("#output-text .f32", has_text="frame 3").first.wait_for()
    page.keyboard.press("Escape")

    # A run of cmap with failures.
    script = 'sleep 0.3; echo "no scene {} <b>at all</b>" >&2; case {} in *7) exit 4;; esac'
    assert site.run_cmap("frames", script, *map(str, range(1, 41))) == 4
    page.get_by_role("button", name="Show the run frames", exact=True).click()
    page.locator("#run-legend li", has_text="done 36").wait_for()
    said = page.locator("#failed-rows td.said")
    assert said.all_text_contents() == [f"no scene {number} <b>at all</b>" for number in (7, 17, 27, 37)]
    who = {one.split("@")[0] for one in page.locator("#work-rows th").all_text_contents()}
    assert who == {"node2", "node3", "node4"}
    did = [int(one) for one in page.locator("#work-rows td:nth-child(3)").all_text_contents()]
    assert sum(did) == 36 and all(did)

    # Other jobs end meanwhile, and a worker whose jobs fail in a row says so.
    for text in ("echo rendered", "printf 1 2 3", "echo rendered too"):
        ended = site.start(text, "node2")
        row_of(page, ended).locator("td.succeeded").wait_for()
    for _ in range(FAILURES_ALLOWED):
        failed = site.start("echo no such scene >&2; exit 4", "node4")
        row_of(page, failed).get_by_text("failed (4)").wait_for()
    worker_row(page, "node4").get_by_text("jobs in a row failed at once").wait_for()
    site.take_pictures()
    row_of(page, endless).get_by_role("button", name="End").click()
    page.click("#sure button[value='yes']")
    row_of(page, endless).locator("td.cancelled").wait_for()
    wait_until(lambda: not site.workers[1].started())

    # A worker goes and comes again.
    site.workers[2].close()
    worker_row(page, "node4").wait_for(state="detached")
    page.check("#worker-gone")
    worker_row(page, "node4").locator("td", has_text="gone").first.wait_for()
    again = Service(site.application, SHELL, [*ALLOW, "--name", "node4"], site.lab.host(4))
    worker_row(page, "node4").locator("td", has_text="now").wait_for()
    again.close()

    # What a job prints is text, whatever it prints.
    hostile = site.start("printf '%s' '<img src=x onerror=alert(1)><script>alert(2)</script>'", "node2")
    row_of(page, hostile).locator("td.succeeded").wait_for()
    row_of(page, hostile).get_by_role("button", name="Output").click()
    page.locator("#output-text", has_text="<img src=x onerror=alert(1)><script>alert(2)</script>").wait_for()
    assert page.locator("#output-text img, #output-text script").count() == 0
    page.keyboard.press("Escape")
    assert page.messages == []

    # The server is lost, and comes again.
    site.stop(signal.SIGKILL)
    page.get_by_text("no answer from the server since").wait_for()
    site.serve(site.address)
    page.locator("#stale:empty").wait_for(state="attached")
    again_there = site.start("echo again", "node2")
    row_of(page, again_there).locator("td.succeeded").wait_for()
