"""PyNaCl 1.5, which cannot do AEGIS-256, and the PyNaCl of this Python work together, whichever is on which side."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cexec.protocol.base import sodium
from tests.conftest import StartService
from tests.environment import ROOT, clean_environment, command
from tests.needs import require_aegis, skip_for_want_of
from tests.service import Application

OLD = ROOT / ".venv-pynacl15" / "bin" / "python"  # made by `make test`
CIPHERS = "from cexec.protocol.base import sodium; print(*sodium.aead_names())"


def ciphers(python: Path | str) -> list[str]:
    argv = [python, "-c", CIPHERS]
    return subprocess.run(argv, env=clean_environment(), check=True, capture_output=True, text=True).stdout.split()


@pytest.fixture
def old() -> Path:
    """A Python with PyNaCl 1.5."""
    if not OLD.exists():
        skip_for_want_of("PyNaCl 1.5 in a virtual environment of its own, as make test makes it")
    return OLD


def test_what_each_can_do(old: Path) -> None:
    require_aegis()
    assert ciphers(old) == [sodium.CHACHA]
    assert ciphers(sys.executable) == [sodium.AEGIS, sodium.CHACHA]


@pytest.mark.parametrize("old_side", ["worker", "client", "both"])
def test_old_and_new_work_together(
    old_side: str, old: Path, application: Application, service: StartService, monkeypatch: pytest.MonkeyPatch
) -> None:
    if old_side != "client":
        monkeypatch.setattr("tests.service.command", lambda *words: [str(old), *command(*words)[1:]])
    service("cat")
    monkeypatch.undo()
    argv, environment = application.client()
    if old_side != "worker":
        argv[0] = str(old)
    data = os.urandom(3_000_000)
    ended = subprocess.run(argv, env=environment, input=data, capture_output=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert ended.stdout == data
