"""A `cgate` that serves, as a process, and its clients for tests.

Contract: `Gate` starts `cgate --http 127.0.0.1:0` and has a token of each role.  `http()` is a client of httpx whose
token is an admin's.  `close` ends it as a user would, and checks that it has said nothing unexpected; `kill` is
kill -9.
`SHELL` and `ALLOW` (tests/python/clients.py) are the program and options of the service that the fixtures start: the
one argument of a job is a shell script.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import psutil
from websockets.sync.client import ClientConnection, connect

from cexec.gate.access.caller import TokenRole
from tests.environment import command, local_environment
from tests.gate.tokens import make_token
from tests.service import Application
from tests.waiting import PATIENCE, wait_until

UNEXPECTED = ("Traceback", "cexec.gate", "Exception", "Task was destroyed")


class Gate:
    """One running cgate.  `url`: where it is; `token`: an admin's."""

    def __init__(
        self,
        application: Application,
        state: Path,
        options: Sequence[str] = (),
        *,
        after: Gate | None = None,
        wrapper: Sequence[str | Path] = (),
    ) -> None:
        """`after`: the one that has used this state before; `wrapper`: a command that becomes the one behind it."""
        self.state = state
        self.application = application
        self.token: str = self.new_token("admin", "admin") if after is None else after.token
        self._lines: list[str] = []
        argv = command("cgate", "--http", "127.0.0.1:0", "--state", state, *options, application.public)
        self.process = subprocess.Popen(
            [*wrapper, *argv], env=local_environment(), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        wait_until(lambda: self._lines or self.process.poll() is not None, pause=0.005)
        if not self._lines or " at http" not in self._lines[0]:
            self.kill()
            raise AssertionError("\n".join(self._lines))
        self.url = self._lines[0].partition(" at ")[2].partition(";")[0]

    def new_token(self, name: str, role: str, *applications: str) -> str:
        return make_token(self.state, name, TokenRole[role.upper()], applications)

    def http(self, token: str | None = None, **options: Any) -> httpx.Client:
        """A client; its caller closes it."""
        headers = {"Authorization": f"Bearer {token or self.token}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=PATIENCE, verify=False, **options)

    def socket(self, token: str | None = None) -> ClientConnection:
        """A WebSocket to /v1/exec; its caller closes it."""
        headers = {"Authorization": f"Bearer {token or self.token}"}
        address = self.url.replace("http", "ws", 1) + "/v1/exec"
        return connect(address, additional_headers=headers, compression=None, max_size=None, open_timeout=PATIENCE)

    @property
    def lines(self) -> list[str]:
        """What it has written to stderr."""
        return list(self._lines)

    @property
    def files(self) -> list[str]:
        """The names of the files in which outputs are kept."""
        return sorted(os.listdir(f"{self.state}-outputs"))

    def connections(self) -> int:
        """How many connections of clients it has."""
        port = int(self.url.rpartition(":")[2])
        found = psutil.Process(self.process.pid).net_connections("tcp")
        return len([one for one in found if one.laddr.port == port and one.raddr])

    def memory(self) -> int:
        """Bytes that it has for itself alone."""
        return int(psutil.Process(self.process.pid).memory_full_info().uss)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join(PATIENCE)

    def close(self) -> None:
        """Ends it; a second call does nothing."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            assert self.process.wait(PATIENCE) == 0, "\n".join(self._lines)
        self._reader.join(PATIENCE)
        bad = [line for line in self._lines if any(word in line for word in UNEXPECTED)]
        assert not bad, "\n".join(self._lines)

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as stream:
            for line in stream:
                self._lines.append(line.rstrip("\n"))


def script(text: str, **members: Any) -> dict[str, Any]:
    """The request for a job that is a shell script."""
    return {"app": "app", "args": [text], **members}


def run_job(http: httpx.Client, text: str, **members: Any) -> dict[str, Any]:
    """Runs a script to its end; returns its document."""
    answer = http.post("/v1/jobs", params={"wait": "60"}, json=script(text, **members))
    assert answer.status_code == 201, answer.text
    document: dict[str, Any] = answer.json()
    return document


def start_job(http: httpx.Client, text: str, **members: Any) -> str:
    """Starts a script; returns the id of the job."""
    answer = http.post("/v1/jobs", json=script(text, **members))
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def state_of(http: httpx.Client, id: str) -> str:
    return str(http.get(f"/v1/jobs/{id}").json()["state"])


def wait_for_state(http: httpx.Client, id: str, state: str) -> None:
    wait_until(lambda: state_of(http, id) == state, explain=lambda: http.get(f"/v1/jobs/{id}").text)
