"""The page in a real browser on a real cluster: what a person sees and does."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import httpx

from tests.cmap.watch.journals import write_journal
from tests.gate.gates import Gate, start_job, state_of, wait_for_state
from tests.gate.page.conftest import open_page, row_of
from tests.service import Application, Service
from tests.waiting import wait_until

HOSTILE = "<img src=x onerror=\"document.title='taken'\"><script>document.title='taken'</script>"
COLOURS = r"printf '\033[1;31mred\033[0m plain \033]0;title\007\033[2J\033[38;5;4mblue\033[m\r\nend'"


def start_by_page(page: Any, text: str, **fields: str) -> str:
    """Starts a script with the form; returns the id of the job."""
    page.fill("#start-form [name=args]", text)
    for name, value in fields.items():
        page.fill(f"#start-form [name={name}]", value)
    page.click("#start-form button")
    answer = page.locator("#start-answer", has_text="job ")
    id = answer.text_content().removeprefix("job ")
    row_of(page, id).wait_for()
    return str(id)


def show_output(page: Any, id: str) -> Any:
    row_of(page, id).get_by_role("button", name="Output").click()
    return page.locator("#output-text")


def test_a_job_is_started_followed_and_ended(page: Any, http: httpx.Client, worker: Service) -> None:
    id = start_by_page(page, f"{COLOURS}; read line; echo $line; exec sleep 1000", stdin="from the form\n")
    row = row_of(page, id)
    row.locator("td.running").wait_for()
    text = show_output(page, id)
    text.get_by_text("from the form").wait_for()  # while the job runs
    assert text.text_content() == "red plain blue\nendfrom the form\n"
    assert text.locator(".bold.f31").text_content() == "red" and text.locator(".f34").text_content() == "blue"
    assert page.text_content("#output-state") == "live"
    page.click("#output button")
    row.get_by_role("button", name="End").click()
    page.click("#sure button[value='']")
    assert state_of(http, id) == "running"  # the page has asked, and the answer was no
    row.get_by_role("button", name="End").click()
    page.click("#sure button[value='yes']")
    wait_for_state(http, id, "cancelled")
    row.locator("td.cancelled").wait_for()
    row.get_by_role("button", name="End").wait_for(state="detached")
    wait_until(lambda: not worker.started())


def test_a_job_that_cannot_be_started_says_why(page: Any) -> None:
    page.fill("#start-form [name=needs]", "=")
    page.click("#start-form button")
    page.locator("#start-answer", has_text="a need is NAME or NAME=VALUE").wait_for()
    page.fill("#start-form [name=needs]", "")
    page.messages.clear()  # the browser notes an answer with 422


def test_a_job_for_one_chosen_worker_is_a_job_that_needs_it(page: Any, http: httpx.Client) -> None:
    """Not a pool of one: it waits for that worker as every other job waits for one."""
    (worker,) = http.get("/v1/workers").json()["workers"]
    pools = len(http.get("/v1/pools").json()["pools"])
    page.select_option("#start-form [name=workers]", value=worker["uuid"])
    id = start_by_page(page, "echo here", needs="cpus=1")
    page.select_option("#start-form [name=workers]", [])
    page.fill("#start-form [name=needs]", "")
    wait_for_state(http, id, "succeeded")
    job = http.get(f"/v1/jobs/{id}").json()
    assert (job["instance"], job["pool"]) == (worker["uuid"], None)
    assert len(http.get("/v1/pools").json()["pools"]) == pools


def test_jobs_of_chosen_workers_are_a_pool(page: Any, http: httpx.Client) -> None:
    page.fill("#start-form [name=args]", "exec sleep 1000")
    page.check("#start-form [name=all]")
    page.click("#start-form button")
    page.locator("#start-answer", has_text="job ").wait_for()
    page.uncheck("#start-form [name=all]")
    row = page.locator("#pool-rows tr")
    row.get_by_role("button", name="End").click()
    page.click("#sure button[value='yes']")
    row.locator("td.failed").wait_for()
    assert http.get("/v1/pools").json()["pools"][0]["jobs"][0]["state"] == "cancelled"


def test_a_signal_is_sent(page: Any, http: httpx.Client) -> None:
    id = start_job(http, 'trap "exit 7" TERM; echo ready; while :; do sleep 0.05; done')
    show_output(page, id).get_by_text("ready").wait_for()
    page.keyboard.press("Escape")
    row_of(page, id).locator("select").select_option("SIGTERM")
    wait_for_state(http, id, "failed")
    row_of(page, id).get_by_text("failed (7)").wait_for()


def test_a_cancelled_job_says_why(page: Any, http: httpx.Client) -> None:
    id = start_job(http, "true", needs=["tpu"], retries=0)
    row_of(page, id).locator("td.queued").wait_for()
    http.post(f"/v1/jobs/{id}/cancel", json={})
    row_of(page, id).get_by_text("the job was cancelled by admin").wait_for()


def test_a_worker_comes_and_goes(page: Any, key: Application) -> None:
    other = Service(key, ["cat"], ["--name", "visitor", "--label", "x=<b>bold</b>"])
    visitor = page.locator("#worker-rows tr", has_text="visitor")
    visitor.get_by_text("x=<b>bold</b>").wait_for()
    other.close()
    visitor.wait_for(state="detached")
    page.check("#worker-gone")
    assert visitor.locator("td.trouble").text_content() == "gone"


def test_all_that_is_known_of_a_worker_is_shown(page: Any, http: httpx.Client) -> None:
    (worker,) = http.get("/v1/workers").json()["workers"]
    row = page.locator(f"#worker-rows tr[data-key='{worker['uuid']}']")
    told: list[str] = []

    def is_current() -> bool:
        """The figures may be those of a moment before: a job of another test may just have ended."""
        worker.update(http.get("/v1/workers").json()["workers"][0])
        told[:] = row.locator("th, td").all_text_contents()
        return bool(told[3] == f"{worker['running']}/4" and told[8] == worker["health"])

    wait_until(is_current, explain=lambda: (told, worker))
    assert told[:4] == [worker["name"], "app", worker["address"], f"{worker['running']}/4"]
    assert re.fullmatch(r"load of .+: \d+\.\d\d", row.locator("meter").get_attribute("aria-label"))
    assert re.fullmatch(r"\d+\.\d\d", told[5]) and re.fullmatch(r"[\d.]+ (s|min)", told[9])
    assert (told[8], told[10]) == (worker["health"], "now")
    assert all(f"{name}={value}" in told[7] for name, value in worker["labels"].items() if value)


def test_plots_show_fifteen_minutes_or_a_day(page: Any) -> None:
    plots = page.locator("#plots [role=img]")
    plots.nth(3).wait_for()
    page.locator("#plots [aria-label$=', all 4 now']").wait_for()  # a worker of another test may have just gone
    told = [one.get_attribute("aria-label") for one in plots.all()]
    assert re.fullmatch(r"Slots: busy \d+, all 4 now", told[0]) and re.fullmatch(r"Load .*: load [\d.]+ now", told[1])
    assert re.fullmatch(r"Jobs: queued \d+, running \d+ now", told[2])
    assert re.fullmatch(r"Jobs that ended, a minute: succeeded \d+, other \d+ now", told[3])
    for seconds in ("86400", "900"):
        with page.expect_response(f"**/page/history?seconds={seconds}") as answer:
            page.select_option("#span", seconds)
        assert answer.value.json()["samples"]
    assert plots.count() == 4


def test_what_a_job_prints_is_text(page: Any, http: httpx.Client) -> None:
    id = start_job(http, 'cat; printf "\\007\\033" >&2', stdin=HOSTILE)
    text = show_output(page, id)
    page.locator("#output-state", has_text="that was all").wait_for()
    assert text.text_content() == HOSTILE
    page.check("#output input[value=stderr]")
    page.locator("#output-state", has_text="that was all").wait_for()
    assert text.text_content() == ""
    assert page.title() == "cgate" and page.locator("main img, main script, dialog img, dialog script").count() == 0


def test_filters(page: Any, http: httpx.Client) -> None:
    wanted, other = start_job(http, "echo needle-1"), start_job(http, "echo hay")
    row_of(page, wanted).wait_for()
    row_of(page, other).wait_for()
    page.fill("#job-filter", "NEEDLE-1")
    row_of(page, other).wait_for(state="detached")
    assert row_of(page, wanted).count() == 1
    page.fill("#job-filter", "")
    row_of(page, other).wait_for()
    page.select_option("#job-state", "cancelled")
    row_of(page, wanted).wait_for(state="detached")
    page.fill("#worker-filter", "nobody is called so")
    page.locator("#worker-rows tr").first.wait_for(state="detached")
    page.fill("#worker-filter", "")
    page.locator("#worker-rows tr").first.wait_for()


def test_everything_works_by_keyboard(page: Any, http: httpx.Client) -> None:
    id = start_job(http, "echo typed; exec sleep 1000")
    row_of(page, id).get_by_role("button", name="Output").focus()
    page.keyboard.press("Enter")
    page.locator("#output-text", has_text="typed").wait_for()
    page.keyboard.press("Escape")
    assert not page.locator("#output").is_visible()
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == f"Output of job {id}"
    row_of(page, id).get_by_role("button", name="End").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")  # from No, which has the focus, to Yes
    page.keyboard.press("Enter")
    row_of(page, id).locator("td.cancelled").wait_for()
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == f"Output of job {id}"


def test_axe_finds_nothing(page: Any, http: httpx.Client) -> None:
    from axe_playwright_python.sync_playwright import Axe

    id = start_job(http, "exit 3")
    row_of(page, id).locator("td.failed").wait_for()
    page.locator(".u-legend").first.wait_for()
    usual = page.viewport_size
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        for width in (400, 1400):
            page.set_viewport_size({"width": width, "height": 900})
            found = Axe().run(page)
            assert found.response["violations"] == [], found.generate_report()
            overflow = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            assert overflow == 0  # only tables scroll sideways
        show_output(page, id)
        assert Axe().run(page).response["violations"] == []
        page.keyboard.press("Escape")
    page.emulate_media(color_scheme="light")
    page.set_viewport_size(usual)


def test_a_viewer_is_offered_nothing_that_changes(browser: Any, gate: Gate, http: httpx.Client) -> None:
    id = start_job(http, "exec sleep 1000")
    page = open_page(browser, gate.state, "--role", "viewer")
    row = row_of(page, id)
    row.wait_for()
    assert row.get_by_role("button").all_text_contents() == ["Output"]
    assert row.locator("select").count() == 0 and not page.locator("#start").is_visible()
    page.context.close()
    http.post(f"/v1/jobs/{id}/cancel", json={})


def test_a_submitter_has_a_say_in_his_own_jobs_only(browser: Any, gate: Gate, http: httpx.Client) -> None:
    others = start_job(http, "exec sleep 1000")
    page = open_page(browser, gate.state, "--role", "submitter")
    own = start_by_page(page, "exec sleep 1000")
    row_of(page, own).get_by_role("button", name="End").wait_for()
    row_of(page, others).wait_for()
    assert row_of(page, others).get_by_role("button").all_text_contents() == ["Output"]
    page.context.close()
    for id in (own, others):
        http.post(f"/v1/jobs/{id}/cancel", json={})


def inject(route: Any) -> None:
    """Adds scripts to the page as a hole in it would."""
    answer = route.fetch()
    evil = "<script>document.title='taken'</script><img src=/x onerror=\"document.title='taken'\">"
    body = answer.text().replace("<main>", f"{evil}<main>")
    route.fulfill(response=answer, body=body)


def rename(route: Any) -> None:
    """Gives every worker hostile names."""
    answer = route.fetch()
    found = answer.json()
    for one in found["workers"]:
        one.update(dict.fromkeys(("app", "name", "address", "health"), HOSTILE), labels={HOSTILE: HOSTILE})
    route.fulfill(response=answer, json=found)


def many_jobs(route: Any) -> None:
    """Lists 120 jobs, whose names are hostile."""
    hostile = dict.fromkeys(("app", "owner", "reason", "worker", "signal"), HOSTILE)
    job = {**hostile, "args": [HOSTILE], "state": "failed", "exit_status": None, "submitted": HOSTILE, "started": None}
    route.fulfill(
        json={"jobs": [{**job, "id": f"{number:03}{HOSTILE}"} for number in range(119, -1, -1)], "next": None}
    )


def test_the_policy_stops_scripts_and_names_are_text(browser: Any, gate: Gate) -> None:
    page = open_page(browser, gate.state)
    page.route("**/page/workers", rename)
    page.route("**/v1/jobs?*", many_jobs)
    page.route(gate.url + "/", inject)
    page.reload()
    page.locator("#worker-rows tr", has_text=HOSTILE).first.wait_for()
    rows = page.locator("#job-rows tr")
    rows.nth(49).wait_for()
    assert rows.first.text_content().count(HOSTILE) == 6  # with the signal, the reason and the arguments
    assert page.title() == "cgate" and page.locator("section img, section script").count() == 0
    refused = [one for one in page.messages if "Content Security Policy" in one and "inline" in one]
    assert len(refused) == 2, page.messages
    # More rows are made when somebody scrolls to the last one, and taken away when he is back.
    assert rows.count() == 50
    for last in (49, 99, 119):
        rows.nth(last).scroll_into_view_if_needed()
    rows.nth(119).wait_for()
    page.locator("#jobs .wide").evaluate("one => { one.scrollTop = 0; }")
    rows.nth(50).wait_for(state="detached")
    page.context.close()


def test_the_loss_of_the_server_is_said_and_mended(
    browser: Any, key: Application, worker: Service, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    first = Gate(key, tmp_path / "state", ["--runs", str(runs)])
    port = first.url.rpartition(":")[2]
    page = open_page(browser, first.state)
    with first.http() as http:
        lost = start_job(http, "exec sleep 1000")
        row_of(page, lost).locator("td.running").wait_for()
    first.kill()
    page.get_by_text("no answer from the server since").wait_for()
    write_journal(runs / "meanwhile", [None])
    second = Gate(key, tmp_path / "state", ["--http", f"127.0.0.1:{port}", "--runs", str(runs)], after=first)
    try:
        page.locator("#run-rows", has_text="meanwhile").wait_for()
        page.locator("#stale:empty").wait_for(state="attached")
        row_of(page, lost).locator("td.interrupted").wait_for()
        with second.http() as http:
            row_of(page, start_job(http, "echo again")).locator("td.succeeded").wait_for()
    finally:
        page.context.close()
        second.close()


def test_the_page_serves_its_files_and_nothing_else(gate: Gate, http: httpx.Client) -> None:
    scripts = ("page.js", "shared.js", "output.js", "plots.js", "runs.js", "uPlot.iife.min.js")
    for name in (*scripts, "page.css", "icon.svg", "uPlot.min.css"):
        assert httpx.get(f"{gate.url}/static/{name}").status_code == 200  # for everybody
    for name in ("index.html", "uPlot.LICENSE", "..%2froutes.py", ""):
        assert http.get(f"/static/{name}").status_code in (400, 404), name
    assert http.get("/page/history", params={"seconds": "86400"}).status_code == 200
    assert http.get("/page/history", params={"seconds": "1"}).status_code == 422
    for path in ("/page/workers", "/page/history", "/page/identity"):
        assert httpx.get(gate.url + path).status_code == 401, path
    policy = http.get("/").headers["Content-Security-Policy"]
    assert "script-src 'self';" in policy and "unsafe" not in policy and "//" not in policy
