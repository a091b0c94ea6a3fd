"""`cservice --shell`: what its owner and its clients are told, and which options go with it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.environment import command, local_environment
from tests.needs import require_tool
from tests.service import Application
from tests.shell_host import ShellHost


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--shell", "APP", "bash"), "--shell runs the commands of the clients, so no program can be named: bash"),
        (("--shell", "--private-dir", "APP"), "--private-dir has no meaning with --shell"),
        (("--shell", "--allow-programs", "APP"), "--allow-programs has no meaning with --shell"),
        (("APP", "--shell"), "options come before APP: cservice --shell APP"),
    ],
)
def test_words_that_mean_nothing_together(application: Application, words: tuple[str, ...], expected: str) -> None:
    argv = command("cservice", *(os.fspath(application.secret) if word == "APP" else word for word in words))
    ended = subprocess.run(argv, env=local_environment(), capture_output=True, text=True, timeout=30)
    assert ended.returncode == 100
    assert expected.replace("APP", os.fspath(application.secret)) in ended.stderr


def test_the_first_line_says_what_the_key_is_worth(tmp_path: Path) -> None:
    worker = ShellHost(tmp_path)
    try:
        first, second = worker.service.lines[0], worker.service.wait_for("warning")
        public = worker.application.public
        assert "with 100 slots, listening" in first
        assert f"whoever holds {public} has this account, {worker.account}; " in first
        assert first.endswith(f"run a command with: CEXEC_SSH_KEY={public} cexec-ssh w COMMAND")
        assert "clients choose commands that root runs" in second
        argv = command("cps", "--json", public)
        told = json.loads(subprocess.run(argv, env=local_environment(), capture_output=True, timeout=60).stdout)
        assert told["labels"]["account"] == worker.account and told["slots"] == 100
        # A plain client can use it, too: its arguments are the command.
        plain = worker.application.run("--", "echo", "$HOME;", "exit", "3")
        assert (plain.returncode, plain.stdout) == (3, f"{worker.home}\n".encode())
    finally:
        worker.close()


def test_a_home_that_is_missing_is_told_at_the_start(tmp_path: Path) -> None:
    worker = ShellHost(tmp_path, home=False)
    try:
        assert f"there is no directory {worker.home}" in worker.service.wait_for("no directory")
        assert worker.do("cexec-ssh", "w", "pwd") == "/\n"
    finally:
        worker.close()


def test_j_changes_the_number_of_slots(tmp_path: Path) -> None:
    worker = ShellHost(tmp_path, options=["-j", "3"])
    try:
        assert "with 3 slots" in worker.service.lines[0]
    finally:
        worker.close()


def test_a_shell_in_a_sandbox(tmp_path: Path) -> None:
    require_tool("bwrap")
    worker = ShellHost(tmp_path, options=["--isolate"])
    try:
        if "isolation" not in worker.service.lines[0]:
            pytest.fail("\n".join(worker.service.lines))
        assert worker.do("cexec-ssh", "w", "pwd; touch x 2>&1 || echo read-only").endswith("read-only\n")
        assert worker.ssh("w", input=b"shopt -q login_shell && echo login\n").stdout == b"login\n"
    finally:
        worker.close()
