"""Four workers on four hosts, `cgate --pcci` on the first of them, and clients on a fifth one.

Contract: clients talk to it over TLS, with a certificate and a token.  `Asker` is a client; `Cluster.ask` is one with
the role submitter.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from cexec.gate.access.caller import TokenRole
from cexec.gate.access.tls import make_materials
from tests.environment import ROOT, clean_environment, command
from tests.gate.tokens import make_token
from tests.lab import Host, Lab
from tests.service import Application, Service
from tests.waiting import PATIENCE, wait_until

PORT = 8042
NODES = ("node1", "node2", "node3", "node4")


class Asker:
    """A client on a host."""

    def __init__(self, host: Host, url: str, token: str, *tls: str) -> None:
        argv = [sys.executable, os.fspath(ROOT / "tests/gate/pcci/asker.py"), url, token, *tls]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self._process = host.popen(argv, env=clean_environment(), **pipes)

    def __call__(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{json.dumps([method, path, body])}\n")
        self._process.stdin.flush()
        status, value = json.loads(self._process.stdout.readline())
        return status, value

    def close(self) -> None:
        self._process.communicate(timeout=PATIENCE)


class Cluster:
    """Four workers on four hosts, `cgate --pcci` on the first of them, and a client on the fifth."""

    def __init__(self, directory: Path, stack: ExitStack) -> None:
        lab = stack.enter_context(Lab(5))
        self.hosts = lab.hosts
        self.application = application = Application(directory, "pcci")
        self.services: dict[str, Service] = {}
        stack.callback(self._close_services)
        for name in NODES:
            self.serve(name)
        first = self.hosts[0]
        make_materials(str(directory / "tls"), [first.address])
        self.tls = [str(directory / "tls" / name) for name in ("ca.pem", "client.pem", "client.key")]
        self.state = directory / "state"
        self.url = f"https://{first.address}:{PORT}"
        token = self.new_token("ci")
        argv = command(
            "cgate", "--pcci", "--http", f"{first.address}:{PORT}", "--state", self.state,
            "--tls-cert", directory / "tls" / "server.pem", "--tls-key", directory / "tls" / "server.key",
            "--client-ca", directory / "tls" / "ca.pem", "--retention", "8s", application.public,
        )  # fmt: skip
        self.log = directory / "log"
        with self.log.open("w") as log:
            gate = first.popen(argv, env=clean_environment(), stdin=subprocess.DEVNULL, stderr=log)
        stack.callback(gate.wait, PATIENCE)
        stack.callback(gate.terminate)
        wait_until(lambda: "serving pcci at" in self.log.read_text(), explain=self.log.read_text)
        self.ask = self.asker(token, stack)

    def serve(self, name: str) -> None:
        """Starts the worker of that name on its host."""
        options = ["--allow-args", "-j", "4", "--name", name]
        self.services[name] = Service(self.application, ["env"], options, self.hosts[NODES.index(name)])

    def stop(self, name: str) -> None:
        """Ends it as its owner would."""
        self.services.pop(name).close()

    def kill(self, name: str) -> None:
        self.services.pop(name).kill()

    def _close_services(self) -> None:
        for name in list(self.services):
            self.stop(name)

    def asker(self, token: str, stack: ExitStack) -> Asker:
        ask = Asker(self.hosts[4], self.url, token, *self.tls)
        stack.callback(ask.close)
        return ask

    def new_token(self, name: str, role: TokenRole = TokenRole.SUBMITTER) -> str:
        return make_token(self.state, name, role)

    def viewer(self, stack: ExitStack) -> Asker:
        return self.asker(self.new_token("eyes", TokenRole.VIEWER), stack)

    def start(self, cmd: str, *workers: str) -> int:
        status, answer = self.ask("POST", "/job", {"cmd": cmd, "workers": list(workers)})
        assert status == 200, answer
        assert list(answer) == ["pool_id", "message"]
        return int(answer["pool_id"])

    def pool(self, number: int) -> dict[str, Any]:
        status, answer = self.ask("GET", f"/pool/{number}")
        assert status == 200 and isinstance(answer, list) and len(answer) == 1, answer
        found: dict[str, Any] = answer[0]
        return found

    def ended(self, number: int) -> dict[str, Any]:
        wait_until(lambda: self.pool(number)["status"] is not None)
        return self.pool(number)

    def pools(self) -> int:
        return len(self.ask("GET", "/pools")[1])
