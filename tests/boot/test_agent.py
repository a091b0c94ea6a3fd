"""The agent: requests on its standard input, marked answers on its standard output, and silence of the other side."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from cexec.boot.agent_source import command, source
from cexec.boot.remote import main
from cexec.boot.remote.main import Agent, patience
from cexec.boot.remote.place import RemoteError
from tests.boot.test_remote_place import listing


def ask(home: Path, request: dict[str, Any], more: bytes = b"") -> list[dict[str, Any]]:
    sink = io.BytesIO()
    Agent(io.BytesIO(json.dumps({**request, "mark": "M"}).encode() + b"\n" + more), sink, str(home)).run()
    lines = sink.getvalue().decode().splitlines()
    return [json.loads(line.removeprefix("M ")) for line in lines if line.startswith("M ")]


def test_the_agent_runs_as_text_on_a_python_without_cexec(tmp_path: Path) -> None:
    """As ssh runs it: a shell reads the command line, and the text comes on standard input."""
    request = json.dumps({"do": "look", "workers": [], "mark": "M"}).encode() + b"\n"
    environment = {"HOME": str(tmp_path), "PATH": os.defpath}
    python = os.path.realpath(sys.executable)
    ended = subprocess.run(
        ["sh", "-c", command(python)], input=source() + request, capture_output=True, env=environment
    )
    assert ended.returncode == 0, ended.stderr
    (line,) = [line for line in ended.stdout.decode().splitlines() if line.startswith("M ")]
    found = json.loads(line[2:])["done"]
    assert found["home"] == str(tmp_path) and not found["place"] and listing(tmp_path) == []


def test_a_request_that_fails_is_told(tmp_path: Path) -> None:
    (tmp_path / ".local").write_text("a file is in the way")
    request = {"do": "install", "release": "r", "wheels": [], "unpacked": 1, "note": {}, "version": "1"}
    (answer,) = ask(tmp_path, request)
    assert answer["failed"]["kind"] == "remote" and ".local" in answer["failed"]["text"]


def test_a_wheel_that_is_cut_off_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    wheel = {"name": "x", "size": 10, "sha256": hashlib.sha256(b"").hexdigest()}
    request = {"do": "install", "release": "r", "wheels": [wheel], "unpacked": 1, "note": {}, "version": "1"}
    wanted, failed = ask(tmp_path, request, b"12345")
    assert wanted == {"want": True} and failed["failed"]["kind"] == "connection"
    assert listing(tmp_path) == []


def test_an_agent_whose_network_broke_lets_go_of_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """sshd does not notice, so standard input stays open and silent."""
    monkeypatch.setattr(main, "DATA_PATIENCE", 0.2)
    wheel = {"name": "x", "size": 10, "sha256": ""}
    request = {
        "do": "install",
        "release": "r",
        "wheels": [wheel],
        "unpacked": 1,
        "note": {},
        "version": "1",
        "mark": "M",
    }
    reading, writing = os.pipe()
    sink = io.BytesIO()
    with os.fdopen(reading, "rb") as source_end, os.fdopen(writing, "wb") as other:
        other.write(json.dumps(request).encode() + b"\n12345")
        other.flush()
        Agent(source_end, sink, str(tmp_path)).run()
    assert b"nothing has come for 0.2 s" in sink.getvalue() and listing(tmp_path) == []


def test_patience_ends_with_its_block() -> None:
    with pytest.raises(RemoteError), patience(0.05):
        time.sleep(10)
    with patience(10.0):
        pass
