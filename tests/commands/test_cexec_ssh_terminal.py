"""Terminals of cexec-ssh: when a command gets one, and what it finds there."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.shell_host import ShellHost
from tests.terminal import Terminal
from tests.waiting import wait_until


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ShellHost]:
    worker = ShellHost(tmp_path_factory.mktemp("shell"))
    yield worker
    worker.close()


def at_terminal(host: ShellHost, *words: str, **changes: str) -> Terminal:
    return Terminal(["cexec-ssh", *words], host.environment(changes))


def test_without_a_command_a_person_gets_a_login_shell_on_a_terminal(host: ShellHost) -> None:
    with at_terminal(host, "w", TERM="vt220") as terminal:
        terminal.type(b"echo $0:$TERM:`tty`:$SSH_TTY:$PWD\n")
        terminal.wait_for(b"-bash:vt220:/dev/pts/")
        terminal.type(b"exit 7\n")
        assert terminal.wait() == 7
        found = re.search(rb"[\r\n]-bash:vt220:(/dev/pts/\d+):(/dev/pts/\d+):(\S+)\r\n", terminal.read_all())
        assert found and found[1] == found[2] and found[3].decode() == os.fspath(host.home)


def test_a_command_gets_a_terminal_only_if_it_is_asked_for(host: ShellHost) -> None:
    script = "test -t 0 && test -t 1 && test -t 2 && echo at $SSH_TTY || echo no terminal"
    for words, expected in (
        ((), b"no terminal"),
        (("-t",), b"at /dev/pts/"),
        (("-tT",), b"no terminal"),
        (("-n", "-t"), b"no terminal"),
        (("-oRequestTTY=yes",), b"at /dev/pts/"),
    ):
        with at_terminal(host, *words, "w", script) as terminal:
            assert terminal.wait() == 0
            assert terminal.read_all().startswith(expected), words


def test_a_person_whose_command_misses_a_terminal_gets_a_hint(host: ShellHost) -> None:
    """A program that reads the messages gets none, nor does one who wants no terminal."""
    hint = b"cexec-ssh: no terminal there; see cexec-ssh -t"
    for words, hinted in ((("w", "stty size"), True), (("-T", "w", "stty size"), False), (("w", "false"), False)):
        with at_terminal(host, *words) as terminal:
            assert terminal.wait() == 1
            assert (hint in terminal.read_all()) is hinted, words
    assert hint not in host.ssh("w", "stty size").stderr


def test_without_a_terminal_here_t_asks_for_none_and_tt_for_one(host: ShellHost) -> None:
    script = "tty; exit 3"
    once, twice = host.ssh("-t", "w", script), host.ssh("-tt", "w", script)
    assert (once.returncode, once.stdout, once.stderr) == (3, b"not a tty\n", b"")
    assert twice.returncode == 3 and twice.stdout.startswith(b"/dev/pts/") and twice.stderr == b""


def test_a_terminal_that_does_not_show_keys_is_one_there_too(host: ShellHost) -> None:
    """Regression: a line typed in Emacs's shell, or sent by expect after `stty -echo`, was shown all the same."""
    for before, shown in (("stty -echo", b" -echo "), ("stty echo", b" echo ")):
        script = [f'{before}; exec cexec-ssh "$@"', "sh", "-t", "w", "stty -a"]
        with Terminal(["sh", "-c", *script], host.environment()) as terminal:
            assert terminal.wait() == 0
            assert shown in terminal.read_all().replace(b"\r\n", b" ")


def test_the_shell_in_front_has_turned_echo_off_for_itself_alone(host: ShellHost, tmp_path: Path) -> None:
    """A shell that edits its line does that, while the call is still in the background."""
    go, seen = tmp_path / "go", tmp_path / "seen"
    script = f"until test -e {go}; do sleep 0.05; done; exec cexec-ssh -t w 'stty -a > {seen}'"
    with Terminal(["sh", "-c", script], host.environment(), background=True) as terminal:
        terminal.show_keys(False)
        go.touch()
        wait_until(lambda: seen.exists() and b"echok" in seen.read_bytes())
        assert b" echo " in seen.read_bytes()
        assert terminal.wait() == 0


def test_a_pipe_can_type_into_a_shell_on_a_terminal(host: ShellHost) -> None:
    """As programs do that want a prompt."""
    ended = host.ssh("-tt", "w", input=b"stty -echo; tty\necho $((20 + 22))\nexit\n")
    assert ended.returncode == 0 and b"/dev/pts/" in ended.stdout and b"\n42\r\n" in ended.stdout


def test_what_runs_on_a_terminal_is_ended_with_its_client(host: ShellHost, tmp_path: Path) -> None:
    started = tmp_path / "started"
    with at_terminal(host, "-t", "w", f"echo $$ > {started}; sleep 100") as terminal:
        wait_until(lambda: started.exists() and started.read_text().endswith("\n"))
        terminal.type(b"\r~.")
        assert terminal.wait() == 255
        assert b"left by ~." in terminal.read_all()
    wait_until(lambda: not Path(f"/proc/{started.read_text().strip()}").exists())


def test_a_service_without_terminals_says_so(tmp_path: Path) -> None:
    worker = ShellHost(tmp_path, options=["--no-tty"])
    try:
        assert worker.do("cexec-ssh", "w", "tty || true") == "not a tty\n"
        ended = worker.ssh("-tt", "w", "tty")
        assert ended.returncode == 255 and b"w: gives no terminal" in ended.stderr
    finally:
        worker.close()
