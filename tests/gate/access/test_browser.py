"""A real browser logs in, and a page of another origin tries to start a job with its cookie.

The page is served at another port of this machine, which is the hardest case: the browser then counts it as the same
site, and sends the cookie along.
"""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.environment import command, local_environment
from tests.gate.access.browser import Browser
from tests.gate.gates import Gate
from tests.needs import require_tool
from tests.waiting import PATIENCE, wait_until

JOB = {"app": "app", "args": ["true"]}

# All that a page can try; the results are in `tried` as soon as each has ended.
ATTACK = """<!doctype html><title>evil</title>
<iframe name="inside"></iframe>
<form id="form" method="post" enctype="text/plain" target="inside" action="%(gate)s/v1/jobs">
<input name='%(begin)s' value='%(end)s'></form>
<iframe id="frame" src="%(gate)s/"></iframe>
<script>
const gate = "%(gate)s", job = JSON.stringify(%(job)s), tried = {};
const result = (name, promise) => promise.then(value => tried[name] = value, error => tried[name] = "refused");
document.getElementById("form").submit();
const options = {method: "POST", credentials: "include", body: job};
const typed = {"Content-Type": "application/json"};
result("simple", fetch(gate + "/v1/jobs", {...options, mode: "no-cors"}).then(answer => answer.type));
result("json", fetch(gate + "/v1/jobs", {...options, headers: typed}).then(() => "sent"));
result("read", fetch(gate + "/v1/jobs", {credentials: "include"}).then(answer => answer.text()));
result("socket", new Promise((done, failed) => {
  const socket = new WebSocket(gate.replace("http", "ws") + "/v1/exec");
  socket.onopen = () => { socket.send(JSON.stringify({type: "start", ...%(job)s})); done("open"); };
  socket.onerror = failed;
}));
</script>"""


@contextmanager
def page_of_another_origin(gate: str) -> Iterator[str]:
    """Serves the attack; yields its address."""
    begin, _, end = json.dumps({**JOB, "x": "="}).partition("=")
    page = (ATTACK % {"gate": gate, "job": json.dumps(JOB), "begin": begin, "end": end}).encode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    require_tool("chromium")
    with Browser(tmp_path_factory.mktemp("browser")) as browser:
        yield browser


def login_url(gate: Gate) -> str:
    argv = command("cgate", "login", "--state", gate.state)
    made = subprocess.run(argv, env=local_environment(), capture_output=True, text=True, timeout=PATIENCE, check=True)
    return made.stdout.strip()


def jobs(gate: Gate) -> int:
    with gate.http() as client:
        return len(client.get("/v1/jobs").json()["jobs"])


def test_a_page_of_another_origin_starts_no_job(gate: Gate, browser: Browser) -> None:
    url = login_url(gate)
    browser.open(url)
    wait_until(lambda: browser.evaluate("location.pathname") == "/")
    wait_until(lambda: "login, admin" in browser.text())
    assert browser.evaluate("document.cookie") == ""  # no script reads it
    assert url.partition("#")[2] not in browser.evaluate("history.length + location.href + document.referrer")
    before = jobs(gate)

    # the own page may: a session starts jobs
    browser.open(f"{gate.url}/v1/apps")
    options = {"method": "POST", "headers": {"Content-Type": "application/json"}, "body": json.dumps(JOB)}
    assert browser.evaluate(f"fetch('/v1/jobs', {json.dumps(options)}).then(answer => answer.status)") == 201
    assert jobs(gate) == before + 1

    with page_of_another_origin(gate.url) as evil:
        browser.open(evil)
        wait_until(lambda: browser.evaluate("Object.keys(tried).length") == 4)
        tried = browser.evaluate("tried")
    assert tried == dict.fromkeys(("simple", "json", "read", "socket"), "refused")
    wait_until(lambda: sum("who=login(admin" in line and "status=403" in line for line in gate.lines) >= 3)
    assert jobs(gate) == before + 1

    # the URL is spent, and another browser would not come in
    browser.open("about:blank")
    browser.open(url)
    wait_until(lambda: "the code was used" in browser.text())
