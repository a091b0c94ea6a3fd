"""The dummy command: the script with real shells and Pythons, and what is made of its answers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cexec.boot.dummy_command import parse, script
from cexec.boot.failures import PYTHON, REMOTE, HostError
from tests.needs import find_tool, skip_for_want_of

GOOD = {
    "path": "/usr/bin/python3", "version": [3, 11, 2], "implementation": "cpython", "missing": [], "bits": 64,
    "libc": ["glibc", "2.36"], "system": "linux", "machine": "x86_64", "threads": False, "platform": "linux-x86_64",
    "mac": "", "host": "node1",
}  # fmt: skip


def answers(directory: Path, shell: str = "sh") -> list[str]:
    """Runs the script where only the programs of a directory are on the PATH."""
    words = [find_tool(shell) or shell]
    ended = subprocess.run(words, input=script("mark"), capture_output=True, text=True, env={"PATH": str(directory)})
    assert ended.returncode == 0, ended.stderr
    return [line.removeprefix("mark") for line in ended.stdout.splitlines() if line.startswith("mark")]


def program(directory: Path, name: str, text: str) -> None:
    path = directory / name
    path.write_text(text)
    path.chmod(0o755)


def test_the_python_of_these_tests_is_found(tmp_path: Path) -> None:
    (tmp_path / "python3").symlink_to(sys.executable)
    facts = parse(answers(tmp_path))
    assert facts.version == sys.version_info[:3] and facts.short == ".".join(map(str, sys.version_info[:3]))
    assert facts.system == sys.platform and facts.bits in (32, 64)


def test_a_host_without_python_is_told_apart(tmp_path: Path) -> None:
    with pytest.raises(HostError, match=r"it has no python3; cexec needs 3\.11 or later") as caught:
        parse(answers(tmp_path))
    assert caught.value.failure.kind == PYTHON and not caught.value.failure.temporary


def test_a_newer_python_beside_an_old_one_is_taken(tmp_path: Path) -> None:
    program(
        tmp_path,
        "python3",
        '#!/bin/sh\nprintf "\\n%s %s\\n" "$3" \'' + json.dumps({**GOOD, "version": [3, 9, 2]}) + "'\nexit 3\n",
    )
    (tmp_path / "python3.12").symlink_to(sys.executable)
    assert parse(answers(tmp_path)).version == sys.version_info[:3]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"version": [3, 9, 2]}, "its python3 is 3.9.2; cexec needs 3.11 or later"),
        ({"missing": ["zipfile", "ctypes"]}, "its Python 3.11.2 lacks the module zipfile, ctypes"),
        ({"implementation": "pypy"}, "its python3 is pypy 3.11.2"),
    ],
)
def test_a_python_that_does_not_fit_is_named(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(HostError) as caught:
        parse([json.dumps({**GOOD, **changes}), "{}"])
    assert caught.value.failure.kind == PYTHON and words in str(caught.value)


@pytest.mark.parametrize(
    "lines", [["x"], ["[]"], ["{}", "7"], ["[" * 5000], ['{"version": 3}'], [json.dumps({**GOOD, "version": "x"})]]
)
def test_an_answer_that_cannot_be_read_is_a_failure_of_the_host(lines: list[str]) -> None:
    with pytest.raises(HostError) as caught:
        parse(lines)
    assert caught.value.failure.kind in (REMOTE, PYTHON)


@pytest.mark.parametrize(
    "changes",
    [
        {"version": [3, 10**9, 0]},
        {"version": [3, 100, 0]},
        {"version": [3, 12, -1]},
        {"libc": ["glibc", "2.100"]},
        {"libc": ["glibc", "\u0662.36"]},
        {"system": "darwin", "mac": ""},
        {"system": "darwin", "mac": "100.1"},
        {"system": "darwin", "mac": "14"},
    ],
)
def test_a_version_that_none_has_is_a_failure_of_the_host(changes: dict[str, Any]) -> None:
    """Regression: the tags for Python 3.1000000000 took all memory, and a Mac without a version ended the whole run."""
    with pytest.raises(HostError, match="its Python answers what cannot be read") as caught:
        parse([json.dumps({**GOOD, **changes})])
    assert caught.value.failure.kind == REMOTE


@pytest.mark.parametrize("libc", [["glibc", "2.36.9000"], ["musl", "1.2.5"], ["", ""]])
def test_a_version_with_more_or_fewer_parts_is_read(libc: list[str]) -> None:
    """Those who build glibc from its sources have 9000 in the third place."""
    assert parse([json.dumps({**GOOD, "libc": libc})]).libc == tuple(libc)


@pytest.mark.parametrize("shell", ["bash", "dash"])
def test_every_shell_reads_the_script(shell: str, tmp_path: Path) -> None:
    if find_tool(shell) is None:
        skip_for_want_of(shell)
    (tmp_path / "python3").symlink_to(sys.executable)
    assert parse(answers(tmp_path, shell)).bits in (32, 64)
