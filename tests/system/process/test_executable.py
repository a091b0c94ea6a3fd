"""Files that the kernel does not start, and what their first bytes say about the reason."""

from __future__ import annotations

import os
import shutil
import struct
import sys
from pathlib import Path

import pytest

from cexec.errors import UsageError
from cexec.system.process import executable, process
from cexec.system.process.executable import is_script, problem_of
from tests.system.process.test_process import both_ways, nothing

SEARCH = os.environ["PATH"]


def file(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    path.chmod(0o755)
    return os.fspath(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"#!/nowhere/python -u\nprint()\n", "its interpreter /nowhere/python is not there"),
        (b"#! /nowhere/sh\n", "its interpreter /nowhere/sh is not there"),
        (b"#!/etc/passwd\n", "its interpreter /etc/passwd is not executable"),
        (b"#!/usr/bin/env nosuchthing\n", "its interpreter nosuchthing is not found in the PATH"),
        (b"#!/usr/bin/env -S nosuchthing -u\n", "its interpreter nosuchthing is not found in the PATH"),
        (b"#!/bin/sh\r\necho\r\n", "CR LF"),
        (b"#!/usr/bin/env sh\r\necho\r\n", "CR LF"),
        (b"echo\r\n", "CR LF"),
        (b"\xef\xbb\xbf#!/bin/sh\necho\n", "a byte order mark"),
    ],
)
def test_what_keeps_a_script_from_starting_is_named(tmp_path: Path, content: bytes, words: str) -> None:
    path = file(tmp_path / "script", content)
    assert words in problem_of(path, SEARCH)
    with pytest.raises(UsageError, match="script cannot be started: it"):
        process.resolve(path, SEARCH)


@pytest.mark.parametrize(
    "content",
    [b"#!/bin/sh\necho\n", b"#!/bin/sh", b"#!/bin/sh\t-e\n", b"#!/usr/bin/env sh\n", b"#!/usr/bin/env -S sh -e\n",
     b"#!/usr/bin/env -i sh\n", b"#!/usr/bin/env -S A=b sh\n", b"#!\n", b"echo\n", b""],
)  # fmt: skip
def test_what_speaks_against_nothing(tmp_path: Path, content: bytes) -> None:
    assert problem_of(file(tmp_path / "script", content), SEARCH) == ""


def test_a_program_for_another_c_library_is_named(tmp_path: Path) -> None:
    name = b"/lib/ld-nosuch-x86_64.so.1\0"
    start = b"\x7fELF" + bytes([2, 1 if sys.byteorder == "little" else 2]) + bytes(26)
    header = start + struct.pack("=Q", 64) + bytes(14) + struct.pack("=HH", 56, 1) + bytes(6)
    assert len(header) == 64
    segment = struct.pack("=IIQQQQ", 3, 4, 120, 0, 0, len(name)) + bytes(16)
    path = file(tmp_path / "program", header + segment + name)
    assert "its loader /lib/ld-nosuch-x86_64.so.1 is not there" in problem_of(path, SEARCH)
    assert problem_of(os.path.realpath(sys.executable), SEARCH) == ""
    assert problem_of(shutil.which("true") or "", SEARCH) == ""


PROCESSORS = {"x86_64": (62, 3), "aarch64": (183, 40), "riscv": (243, 243)}  # in ELF, with 64 and 32 bits


def test_a_program_for_another_processor_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Regression: it was served, and each client was told that the format was wrong."""
    order = sys.byteorder
    header = b"\x7fELF\2" + bytes([1 if order == "little" else 2]) + bytes(12)
    (here,) = struct.unpack("=H", Path(os.path.realpath(sys.executable)).read_bytes()[18:20])
    monkeypatch.setattr(executable, "EMULATORS", os.fspath(tmp_path))
    for name, numbers in PROCESSORS.items():
        for number in numbers:
            path = file(tmp_path / "program", header + number.to_bytes(2, order) + bytes(44))
            other = (
                f"it is a program for {name if number > 60 else 'arm' if number == 40 else 'x86'}, and this machine is "
            )
            assert problem_of(path, SEARCH).startswith("" if here in numbers else other)
            assert bool(problem_of(path, SEARCH)) == (here not in numbers)
    for emulator in ("register", "status", "qemu"):
        (tmp_path / emulator).touch()
    assert problem_of(path, SEARCH) == ""


@pytest.mark.parametrize("content", [b"MZ\0\r\n", b"data\0data", b"\x7fELF", b"\x7fELF garbage\n"])
def test_data_is_named_unless_the_kernel_may_know_who_runs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    """Regression: it was served, and each client was told that the format was wrong."""
    monkeypatch.setattr(executable, "EMULATORS", os.fspath(tmp_path / "emulators"))
    path = file(tmp_path / "data", content)
    assert problem_of(path, SEARCH) == executable.UNKNOWN
    with pytest.raises(UsageError, match="data cannot be started: it is neither a program nor a script"):
        process.resolve(path, SEARCH)
    (tmp_path / "emulators").mkdir()
    for emulator in ("register", "status", "Java"):
        (tmp_path / "emulators" / emulator).touch()
    assert problem_of(path, SEARCH) == (executable.UNKNOWN if content.startswith(b"\x7fELF") else "")


def test_a_file_that_cannot_be_read_is_not_judged(tmp_path: Path) -> None:
    absent = os.fspath(tmp_path / "absent")
    assert problem_of(absent, SEARCH) == "" and not is_script(absent)


@pytest.mark.parametrize(
    ("content", "script"),
    [(b"echo\n", True), (b"", True), (b"#!/bin/sh\n", False), (b"\x7fELF\n", False), (b"\0\1\2\n", False)],
)
def test_a_text_without_an_interpreter_is_a_script(tmp_path: Path, content: bytes, script: bool) -> None:
    assert is_script(file(tmp_path / "file", content)) == script


@both_ways
def test_a_script_without_an_interpreter_is_started_by_a_shell(tmp_path: Path, prepare: object) -> None:
    path = file(tmp_path / "script", b'echo "$0 $*"\n')
    reading, writing = os.pipe()
    given = nothing if prepare is not None else None
    pid = process.spawn(path, ["script", "a", "b"], dict(os.environb), {1: writing}, given)
    os.close(writing)
    with open(reading, "rb") as pipe:
        assert pipe.read() == f"{path} a b\n".encode()
    os.waitpid(pid, 0)


@both_ways
def test_data_is_not_started_by_a_shell(tmp_path: Path, prepare: object) -> None:
    path = file(tmp_path / "data", b"\0\1\2\n")
    with pytest.raises(OSError, match="Exec format error"):
        process.spawn(path, ["data"], dict(os.environb), {}, nothing if prepare is not None else None)
