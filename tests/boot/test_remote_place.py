"""The place of cboot on a host: what is made is noted, and removed without a trace; releases in it."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cexec.boot.remote import place as place_module
from cexec.boot.remote.place import HostPlace, RemoteError, told, write_whole
from cexec.boot.remote.release import describe, install, remove_release, sweep
from tests.boot.wheelhouse import make_wheel


def listing(home: Path) -> list[str]:
    return sorted(str(path.relative_to(home)) for path in home.rglob("*"))


def request(*wheels: Path, name: str = "1-abc", unpacked: int = 4096) -> tuple[dict[str, Any], bytes]:
    """A request of the agent, and the bytes that follow it."""
    data = [path.read_bytes() for path in wheels]
    described = [
        {"name": path.name, "size": len(one), "sha256": hashlib.sha256(one).hexdigest()}
        for path, one in zip(wheels, data, strict=True)
    ]
    words = {"release": name, "wheels": described, "unpacked": unpacked, "note": {"host": "a"}, "version": "1"}
    return words, b"".join(data)


def put(place: HostPlace, words: dict[str, Any], data: bytes) -> tuple[dict[str, Any], list[bool]]:
    """Installs; returns the result, and if the wheels were wanted."""
    wanted: list[bool] = []
    left = bytearray(data)

    def read(size: int) -> bytes:
        piece = bytes(left[:size])
        del left[:size]
        return piece

    return install(place, words, read, lambda: wanted.append(True)), wanted


@pytest.fixture
def home(tmp_path: Path) -> Path:
    path = tmp_path / "home"
    path.mkdir()
    return path


def test_a_place_goes_with_the_directories_that_it_has_made(home: Path) -> None:
    (home / ".local").mkdir()
    before = listing(home)
    place = HostPlace(home)
    with place.locked():
        place.note([home / ".cache" / "cexec" / "speed-1", home / ".local" / "state" / "x"])
    (home / ".cache" / "cexec").mkdir(parents=True)
    (home / ".cache" / "cexec" / "speed-1").write_text("1")
    assert place.exists()
    with place.locked():
        assert place.tidy(keep_programs=False) == []
    assert listing(home) == before


def test_files_that_were_there_before_stay(home: Path) -> None:
    """Also a directory into which somebody has put a file meanwhile."""
    (home / ".cache" / "cexec").mkdir(parents=True)
    (home / ".cache" / "cexec" / "speed-1").write_text("1")
    place = HostPlace(home)
    with place.locked():
        place.note([home / ".cache" / "cexec" / "speed-1"])
    (home / ".local" / "share" / "mine").write_text("mine")
    with place.locked():
        place.tidy(keep_programs=False)
    assert listing(home) == [
        ".cache", ".cache/cexec", ".cache/cexec/speed-1", ".local", ".local/share", ".local/share/mine",
    ]  # fmt: skip


def test_a_strange_file_in_the_place_is_told_and_stays(home: Path) -> None:
    place = HostPlace(home)
    with place.locked():
        (place.root / "notes.txt").write_text("mine")
        assert place.tidy(keep_programs=False) == [str(place.root / "notes.txt")]
    assert place.exists()


def test_the_cache_of_programs_can_be_kept(home: Path) -> None:
    place = HostPlace(home)
    with place.locked():
        place.programs.mkdir()
        (place.programs / "one").write_text("x")
        place.tidy(keep_programs=True)
        assert (place.programs / "one").exists()
        assert place.tidy(keep_programs=False) == []
    assert listing(home) == []


def test_the_lock_is_waited_for(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By another process, because such locks are those of processes."""
    place = HostPlace(home)
    script = (
        "import fcntl, os, sys\nfd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)\nfcntl.lockf(fd, fcntl.LOCK_EX)\n"
        "print(flush=True)\nsys.stdin.read()"
    )
    place.root.mkdir(parents=True)
    argv = [sys.executable, "-c", script, str(place.root / "lock")]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdin is not None
        other.stdout.readline()
        monkeypatch.setattr(place_module, "LOCK_PATIENCE", 0.2)
        with pytest.raises(RemoteError, match="another cboot has held"), place.locked():
            pass
        other.stdin.close()
        other.wait()
        with place.locked():
            pass


