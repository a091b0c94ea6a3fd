"""The page in a real browser on a real cluster: what a person sees and does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.gate.gates import Gate, start_job, state_of, wait_for_state
from tests.gate.page.conftest import open_page
from tests.service import Application, Service
from tests.waiting import wait_until

HOSTILE = "<img src=x onerror=\"document.title='taken'\"><script>document.title='taken'</script>"


def row_of(page: Any, id: str) -> Any:
    return page.locator(f"#job-rows tr[data-key='{id}']")


def test_a_job_is_started_followed_and_ended(page: Any, http: httpx.Client, worker: Service) -> None:
    page.fill("#start-form [name=args]", 'printf "\\033[31mred\\033[0m plain\\n"; echo "$PEER_X"; exec sleep 1000')
    page.click("#start-form button")
    page.wait_for_function("document.getElementById('start-answer').textContent.startsWith('job ')")
    id = page.text_content("#start-answer").removeprefix("job ")
    row = row_of(page, id)
    row.locator("td.running").wait_for()
    row.get_by_role("button", name="Output").click()
    page.locator("#output-text .f31").wait_for()
    assert page.text_content("#output-text .f31") == "red"
    assert "red plain" in page.text_content("#output-text")
    page.click("#output button")
    row.get_by_role("button", name="End").click()
    page.click("#sure button[value='']")
    assert state_of(http, id) == "running"  # it was asked, and the answer was no
    row.get_by_role("button", name="End").click()
    page.click("#sure button[value='yes']")
    wait_for_state(http, id, "cancelled")
    row.locator("td.cancelled").wait_for()
    wait_until(lambda: not worker.started())
    assert page.messages == []


def test_a_signal_is_sent(page: Any, http: httpx.Client) -> None:
    id = start_job(http, 'trap "exit 7" TERM; while :; do sleep 0.05; done')
    wait_for_state(http, id, "running")
    row_of(page, id).locator("select").select_option("SIGTERM")
    wait_for_state(http, id, "failed")
    row_of(page, id).get_by_text("failed (7)").wait_for()


def test_a_failed_job_says_why(page: Any, http: httpx.Client) -> None:
    id = start_job(http, "true", needs=["tpu"], retries=0)
    row_of(page, id).wait_for()
    http.post(f"/v1/jobs/{id}/cancel", json={})
    row_of(page, id).get_by_text("the job was cancelled by admin").wait_for()


def test_a_worker_comes_and_goes(page: Any, key: Application) -> None:
    other = Service(key, ["cat"], ["--name", "visitor"])
    visitor = page.locator("#worker-rows tr", has_text="visitor")
    visitor.wait_for()
    other.close()
    visitor.wait_for(state="detached")


def test_what_a_job_prints_and_what_things_are_called_is_text(page: Any, http: httpx.Client, key: Application) -> None:
    named = Service(key, ["cat"], ["--name", "label", "--label", "x=<b>bold</b>"])
    try:
        page.get_by_text("x=<b>bold</b>").wait_for()
        id = start_job(http, f"echo \"{HOSTILE.replace(chr(34), chr(39))}\"; printf '\\033]0;title\\007\\033[2Jend\\n'")
        row = row_of(page, id)
        row.get_by_role("button", name="Output").click()
        page.get_by_text("that was all").wait_for()
        page.locator("#output-text", has_text="end").wait_for()
        shown = page.text_content("#output-text")
        assert "<script>document.title='taken'</script>" in shown and "title\x07" not in shown and "[2J" not in shown
        assert page.title() == "cgate" and page.locator("main img, main script, dialog img, dialog script").count() == 0
        assert page.messages == []
    finally:
        named.close()


def test_filters(page: Any, http: httpx.Client) -> None:
    wanted, other = start_job(http, "echo needle-1"), start_job(http, "echo hay")
    row_of(page, wanted).wait_for()
    row_of(page, other).wait_for()
    page.fill("#job-filter", "needle-1")
    row_of(page, other).wait_for(state="detached")
    assert row_of(page, wanted).count() == 1
    page.fill("#job-filter", "")
    page.select_option("#job-state", "cancelled")
    row_of(page, wanted).wait_for(state="detached")


def test_a_viewer_is_offered_nothing_that_changes(browser: Any, gate: Gate, http: httpx.Client) -> None:
    id = start_job(http, "exec sleep 1000")
    wait_for_state(http, id, "running")
    page = open_page(browser, gate, "--role", "viewer")
    row = row_of(page, id)
    row.wait_for()
    assert row.get_by_role("button").all_text_contents() == ["Output"]
    assert row.locator("select").count() == 0 and not page.locator("#start").is_visible()
    page.context.close()
    http.post(f"/v1/jobs/{id}/cancel", json={})


def test_the_loss_of_the_server_is_said_and_mended(
    browser: Any, key: Application, worker: Service, tmp_path: Path
) -> None:
    first = Gate(key, tmp_path / "state", ["--http", "127.0.0.1:0"])
    port = first.url.rpartition(":")[2]
    page = open_page(browser, first)
    first.close()
    page.get_by_text("no answer from the server since").wait_for()
    second = Gate(key, tmp_path / "state", ["--http", f"127.0.0.1:{port}"], after=first)
    try:
        page.wait_for_function("document.getElementById('stale').textContent === ''")
        with second.http() as http:
            row_of(page, start_job(http, "echo again")).wait_for()
    finally:
        page.context.close()
        second.close()


@pytest.mark.parametrize(("scheme", "width"), [("light", 400), ("dark", 400), ("light", 1400), ("dark", 1400)])
def test_axe_finds_nothing(browser: Any, gate: Gate, http: httpx.Client, scheme: str, width: int) -> None:
    from axe_playwright_python.sync_playwright import Axe

    start_job(http, "exit 3")
    page = open_page(browser, gate, color_scheme=scheme, viewport={"width": width, "height": 900})
    page.locator("#job-rows tr").first.wait_for()
    page.locator(".u-legend").first.wait_for()
    found = Axe().run(page)
    assert found.response["violations"] == [], found.generate_report()
    overflow = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert overflow == 0  # only tables scroll sideways
    page.get_by_role("button", name="Output").first.click()
    assert Axe().run(page).response["violations"] == []
    page.context.close()


def test_everything_works_by_keyboard(page: Any, http: httpx.Client) -> None:
    id = start_job(http, "echo typed")
    row_of(page, id).wait_for()
    row_of(page, id).get_by_role("button", name="Output").focus()
    page.keyboard.press("Enter")
    page.locator("#output-text", has_text="typed").wait_for()
    page.keyboard.press("Escape")
    assert not page.locator("#output").is_visible()
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == f"Output of job {id}"
