"""A command that is run by tests/preloaded.py does what it does in a process of its own."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests import preloaded
from tests.environment import command, local_environment
from tests.service import Application
from tests.waiting import wait_until

PATIENCE = 60.0


@pytest.mark.parametrize(
    "words",
    [
        ("cmap", "--version"),
        ("cmap", "--dry-run", "app.pub", "--", "{}", ":::", "a", "\udcff"),
        ("cservice", "-j", "0", "app", "true"),
        ("ckeygen", "--list", "nothing"),
    ],
    ids=ascii,
)
def test_it_does_the_same(words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Application(tmp_path)
    monkeypatch.chdir(tmp_path)
    argv, environment = command(*words), local_environment({"COLUMNS": "60"})
    expected = subprocess.run(argv, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE)
    ended = preloaded.run(argv, env=environment, timeout=PATIENCE)
    assert (ended.returncode, ended.stdout, ended.stderr) == (expected.returncode, expected.stdout, expected.stderr)


def test_it_gets_its_input_environment_and_directory(tmp_path: Path) -> None:
    (tmp_path / "keys" / "cexec").mkdir(parents=True)
    Application(tmp_path / "keys" / "cexec")
    lines = b"".join(b"%06d\n" % number for number in range(100_000))  # more than a pipe holds
    ended = preloaded.run(
        command("cmap", "--dry-run", "app", "--", "{}"),
        env=local_environment({"XDG_CONFIG_HOME": str(tmp_path / "keys")}), input=lines, cwd=tmp_path, timeout=PATIENCE,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count(b"\n") == 100_000 and b"099999" in ended.stdout.splitlines()[-1]


def test_it_is_started_again_if_a_test_has_ended_it(tmp_path: Path) -> None:
    argv, environment = command("cmap", "--version"), local_environment()
    first = preloaded.run(argv, env=environment, timeout=PATIENCE)
    process, _ = preloaded.servers[-1]
    process.kill()
    process.wait()
    assert preloaded.run(argv, env=environment, timeout=PATIENCE).stdout == first.stdout


def test_what_lasts_too_long_is_killed(tmp_path: Path) -> None:
    Application(tmp_path)
    reader, writer = os.pipe()
    try:
        with pytest.raises(subprocess.TimeoutExpired):  # its standard input does not end
            preloaded.run(command("cmap", tmp_path / "app.pub"), env=local_environment(), stdin=reader, timeout=1.0)
    finally:
        os.close(reader)

    def nobody_reads() -> bool:
        try:
            os.write(writer, b"\n")
        except BrokenPipeError:
            return True
        return False

    try:
        wait_until(nobody_reads)
    finally:
        os.close(writer)
