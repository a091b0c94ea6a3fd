"""Every Python that cexec is for works with every other one, whichever is the client and whichever the worker.

`make pythons` makes a virtual environment of each version that this machine has.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import StartService
from tests.environment import ROOT, command, local_environment
from tests.needs import SKIP_REASON
from tests.service import Application
from tests.waiting import PATIENCE

VERSIONS = ("3.11", "3.12", "3.13")


def python_of(version: str) -> str:
    """The interpreter of this version; without it the test is skipped, loudly, also where CI=true."""
    if "{}.{}".format(*sys.version_info) == version:
        return sys.executable
    found = ROOT / f".venv-python{version}" / "bin" / "python"
    if not found.exists():
        pytest.skip(f"{SKIP_REASON}Python {version}, as make pythons finds it")
    return os.fspath(found)


@pytest.mark.parametrize("worker", VERSIONS)
@pytest.mark.parametrize("client", VERSIONS)
def test_client_and_worker_of_each_version_work_together(
    client: str, worker: str, application: Application, service: StartService, monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:  # fmt: skip
    """Bytes in both directions, arguments, variables, files, an exit status, and leases."""
    theirs, ours = python_of(worker), python_of(client)
    monkeypatch.setattr("tests.service.command", lambda *words: [theirs, *command(*words)[1:]])
    service("sh", "-c", 'cat; cat in > out; echo "$PEER_NAME $1" >&2; exit ${PEER_STATUS:-3}', "sh",
            options=["--allow-args", "-j", "2"])  # fmt: skip
    monkeypatch.undo()
    data = os.urandom(1_000_000)
    (tmp_path / "in").write_bytes(data[:1000])
    environment = local_environment()
    words = ["--send", "in", "--fetch", "out", os.fspath(application.public), "NAME=value", "--", "word"]
    ended = subprocess.run([ours, *command("cexec", *words)[1:]], env=environment, input=data, capture_output=True,
                           cwd=tmp_path, timeout=PATIENCE)  # fmt: skip
    assert (ended.returncode, ended.stderr) == (3, b"value word\n")
    assert ended.stdout == data and (tmp_path / "out").read_bytes() == data[:1000]
    words = [
        "--send",
        "in",
        "--stdin",
        "in",
        os.fspath(application.public),
        "--peer",
        "STATUS=0",
        "--",
        "{}",
        ":::",
        *"abcdefgh",
    ]
    ended = subprocess.run([ours, *command("cmap", *words)[1:]], env=environment, capture_output=True, cwd=tmp_path,
                           timeout=PATIENCE)  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == data[:1000] * 8
