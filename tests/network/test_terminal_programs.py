"""Programs on a terminal of their worker, `cexec -t`: what a person sees, and what the keys do."""

from __future__ import annotations

import hashlib
import os
import random
import select
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.network.test_signals import until
from tests.screen import Screen
from tests.service import Shell
from tests.waiting import PATIENCE, comes_true, wait_until

BASH = "PS1='$ ' exec bash --norc --noprofile -i"
CAT = b"sh -c 'echo reads; exec cat'\r"  # keys that come while the shell edits its line are the shell's
TOTAL = 10_000_000  # bytes
LINES = 40_000  # of output that a program writes just before it ends


@contextmanager
def on_screen(
    shell: Shell, script: str, *options: str, columns: int = 80, rows: int = 24, ends_with: int = 0
) -> Iterator[Screen]:
    """`cexec -t` at a terminal, which must be as before at the end."""
    argv, environment = shell.client(script, "-t", *options)
    with Screen(columns, rows) as screen:
        before = screen.modes()
        process = screen.run(argv, {**environment, "TERM": "xterm-256color"})
        try:
            yield screen
            assert screen.end(process) == ends_with
            assert screen.modes() == before
        finally:
            process.kill()
            process.wait()


def test_the_program_has_a_terminal_like_ours(shell: Shell) -> None:
    script = (
        "tty; stty size; echo $TERM $COLUMNS; stty -a | grep -o '; erase = ..'; ps -o tpgid= -p $$ | tr -d ' '; echo $$"
    )
    with on_screen(shell, script, columns=100, rows=30) as screen:
        tty, size, term, erase, group, leader = screen.wait_for(lambda lines: len(lines) == 6)
    assert tty.startswith("/dev/pts/") and (size, term, erase) == ("30 100", "xterm-256color", "; erase = ^?")
    assert group == leader  # it leads the session, and its group is in the foreground


def test_the_size_follows_the_window(shell: Shell) -> None:
    with on_screen(shell, "trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.1; done") as screen:
        screen.wait_for("ready")
        screen.resize(120, 40)
        screen.wait_for("40 120")


def test_our_settings_of_keys_are_those_there(shell: Shell) -> None:
    argv, environment = shell.client("stty -a", "-t")
    with Screen() as screen:
        subprocess.run(["stty", "erase", "^H", "intr", "^X", "-ixon", "iutf8"], stdin=screen.theirs, check=True)
        assert screen.end(screen.run(argv, environment)) == 0
        shown = " ".join(screen.lines())
    assert "erase = ^H" in shown and "intr = ^X" in shown and " -ixon" in shown and " iutf8" in shown


def test_a_shell_with_job_control(shell: Shell) -> None:
    with on_screen(shell, BASH, ends_with=3) as screen:
        screen.wait_for("$")
        screen.type(CAT)
        screen.wait_for(lambda lines: "reads" in lines)
        screen.type(b"one\r")
        screen.wait_for(lambda lines: lines.count("one") == 2)
        screen.type(b"\x1a")
        screen.wait_for("Stopped")
        screen.type(b"jobs; fg\r")
        screen.wait_for(lambda lines: sum("exec cat" in line for line in lines) == 4)
        screen.type(b"two\r")
        screen.wait_for(lambda lines: lines.count("two") == 2)
        screen.type(b"\x03")
        screen.wait_for(lambda lines: lines[-1].endswith("$"))
        screen.type(b"echo status $?\r")
        screen.wait_for("status 130")
        screen.type(b"clear; " + CAT)
        screen.wait_for(lambda lines: "reads" in lines and not any("two" in line for line in lines))
        screen.type(b"\x04")  # ends cat
        screen.wait_for(lambda lines: lines[-1].endswith("$"))
        screen.type(b"(exit 3)\r")
        # A shell that runs a command reads lines; a key that ends them would be lost as it reads keys again.
        screen.wait_for(lambda lines: lines[-2:] == ["$ (exit 3)", "$"])
        screen.type(b"\x04")  # ends the shell
        screen.wait_for(lambda lines: lines[-1] == "exit")


def test_flow_control_is_two_keys(shell: Shell) -> None:
    with on_screen(shell, "echo ready; cat") as screen:
        screen.wait_for("ready")
        screen.type(b"first\r")
        screen.wait_for(lambda lines: lines.count("first") == 2)
        screen.type(b"\x13second\r")
        assert not comes_true(lambda: "second" in screen.lines(), 0.3)
        screen.type(b"\x11")
        screen.wait_for(lambda lines: lines.count("second") == 2)
        screen.type(b"\x04")


