"""cgate(1): its words and its exit statuses; what it serves is tested in tests/gate."""

from __future__ import annotations

import os
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from cexec.commands.cgate import parse_where
from cexec.errors import UsageError
from tests.environment import ROOT, command, local_environment
from tests.service import Application


def cgate(*arguments: str | Path) -> tuple[int, str]:
    """Exit status and words of a cgate that ends by itself."""
    argv = command("cgate", *arguments)
    ended = subprocess.run(argv, env=local_environment(), capture_output=True, text=True, timeout=60)
    return ended.returncode, ended.stderr.strip()


@pytest.mark.parametrize(
    ("text", "address", "port"),
    [
        (None, "127.0.0.1", 8042),
        ("0.0.0.0:80", "0.0.0.0", 80),
        (":9000", "127.0.0.1", 9000),
        ("localhost", "localhost", 8042),
        ("[::1]:80", "::1", 80),
        ("::1", "::1", 8042),
        ("127.0.0.1:0", "127.0.0.1", 0),
    ],
)
def test_where_it_listens(text: str | None, address: str, port: int) -> None:
    assert parse_where(text) == (address, port)


@pytest.mark.parametrize("text", ["127.0.0.1:x", "127.0.0.1:99999", "[::1]:-1"])
def test_ports_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="--http"):
        parse_where(text)


def test_wrong_use(application: Application, tmp_path: Path) -> None:
    assert cgate()[0] == 100
    assert cgate("--tls-cert", "x", application.public) == (
        100, "cgate: --tls-cert and --tls-key are given together; cgate tls init DIR makes both",
    )  # fmt: skip
    (tmp_path / "other").mkdir()
    same = Application(tmp_path / "other")
    status, words = cgate(application.public, same.public)
    assert status == 100 and "two keys are called app.pub" in words
    assert "--max-output" in cgate("--max-output", "1", application.public)[1]
    status, words = cgate("--pcci", application.public, tmp_path / "none.pub")
    assert status in (100, 111) and words.count("\n") == 0


def test_a_key_that_is_not_there(tmp_path: Path) -> None:
    status, words = cgate("--state", tmp_path / "state", tmp_path / "none.pub")
    assert status == 111 and "none.pub" in words and not list(tmp_path.iterdir())


def test_a_port_that_somebody_has(application: Application, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, words = cgate("--http", f"127.0.0.1:{port}", "--state", tmp_path / "state", application.public)
    assert status == 111
    assert words == f"cgate: cannot listen at 127.0.0.1 port {port}: address already in use; give another --http"


def test_states_that_are_none(application: Application, tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.write_text("a text")
    assert cgate("--state", state, application.public)[0] == 100
    state.unlink()
    with sqlite3.connect(state) as database:
        database.execute("PRAGMA application_id=0x63676174")
        database.execute("PRAGMA user_version=99")
        database.execute("CREATE TABLE job (id TEXT)")
    database.close()
    status, words = cgate("--state", state, application.public)
    assert status == 100 and "was written by a newer cgate" in words
    assert cgate("--state", tmp_path / "none" / "state", application.public)[0] == 111


def test_without_the_extra_it_says_what_to_install(application: Application, tmp_path: Path) -> None:
    """A Python that has what cexec needs, and nothing else."""
    hidden = tmp_path / "sitecustomize.py"
    hidden.write_text(
        "import importlib.util\n"
        "before = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *rest: None if name == 'uvicorn' else before(name, *rest)\n"
    )
    environment = {**local_environment(), "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    argv = [sys.executable, str(ROOT / "bin" / "cgate")]
    ended = subprocess.run([*argv, application.public], env=environment, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 100
    assert ended.stderr == "cgate: uvicorn is not installed; in a checkout of cexec type: pip install '.[gate]'\n"
    helped = subprocess.run([*argv, "--help"], env=environment, capture_output=True, text=True, timeout=60)
    assert helped.returncode == 0 and "--retention" in helped.stdout
