"""ckeygen --give and --take between two hosts, and on one."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MakeLab, StartService
from tests.environment import clean_environment, command, local_environment
from tests.lab import Host
from tests.service import Application
from tests.waiting import PATIENCE

pytest.importorskip("spake2")

PIPES: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}


def give(path: Path, host: Host | None = None) -> tuple[subprocess.Popen[str], str]:
    """A giver that has printed its code."""
    argv = command("ckeygen", "--give", path)
    if host is None:
        process = subprocess.Popen(argv, env=local_environment(), **PIPES)
    else:
        process = host.popen(argv, env=clean_environment(), **PIPES)
    assert process.stdout is not None
    code = process.stdout.readline().strip()
    assert code, process.communicate()
    return process, code


def take(directory: Path, *words: str, host: Host | None = None) -> subprocess.CompletedProcess[str]:
    directory.mkdir(exist_ok=True)
    argv = command("ckeygen", "--take", *words)
    if host is None:
        return subprocess.run(argv, cwd=directory, env=local_environment(), timeout=PATIENCE, **PIPES)
    return host.run(argv, cwd=directory, env=clean_environment(), timeout=PATIENCE, **PIPES)


def another(code: str) -> str:
    """The same number with other words."""
    number, first, second = code.split("-")
    return f"{number}-{'zebra' if first != 'zebra' else 'acorn'}-{second}"


def test_a_key_is_given_to_another_host_which_then_runs_a_job(
    application: Application, service: StartService, lab: MakeLab, tmp_path: Path
) -> None:
    one, two = lab(2).hosts
    service("cat", host=one)  # on the same port: it hears these datagrams, too
    giver, code = give(application.public, one)
    taken = take(tmp_path / "there", code, host=two)
    assert (taken.returncode, taken.stdout) == (0, ""), taken.stderr
    assert taken.stderr == f"app.pub is a client key of {application.fingerprint}; keep it secret\n"
    _, said = giver.communicate(timeout=PATIENCE)
    assert giver.returncode == 0
    assert said.splitlines() == [
        f"on the other machine type, within ten minutes:  ckeygen --take {code}",
        f"{application.public} was taken",
    ]
    there = tmp_path / "there" / "app.pub"
    assert there.read_bytes() == application.public.read_bytes()
    assert there.stat().st_mode & 0o777 == 0o600
    ended = two.run(command("cexec", there), input=b"hello", capture_output=True, env=clean_environment())
    assert ended.stdout == b"hello"


def test_one_wrong_word_uses_the_code_up(application: Application, lab: MakeLab, tmp_path: Path) -> None:
    one, two = lab(2).hosts
    giver, code = give(application.public, one)
    wrong = take(tmp_path / "there", another(code), host=two)
    assert wrong.returncode == 111
    assert "did not accept the code, which is wrong or used up; get a new one\n" in wrong.stderr
    _, said = giver.communicate(timeout=PATIENCE)
    assert giver.returncode == 111
    assert said.splitlines()[-1] == (
        "ckeygen: somebody has tried another code, so this one is used up; give the file again with a new one"
    )
    assert os.listdir(tmp_path / "there") == []


def test_a_file_may_have_another_name_there_and_none_is_replaced(application: Application, tmp_path: Path) -> None:
    giver, code = give(application.public)
    there = tmp_path / "there"
    there.mkdir()
    (there / "mine").write_text("mine")
    refused = take(there, code, "mine")
    assert refused.returncode == 102
    assert refused.stderr == "ckeygen: mine exists and was left untouched; the code was not used\n"
    assert take(there, code, "yours").returncode == 0
    assert giver.wait(PATIENCE) == 0
    giver.communicate()
    assert (there / "mine").read_text() == "mine"
    assert (there / "yours").read_bytes() == application.public.read_bytes()


def test_the_private_key_is_not_given(application: Application) -> None:
    argv = command("ckeygen", "--give", application.secret)
    ended = subprocess.run(argv, env=local_environment(), timeout=PATIENCE, **PIPES)
    assert (ended.returncode, ended.stdout) == (111, "")
    assert ended.stderr == (
        f"ckeygen: {application.secret} is a private key; what is given by a code is a key for one machine; "
        "the private key makes all others and stays where it is\n"
    )


def test_what_is_no_code_is_wrong_use(tmp_path: Path) -> None:
    ended = take(tmp_path / "there", "47-nonsense")
    assert ended.returncode == 100
    assert ended.stderr.startswith("ckeygen: '47-nonsense' is no code: it is a number and two words, such as 47-")
