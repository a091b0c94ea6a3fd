"""The remote pipe on real input: the same bytes, the same status, the same ends as a local command's."""

from __future__ import annotations

import array
import hashlib
import math
import os
import signal
import subprocess
import time
import wave
from pathlib import Path

import pytest

from tests.conftest import MakeLab, StartService
from tests.environment import clean_environment, command
from tests.needs import find_tool, require_tool
from tests.service import Application, Shell
from tests.waiting import PATIENCE, wait_until

MINUTES = 10
RATE = 8000  # samples a second: ten minutes of this take an encoder two seconds


def write_wav(path: Path) -> None:
    """Ten minutes of a tone that slides and of clicks; the same twenty seconds over and over."""
    count = 20 * RATE
    samples = (round(9000 * math.sin(i * (1 + i / count) / 7)) + (6000 if i % 3989 < 40 else 0) for i in range(count))
    twenty_seconds = array.array("h", samples).tobytes()
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        for _ in range(MINUTES * 3):
            file.writeframes(twenty_seconds)


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def test_an_encoder_that_only_the_worker_has_gives_the_bytes_of_a_local_run(
    lab: MakeLab, application: Application, service: StartService, tmp_path: Path
) -> None:
    require_tool("oggenc")
    client, worker = lab(2).hosts
    path, program = tmp_path / "bin", ["oggenc", "-Q", "-s", "1", "-o-", "-"]
    path.mkdir()
    (path / "oggenc").symlink_to(find_tool("oggenc"))  # type: ignore[arg-type]
    write_wav(tmp_path / "in.wav")
    local = worker.run(
        program, env=clean_environment({"PATH": str(path)}), stdin=(tmp_path / "in.wav").open(), capture_output=True
    )
    service(*program, host=worker, environment={"PATH": str(path)})
    ended = client.run(
        command("cexec", application.public),
        env=clean_environment({"PATH": "/nowhere"}),
        stdin=(tmp_path / "in.wav").open(),
        capture_output=True,
    )
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert ended.stdout[:4] == b"OggS" and len(ended.stdout) > 100_000
    assert ended.stdout == local.stdout


@pytest.mark.parametrize("size", [50_000_000, pytest.param(200_000_000, marks=pytest.mark.campaign)])
@pytest.mark.parametrize("way", ["files", "pipes"])
def test_many_megabytes_through_cat_are_the_same(way: str, size: int, shell: Shell, tmp_path: Path) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    with before.open("wb") as file:
        for _ in range(size // 1_000_000):
            file.write(os.urandom(1_000_000))
    argv, environment = shell.client("cat")
    script = '"$@" < before > after' if way == "files" else 'cat before | "$@" | cat > after'
    subprocess.run(["bash", "-o", "pipefail", "-c", script, "bash", *argv], env=environment, cwd=tmp_path, check=True)
    assert after.stat().st_size == size
    assert sha256(before) == sha256(after)


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 65_537, 262_140, 1_048_576, 5_000_001])
def test_any_number_of_bytes_comes_back(size: int, shell: Shell) -> None:
    data = os.urandom(size)
    ended = shell.run("cat", input=data)
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert ended.stdout == data


def test_standard_error_is_apart_from_standard_output(shell: Shell) -> None:
    ended = shell.run("echo out; echo err >&2; echo out again")
    assert (ended.stdout, ended.stderr) == (b"out\nout again\n", b"err\n")


def test_both_in_one_file_keep_their_order(shell: Shell, tmp_path: Path) -> None:
    argv, environment = shell.client("for i in 1 2 3 4 5 6 7 8 9; do echo out $i; echo err $i >&2; done")
    with (tmp_path / "both").open("wb") as file:
        subprocess.run(
            argv, env=environment, stdin=subprocess.DEVNULL, stdout=file, stderr=file, check=True, timeout=30
        )
    expected = "".join(f"out {i}\nerr {i}\n" for i in range(1, 10))
    assert (tmp_path / "both").read_text() == expected


def test_bytes_go_through_as_they_come(shell: Shell) -> None:
    argv, environment = shell.client("while read line; do echo got $line; done")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(argv, env=environment, bufsize=0, **pipes) as client:  # type: ignore[call-overload]
        for word in (b"one", b"two", b"three"):
            client.stdin.write(word + b"\n")
            assert client.stdout.readline() == b"got " + word + b"\n"
        client.stdin.close()
        assert client.wait(PATIENCE) == 0


# How it ends


