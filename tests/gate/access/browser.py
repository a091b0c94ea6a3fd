"""A real browser for tests: Chromium without a window, led over its debugging protocol.

Contract: `with Browser(directory) as browser` starts it; `open(url)` loads a page and returns when it is there;
`evaluate(script)` returns the value of an expression in that page, of a promise too, or None if another page took its
place meanwhile, and `text` what it says.  Needs `require_tool("chromium")`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from websockets.sync.client import connect

from tests.needs import require_tool
from tests.waiting import PATIENCE, wait_until

OPTIONS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--no-proxy-server",
    "--disable-background-networking", "--disable-component-update", "--disable-extensions",
    "--remote-debugging-port=0",
)  # fmt: skip

GONE = {  # how the browser says that a page has given way to another one, before or while an expression ran in it
    "Inspected target navigated or closed",
    "Execution context was destroyed.",
    "Cannot find default execution context",
}


class Browser:
    """One browser with a profile of its own."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._number = 0
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        require_tool("chromium")
        argv = ["chromium", *OPTIONS, f"--user-data-dir={self._directory}", "about:blank"]
        self._process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        port_file = self._directory / "DevToolsActivePort"
        try:
            wait_until(lambda: port_file.exists() and port_file.read_text().count("\n"))
            port = port_file.read_text().splitlines()[0]
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=PATIENCE) as answer:
                pages = [one for one in json.load(answer) if one["type"] == "page"]
            where = pages[0]["webSocketDebuggerUrl"]
            self._socket = self._stack.enter_context(connect(where, proxy=None, max_size=None))
        except BaseException:
            self._end()
            raise
        self._call("Page.enable")
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        self._end()

    def open(self, url: str) -> None:
        self._call("Page.navigate", url=url)
        wait_until(lambda: self.evaluate("document.readyState") == "complete")

    def evaluate(self, script: str) -> Any:
        answer = self._answer("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if answer.get("error", {}).get("message") in GONE:
            return None
        assert "error" not in answer, answer
        result = answer["result"]
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def text(self) -> str:
        """Returns what the page says; nothing while another page takes its place, which then has no body yet."""
        return str(self.evaluate("document.body ? document.body.innerText : ''") or "")

    def _call(self, method: str, **parameters: object) -> None:
        answer = self._answer(method, **parameters)
        assert "error" not in answer, answer

    def _answer(self, method: str, **parameters: object) -> Any:
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(timeout=PATIENCE))
            if message.get("id") == self._number:
                return message

    def _end(self) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)  # its own session: it has many processes
        self._process.wait()