def test_a_file_system_without_locks_is_used_all_the_same(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(fd: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", refuse)
    with HostPlace(home).locked():
        assert HostPlace(home).exists()


@pytest.mark.parametrize(
    ("number", "kind"),
    [(errno.ENOSPC, "space"), (errno.EDQUOT, "space"), (errno.EROFS, "permission"), (errno.EIO, "remote")],
)
def test_an_error_of_the_file_system_has_a_kind(number: int, kind: str) -> None:
    failure = told(OSError(number, os.strerror(number), "/some/file"))
    assert failure.kind == kind and "/some/file" in str(failure)


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_whole(tmp_path / "one", b"1", 0o600)
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
    with pytest.raises(OSError):
        write_whole(tmp_path / "one", b"2", 0o600)
    assert listing(tmp_path) == ["one"] and (tmp_path / "one").read_bytes() == b"1"


def test_a_release_is_a_python_with_the_modules_of_the_wheels(home: Path, tmp_path: Path) -> None:
    place = HostPlace(home)
    files = {
        "alpha/__init__.py": "NAME = 'alpha'\n",
        "alpha-1.0.data/purelib/beta.py": "NAME = 'beta'\n",
        "alpha-1.0.data/scripts/run": "#!python\n",
        "alpha-1.0.data/data/share/x": "",
    }
    words, data = request(make_wheel(tmp_path, "alpha", files=files))
    assert put(place, words, data) == ({"present": False}, [True])
    python = place.releases / "1-abc" / "bin" / "python"
    code = "import alpha, beta; print(alpha.NAME, beta.NAME)"
    ended = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True)
    assert ended.stdout == "alpha beta\n", ended.stderr
    assert not [name for name in listing(home) if name.endswith(("/run", "/share/x")) and "site-packages" in name]
    assert put(place, words, b"") == ({"present": True, "note": {"host": "a"}}, [])  # another host with this home
    assert remove_release(place, "1-abc") == []  # with what that Python has compiled
    with place.locked():
        place.tidy(keep_programs=False)
    assert listing(home) == []


def test_a_file_of_somebody_else_in_a_release_stays(home: Path, tmp_path: Path) -> None:
    place = HostPlace(home)
    put(place, *request(make_wheel(tmp_path, "alpha")))
    strange = place.releases / "1-abc" / "lib" / "mine.txt"
    strange.write_text("mine")
    assert remove_release(place, "1-abc") == [str(strange)]
    assert strange.exists() and describe(place, "1-abc") is None


@pytest.mark.parametrize("damage", ["cut", "changed", "outside"])
def test_an_installation_that_fails_leaves_nothing(damage: str, home: Path, tmp_path: Path) -> None:
    place = HostPlace(home)
    files = {"../../outside.py": ""} if damage == "outside" else None
    words, data = request(make_wheel(tmp_path, "alpha", files=files))
    data = {"cut": data[:-1], "changed": b"x" + data[1:], "outside": data}[damage]
    with pytest.raises(RemoteError):
        put(place, words, data)
    assert listing(home) == []


def test_too_little_space_is_told_before_anything_is_sent(home: Path, tmp_path: Path) -> None:
    place = HostPlace(home)
    words, data = request(make_wheel(tmp_path, "alpha"), unpacked=1 << 60)
    with pytest.raises(RemoteError, match=r"MB are needed, .* MB are free in ") as caught:
        put(place, words, data)
    assert caught.value.kind == "space" and listing(home) == []


def test_a_killed_installation_is_swept_when_nobody_can_be_at_it(home: Path) -> None:
    draft = HostPlace(home).releases / ".new-x"
    draft.mkdir(parents=True)
    sweep(HostPlace(home), 100.0)
    assert draft.exists()
    sweep(HostPlace(home))
    assert not draft.exists()
