"""Outputs that cannot be written: never a success, and a reason; a reader that has gone is as in a local pipeline."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.needs import require_namespaces
from tests.service import Shell

SMALL = "echo a line"
LARGE = "head -c 3000000 /dev/zero"
each_size = pytest.mark.parametrize("program", [SMALL, LARGE], ids=["small", "large"])
NO_SPACE = b"no space left on device\n"


def bash(shell: Shell, script: str, program: str, *options: str, directory: Path) -> subprocess.CompletedProcess[bytes]:
    """Runs a script of bash in which "$@" is the client whose worker runs `program`."""
    argv, environment = shell.client(program, *options)
    return subprocess.run(
        ["bash", "-c", script, "bash", *argv],
        env=environment,
        cwd=directory,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
    )


@each_size
@pytest.mark.parametrize("options", [[], ["--hold"]], ids=["", "hold"])
def test_a_full_device(shell: Shell, tmp_path: Path, program: str, options: list[str]) -> None:
    ended = bash(shell, '"$@" >/dev/full', program, *options, directory=tmp_path)
    assert (ended.returncode, ended.stderr) == (111, b"cexec: cannot write to standard output: " + NO_SPACE)


def test_a_full_device_as_another_descriptor(shell: Shell, tmp_path: Path) -> None:
    ended = bash(shell, '"$@" 5>/dev/full', "echo kept; echo lost >&5", directory=tmp_path)
    assert (ended.returncode, ended.stdout) == (111, b"kept\n")  # the failure ends the client: what comes later is lost
    assert ended.stderr == b"cexec: cannot write to descriptor 5: " + NO_SPACE


def test_a_full_device_as_standard_error_cannot_be_told_of_but_is_no_success(shell: Shell, tmp_path: Path) -> None:
    assert bash(shell, '"$@" 2>/dev/full', "echo lost >&2", directory=tmp_path).returncode == 111


@pytest.mark.parametrize("options", [[], ["--hold"]], ids=["", "hold"])
def test_a_disk_of_64_kib(shell: Shell, tmp_path: Path, options: list[str]) -> None:
    """It holds a small output; of a large one nothing is left when it has failed, so that make has no half a file."""
    require_namespaces()
    argv, environment = shell.client("head -c $PEER_SIZE /dev/zero", *options)
    script = (
        "mkdir disk; mount -t tmpfs -o size=64k none disk; for i in small,60000 large,3000000; do "
        '"$@" SIZE=${i#*,} >disk/${i%,*}; echo $?; done; cd disk; du -b *'
    )
    ended = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, "sh", *argv],
        env=environment,
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
    )
    assert ended.stdout == b"0\n111\n0\tlarge\n60000\tsmall\n"
    assert ended.stderr == b"cexec: cannot write to standard output: " + NO_SPACE


def test_a_full_disk_for_what_is_held_back_is_named(shell: Shell, tmp_path: Path) -> None:
    require_namespaces()
    argv, environment = shell.client(LARGE, "--hold", environment={"TMPDIR": f"{tmp_path}/disk"})
    ended = subprocess.run(
        ["unshare", "-m", "sh", "-c", 'mkdir disk; mount -t tmpfs -o size=64k none disk; "$@"', "sh", *argv],
        env=environment,
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
    )
    assert (ended.returncode, ended.stdout) == (111, b"")
    assert ended.stderr == f"cexec: cannot keep standard output back in {tmp_path}/disk (TMPDIR): ".encode() + NO_SPACE


def test_a_file_that_may_not_be_so_large(shell: Shell, tmp_path: Path) -> None:
    ended = bash(shell, 'ulimit -f 100; "$@" >out', LARGE, directory=tmp_path)
    assert (ended.returncode, ended.stderr) == (111, b"cexec: cannot write to standard output: file too large\n")
    assert (tmp_path / "out").read_bytes() == b""
    ended = bash(shell, 'ulimit -f 100; "$@" >out', LARGE, "--keep-partial", directory=tmp_path)
    assert ended.returncode == 111
    assert (tmp_path / "out").stat().st_size == 100 * 1024


def test_an_input_that_cannot_be_read(shell: Shell) -> None:
    argv, environment = shell.client("cat")
    with open("/proc/self/mem", "rb") as memory:  # a regular file; there is nothing at its beginning
        ended = subprocess.run(argv, env=environment, stdin=memory, capture_output=True, timeout=60)
    assert (ended.returncode, ended.stdout) == (111, b"")
    assert ended.stderr == b"cexec: cannot read from standard input: input/output error\n"


# Readers that have gone


def into_no_reader(shell: Shell, program: str, *options: str) -> int:
    """The status when the reader has gone before the program starts."""
    argv, environment = shell.client(program, *options)
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "wb") as pipe:
        return subprocess.run(argv, env=environment, stdin=subprocess.DEVNULL, stdout=pipe, timeout=60).returncode


@pytest.mark.parametrize(
    "program",
    [SMALL, LARGE, f"{SMALL}; sleep 0.5", f"{SMALL}; sleep 0.3; {SMALL}", "head -c 300000 /dev/zero; sleep 0.1"],
    ids=["small", "large", "late end", "two lines", "as much as a pipe holds"],
)
@pytest.mark.parametrize("options", [[], ["--hold"]], ids=["", "hold"])
def test_a_reader_that_has_gone_is_141_as_in_a_local_pipeline(shell: Shell, program: str, options: list[str]) -> None:
    """Regression: a program that had written all before it could hear of that ended as if all had been well."""
    assert into_no_reader(shell, program, *options) == 141


def test_a_program_that_writes_on_and_on_hears_that_its_reader_has_gone(shell: Shell) -> None:
    assert into_no_reader(shell, "trap 'exit 7' PIPE; while :; do echo y || exit 7; sleep 0.3; done") == 7


def test_a_reader_that_goes_after_the_program_has_ended_is_141_too(shell: Shell, tmp_path: Path) -> None:
    """Locally the program would still have been writing."""
    ended = bash(
        shell, '{ "$@"; echo $? >&2; } | (sleep 1; head -c 10 | wc -c)', "head -c 900000 /dev/zero", directory=tmp_path
    )
    assert (ended.stdout, ended.stderr) == (b"10\n", b"141\n")


def test_a_program_that_sees_that_its_reader_has_gone_may_end_well(shell: Shell, tmp_path: Path) -> None:
    program = "trap '' PIPE; while echo y; do :; done 2>/dev/null; exit 0"
    ended = bash(shell, '"$@" | head -1; echo ${PIPESTATUS[0]}', program, directory=tmp_path)
    assert (ended.stdout, ended.stderr) == (b"y\n0\n", b"")


def test_output_that_is_closed_is_no_failure_of_ours(shell: Shell, tmp_path: Path) -> None:
    local = subprocess.run(["bash", "-c", "exec >&-; sh -c 'echo x'"], capture_output=True)
    ended = bash(shell, '"$@" >&-', "echo x", directory=tmp_path)
    assert ended.returncode == local.returncode != 0
    assert bash(shell, '"$@" >&-', "exit 0", directory=tmp_path).returncode == 0


def test_a_program_may_close_its_input_while_others_still_write_it(shell: Shell, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    argv, environment = shell.client("read line; exec <&-; echo got $line")
    with open(writing, "wb", buffering=0) as pipe:
        client = subprocess.Popen(argv, env=environment, stdin=reading, stdout=subprocess.PIPE)
        os.close(reading)
        pipe.write(b"one\n")
        assert client.communicate(timeout=30)[0] == b"got one\n"
        with pytest.raises(BrokenPipeError):
            pipe.write(b"two\n")
    assert client.returncode == 0