def test_an_editor_writes_a_file(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_text("old\n")
    with on_screen(shell, f"cd {tmp_path}; vim -u NONE text") as screen:
        screen.wait_for(lambda lines: "old" in lines and "~" in lines)
        screen.type(b"ggOfrom afar\x1b:wq\r")
    assert path.read_text() == "from afar\nold\n"


def test_a_pager_shows_page_after_page(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_text("".join(f"line {number}\n" for number in range(100)))
    with on_screen(shell, f"less {path}", rows=10) as screen:
        assert screen.wait_for(str(path))[:9] == [f"line {number}" for number in range(9)]
        screen.type(b" ")
        screen.wait_for(lambda lines: lines[:1] == ["line 9"] and "line 17" in lines)
        screen.type(b"q")


def test_top_and_python(shell: Shell) -> None:
    with on_screen(shell, "top -d 60; exec python3 -q") as screen:
        screen.wait_for("load average")
        screen.type(b"q")
        screen.wait_for(">>>")
        screen.type(b"6*7\r")
        screen.wait_for(lambda lines: lines[-2:] == ["42", ">>>"])
        screen.type(b"\x04")


def test_a_window_of_another_program_in_the_terminal(shell: Shell, tmp_path: Path) -> None:
    """tmux there: it needs nearly everything of a terminal."""
    with on_screen(shell, f"exec tmux -L t -S {tmp_path}/t -f /dev/null new 'echo in$((40+2)); read x'") as screen:
        screen.wait_for("in42")
        screen.type(b"\r")
        screen.wait_for("[exited]")


def test_a_sandbox_has_the_terminal_too(tmp_path: Path) -> None:
    worker = Shell(tmp_path, ["--isolate"])
    try:
        with on_screen(worker, BASH, ends_with=130) as screen:
            screen.wait_for("$")
            screen.type(CAT)
            screen.wait_for(lambda lines: "reads" in lines)
            screen.type(b"\x1a")
            screen.wait_for("Stopped")
            screen.type(b"fg\r")
            screen.wait_for(lambda lines: sum("exec cat" in line for line in lines) == 3)
            screen.type(b"one\r")
            screen.wait_for(lambda lines: lines.count("one") == 2)  # sooner the key may still be for the shell
            screen.type(b"\x03")
            screen.wait_for(lambda lines: lines[-1].endswith("$"))
            screen.type(b"exit\r")
    finally:
        worker.close()


def test_a_key_is_shown_at_once(shell: Shell) -> None:
    """A delay of ours, such as that of small segments, would be in each of the times."""
    times = []
    with on_screen(shell, "stty -icanon; echo ready; cat >/dev/null", ends_with=130) as screen:
        screen.wait_for("ready")
        for _ in range(60):
            before, began = len(screen.raw), time.monotonic()
            screen.type(b"k")
            while len(screen.raw) == before:
                assert select.select([screen.ours], [], [], PATIENCE)[0]
                screen.read()
            times.append(time.monotonic() - began)
        screen.type(b"\x03")
    assert min(times) < 0.005  # on a busy machine most are longer; a delay of small segments is 0.04


def escapes(size: int) -> bytes:
    """Escape sequences of all kinds, and bytes that are none."""
    dice = random.Random(1)
    words = [
        b"\x1b[?1049h",
        b"\x1b[31m",
        b"\x1b]0;title\x07",
        b"\x1bPq#0\x1b\\",
        b"\xff\x00\x9b",
        b"\r\n",
        "é".encode(),
    ]
    words += [dice.randbytes(40) for _ in range(50)]
    return b"".join(dice.choices(words, k=size // 20))[:size]


def test_ten_megabytes_of_escape_sequences_come_unharmed(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(escapes(TOTAL))
    assert path.stat().st_size == TOTAL
    argv, environment = shell.client(f"stty raw -echo; printf BEGIN; cat {path}", "-t")
    with Screen() as screen:
        process = screen.run(argv, environment)
        received, begun = hashlib.sha256(), b""
        count = 0
        while process.poll() is None or select.select([screen.ours], [], [], 0)[0]:
            if not select.select([screen.ours], [], [], 0.2)[0]:
                continue
            data = os.read(screen.ours, 65536)
            if b"BEGIN" not in begun:
                begun += data
                data = begun.partition(b"BEGIN")[2]
            received.update(data)
            count += len(data)
    assert (process.returncode, count) == (0, TOTAL)
    assert received.digest() == hashlib.sha256(path.read_bytes()).digest()


def test_all_that_was_written_before_the_end_comes(shell: Shell) -> None:
    """Also if a process in the background still has the terminal open."""
    for number in range(3):
        done = shell.run(f"sleep 100 & seq {LINES}", "-t", "-n")
        assert done.stdout.replace(b"\r", b"").split() == [b"%d" % n for n in range(1, LINES + 1)], number
        assert done.returncode == 0


@pytest.mark.parametrize(("keys", "shown"), [(b"one\ntwo\n", b"one\r\ntwo\r\n"), (b"half", b"half"), (b"", b"")])
def test_the_end_of_a_pipe_is_the_key_that_ends_the_input(shell: Shell, keys: bytes, shown: bytes) -> None:
    done = shell.run("stty -echo -echoctl; echo ready; cat; exit 4", "-t", input=keys)
    assert done.returncode == 4 and done.stdout.startswith((b"ready\r\n", keys.replace(b"\n", b"\r\n")))
    assert done.stdout.endswith(shown)


@pytest.mark.parametrize("keys", [b"", b"echo typed\n", b"cat\n"])
def test_a_shell_ends_with_its_input(shell: Shell, keys: bytes) -> None:
    """The end may be typed before the shell reads single keys, or while another program reads lines."""
    done = shell.run(BASH, "-t", input=keys, timeout=60)
    assert done.returncode == 0 and (b"typed\r\n" in done.stdout) is (b"typed" in keys)


def test_many_keys_at_once_are_not_lost(shell: Shell) -> None:
    """The program is slow, and a terminal holds few keys."""
    keys = b"".join(b"%099d\n" % number for number in range(20_000))
    done = shell.run("stty -echo; sleep 0.3; sha256sum", "-t", input=keys)
    assert hashlib.sha256(keys).hexdigest().encode() in done.stdout


def test_standard_error_is_in_the_same_stream_and_others_are_not(shell: Shell, tmp_path: Path) -> None:
    argv, environment = shell.client("echo out; echo err >&2; echo three >&3; [ -t 2 ] && [ ! -t 3 ]", "-n", "-t")
    script = f'exec "$@" 3>{tmp_path}/three'
    done = subprocess.run(["bash", "-c", script, "sh", *argv], env=environment, capture_output=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"out\r\nerr\r\n", b"")
    assert (tmp_path / "three").read_bytes() == b"three\n"


def test_a_reader_that_goes_hangs_up(shell: Shell, tmp_path: Path) -> None:
    argv, environment = shell.client(f"trap 'touch {tmp_path}/hup; exit' HUP; while :; do echo y; done", "-n", "-t")
    done = subprocess.run(
        ["sh", "-c", '"$@" | head -1', "sh", *argv], env=environment, capture_output=True, timeout=60
    )  # fmt: skip
    assert done.stdout == b"y\r\n"
    wait_until((tmp_path / "hup").exists)


def test_a_signal_of_ours_goes_to_the_foreground(shell: Shell) -> None:
    """As Ctrl-C there: the shell goes on, and its job is interrupted."""
    argv, environment = shell.client(BASH, "-t")
    with Screen() as screen:
        process = screen.run(argv, environment)
        screen.wait_for("$")
        screen.type(b"sh -c 'echo run; exec sleep 100'\r")
        screen.wait_for(lambda lines: "run" in lines)
        os.kill(process.pid, 2)
        screen.wait_for(lambda lines: lines[-1].endswith("$"))
        screen.type(b"echo status $?\r")
        screen.wait_for("status 130")
        screen.type(b"exit\r")
        assert screen.end(process) == 0


def test_keys_for_us(shell: Shell) -> None:
    with on_screen(shell, "echo ready; cat") as screen:
        screen.wait_for("ready")
        screen.type(b"~~tilde\r")
        screen.wait_for(lambda lines: lines.count("~tilde") == 2)
        screen.type(b"~?")
        screen.wait_for("~^Z  suspend cexec")
        screen.type(b"a~?b\r")
        screen.wait_for(lambda lines: lines.count("a~?b") == 2)
        screen.type(b"\x04")


def test_the_end_of_a_job_waits_for_no_background(shell: Shell, tmp_path: Path) -> None:
    """Neither for one that is silent nor for one that writes without end; its session is another one."""
    done = shell.run(f"setsid sh -c '{until(tmp_path / 'go')}' & setsid yes & echo end", "-t", "-n", timeout=60)
    assert done.returncode == 0 and b"end\r\n" in done.stdout
    wait_until(lambda: not shell.service.started(), explain=shell.programs)
