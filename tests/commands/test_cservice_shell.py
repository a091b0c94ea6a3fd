"""`cservice --shell`: what its owner and its clients are told, and which options go with it."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.environment import command, local_environment
from tests.needs import NOBODY, require_tool
from tests.service import Application
from tests.shell_host import GROUPS, USER, ShellHost
from tests.waiting import wait_until


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
        census: list[bytes] = [b""]

        def answered() -> bool:
            """A census gives up after a second, in which a busy machine may have no time for the worker."""
            census[0] = subprocess.run(argv, env=local_environment(), capture_output=True, timeout=60).stdout
            return census[0] != b""

        wait_until(answered)
        told = json.loads(census[0])
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


def test_a_shell_of_another_account(tmp_path: Path) -> None:
    """`--user NAME --shell`: everything is that account's, as after a login."""
    worker = ShellHost(tmp_path, other_user=True)
    script = "id -u; id -g; id -G; pwd; echo $USER $LOGNAME $MAIL $SHELL $HOME ${SSH_CONNECTION%% *}; touch made"
    expected = f"{NOBODY}\n{NOBODY}\n{NOBODY} {GROUPS['crew']}\n/mnt\nalice alice /var/mail/alice /bin/bash /mnt"
    try:
        assert f"has this account, {USER}; " in worker.service.lines[0]
        assert worker.do("cexec-ssh", f"{USER}@w", script) == f"{expected} 127.0.0.1\n"
        assert (worker.home / "made").stat().st_uid == NOBODY
        # The terminal is hers as well: programs such as tmux open it again.
        shown = worker.ssh("-tt", "w", "stat -c %U:%A $SSH_TTY && echo seen >$SSH_TTY")
        assert re.fullmatch(rb"alice:crw--[-w]----\r\nseen\r\n", shown.stdout), shown.stdout
        refused = worker.ssh("root@w", "true")
        assert (refused.returncode, refused.stdout) == (255, b"")
        assert b"w: has account=alice, not root" in refused.stderr
        assert not any("root runs" in line for line in worker.service.lines)
    finally:
        worker.close()