@pytest.mark.parametrize("status", [0, 1, 44, 100, 111, 128, 137, 255])
def test_the_exit_status_is_the_programs(status: int, shell: Shell) -> None:
    ended = shell.run(f"exit {status}")
    assert (ended.returncode, ended.stdout, ended.stderr) == (status, b"", b"")
    assert shell.run("true").returncode == 0  # a worker whose jobs only fail is slowed down


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV, signal.SIGHUP])
def test_death_by_a_signal_is_128_and_its_number(number: int, shell: Shell) -> None:
    ended = shell.run(f"ulimit -c 0; kill -{number} $$; sleep 5")
    assert (ended.returncode, ended.stdout) == (128 + number, b"")
    assert shell.run("true").returncode == 0


def test_a_reader_that_has_enough_ends_the_program_without_a_complaint(shell: Shell) -> None:
    argv, environment = shell.client("yes")
    script = '"$@" </dev/null | head -1; echo ${PIPESTATUS[0]}'
    ended = subprocess.run(["bash", "-c", script, "bash", *argv], env=environment, capture_output=True, timeout=30)
    assert (ended.stdout, ended.stderr) == (b"y\n141\n", b"")


def test_a_late_line_of_a_background_process_arrives(shell: Shell) -> None:
    ended = shell.run("(sleep 2; echo late) & echo early")
    assert (ended.returncode, ended.stdout) == (0, b"early\nlate\n")


def test_a_background_process_without_our_output_is_ended_with_the_job(shell: Shell) -> None:
    assert shell.run("sleep 600 </dev/null >/dev/null 2>&1 & echo done", timeout=60).stdout == b"done\n"
    wait_until(lambda: not shell.service.started())


def test_a_program_that_does_not_read_its_input_is_not_waited_for(shell: Shell) -> None:
    argv, environment = shell.client("echo enough")
    with subprocess.Popen(argv, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as client:
        assert client.stdout is not None and client.stdin is not None
        assert client.stdout.read() == b"enough\n"  # while our input is open, and says nothing
        assert client.wait(PATIENCE) == 0


def test_input_that_the_program_left_is_there_for_the_next_one(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"first\nsecond\nthird\n")
    argv, environment = shell.client("head -c 6")
    with (tmp_path / "in").open("rb", buffering=0) as file:
        assert subprocess.run(argv, env=environment, stdin=file, capture_output=True, timeout=30).stdout == b"first\n"
        assert file.read() == b"second\nthird\n"


def test_a_loop_over_a_file_of_names_needs_no_n(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "names").write_text("one\ntwo\nthree\n")
    argv, environment = shell.client('echo "hello $PEER_NAME"')
    script = 'while read name; do "$@" "NAME=$name"; done < names'
    ended = subprocess.run(
        ["sh", "-c", script, "sh", *argv], env=environment, cwd=tmp_path, capture_output=True, timeout=30
    )
    assert ended.stdout == b"hello one\nhello two\nhello three\n"


@pytest.mark.parametrize(
    "script",
    [
        "sleep 60",
        "cat",
        "yes",
        "sleep 60 & sleep 60 & wait",
        "setsid sleep 60",
        "(setsid sleep 60 &) ; sleep 60",
        "trap '' TERM HUP; sleep 60",
    ],
)
def test_a_client_that_is_killed_leaves_no_process(script: str, shell: Shell) -> None:
    argv, environment = shell.client(f"echo begun >&2; {script}")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(argv, env=environment, **pipes) as client:  # type: ignore[call-overload]
        assert client.stderr.readline() == b"begun\n"
        assert shell.service.started()
        client.kill()
        assert client.wait(PATIENCE) == -signal.SIGKILL
        wait_until(lambda: not shell.service.started())
    assert shell.run("echo still well").stdout == b"still well\n"


def test_a_reader_that_is_slow_gets_everything(shell: Shell) -> None:
    argv, environment = shell.client("head -c 3000000 /dev/zero")
    with subprocess.Popen(argv, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as client:
        assert client.stdout is not None
        total = 0
        while chunk := os.read(client.stdout.fileno(), 100_000):
            total += len(chunk)
            time.sleep(0.02)  # this is what makes the reader slow
        assert (total, client.wait(PATIENCE)) == (3_000_000, 0)


def test_a_full_disk_is_told_and_never_a_success(shell: Shell) -> None:
    argv, environment = shell.client("head -c 100000 /dev/zero")
    with open("/dev/full", "wb") as full:
        ended = subprocess.run(
            argv, env=environment, stdin=subprocess.DEVNULL, stdout=full, stderr=subprocess.PIPE, timeout=30
        )
    assert ended.returncode == 111
    assert ended.stderr == b"cexec: cannot write to standard output: no space left on device\n"
