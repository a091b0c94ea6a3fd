"""examples/scripts-of runs the scripts of one directory, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[1] / "examples" / "scripts-of"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    scripts = tmp_path / "worker" / "scripts"
    (scripts / "below").mkdir(parents=True)
    for name in ("say.sh", "below/deep.sh"):
        (scripts / name).write_text('#!/bin/sh\necho "$0" "$@" | sed "s|.*/||"\n')
        (scripts / name).chmod(0o755)
    (scripts / "plain.sh").write_text('echo plain "$@"\n')  # without the bit that lets it be run itself
    (tmp_path / "secret.sh").write_text("echo secret\n")
    (scripts / "way_out.sh").symlink_to(tmp_path / "secret.sh")
    (scripts / "inside.sh").symlink_to(scripts / "say.sh")
    return scripts


def run(directory: Path | str, *arguments: str, before: tuple[str, ...] = ()) -> tuple[int, str, str]:
    argv = [sys.executable, PROGRAM, *before, directory, *arguments]
    ended = subprocess.run(argv, capture_output=True, text=True, timeout=30)
    return ended.returncode, ended.stdout, ended.stderr


@pytest.mark.parametrize(
    ("arguments", "output"),
    [
        (["bash", "say.sh", "a b", "c"], "say.sh a b c\n"),
        (["sh", "scripts/say.sh", "1"], "say.sh 1\n"),
        (["bash", "worker/scripts/say.sh"], "say.sh\n"),
        (["bash", "./below/../say.sh"], "say.sh\n"),
        (["bash", "below/deep.sh"], "deep.sh\n"),
        (["bash", "plain.sh", "x"], "plain x\n"),
        (["say.sh", "bash", "say.sh"], "say.sh bash say.sh\n"),
        (["bash", "inside.sh"], "say.sh\n"),
    ],
)
def test_scripts_are_run(directory: Path, arguments: list[str], output: str) -> None:
    assert run(directory, *arguments) == (0, output, "")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "name a script: [COMMAND] PATH [ARGUMENT...]"),
        (["bash"], "name the script that bash is to run"),
        (["bash", "-c", "echo broken"], "there is no script '-c' here"),
        (["bash", "../../secret.sh"], "there is no script '../../secret.sh' here"),
        (["bash", "way_out.sh"], "there is no script 'way_out.sh' here"),
        (["bash", "/etc/passwd"], "there is no script '/etc/passwd' here"),
        (["bash", "below"], "there is no script 'below' here"),
        (["bash", ""], "there is no script '' here"),
        (["rm", "say.sh"], "'rm' is neither a script here nor one of bash, node, perl, python3, ruby, sh"),
        (["/bin/bash", "say.sh"], "'/bin/bash' is neither a script here"),
        (["", "say.sh"], "'' is neither a script here"),
        (["plain.sh"], "cannot run plain.sh: permission denied"),
    ],
)
def test_all_else_is_refused(directory: Path, arguments: list[str], words: str) -> None:
    status, output, errors = run(directory, *arguments)
    assert (status, output) == (100, "")
    assert errors.startswith(f"scripts-of: {words}") and errors.count("\n") == 1


def test_the_owner_names_the_interpreters(directory: Path) -> None:
    assert run(directory, "sh", "say.sh", before=("--by", "sh"))[0] == 0
    status, _, errors = run(directory, "bash", "say.sh", before=("--by", "sh", "--by", "lua"))
    assert (status, errors) == (100, "scripts-of: 'bash' is neither a script here nor one of sh, lua\n")


def test_the_owner_has_to_name_a_directory(directory: Path) -> None:
    for wrong in ("", "relative", directory / "say.sh", directory / "absent"):
        assert run(wrong, "bash", "say.sh")[0] == 100


def test_the_example_counts(directory: Path) -> None:
    scripts = PROGRAM.parent / "scripts"
    assert run(scripts, "bash", "count.sh", "3", "0") == (0, "1\n2\n3\n", "")
    assert os.access(scripts / "count.sh", os.X_OK)
