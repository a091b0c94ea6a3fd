"""A disk that can lose its power: an ext4 file system in a file of this machine, on a loop device.

Contract: `with Disk(directory) as disk:` mounts it at `disk.path` in a mount namespace of its own, which only processes
started by `disk.popen` and `disk.run` see.  `lose_power()` shuts the file system down as a power failure would: what
has not been written back is lost, and every call fails from then on.  `start_again()` ends nothing but mounts it anew,
which replays its journal; no process may have files there.  Needs `require_loop_devices()`.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from tests.environment import local_environment
from tests.needs import find_tool, require_tool, skip_for_want_of

SIZE = 64 << 20  # bytes
SHUT_DOWN = "import fcntl, os, sys; fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587D, b'\\2\\0\\0\\0')"
# FS_IOC_SHUTDOWN with the flag NOLOGFLUSH: neither data nor the file system's own log are written back


def require_loop_devices() -> None:
    """This process may make a file system on a loop device and mount it."""
    require_tool("mkfs.ext4", "mount", "umount", "unshare", "nsenter")
    if not _can_mount():
        skip_for_want_of("loop devices that root may mount")


@functools.cache
def _can_mount() -> bool:
    with tempfile.TemporaryDirectory() as directory:
        try:
            with Disk(Path(directory)):
                return True
        except (OSError, subprocess.CalledProcessError):
            return False


class Disk:
    """`path` is the directory at which processes in the namespace see it."""

    def __init__(self, directory: Path) -> None:
        self._image = directory / "image"
        self.path = directory / "disk"
        self.path.mkdir()
        with self._image.open("wb") as file:
            file.truncate(SIZE)
        self._call([find_tool("mkfs.ext4") or "mkfs.ext4", "-q", "-F", os.fspath(self._image)])
        # cat ends with its standard input, that is with this process, and the namespace with it
        self._holder = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", "echo; exec cat"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != b"\n":
            raise OSError("cannot make a mount namespace")

    def __enter__(self) -> Self:
        try:
            self._mount()
        except BaseException:
            self._holder.communicate()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.run(["umount", "--lazy", os.fspath(self.path)], directory="/", check=False)
        self._holder.communicate()

    def lose_power(self) -> None:
        self.run([sys.executable, "-c", SHUT_DOWN, os.fspath(self.path)])

    def start_again(self) -> None:
        self.run(["umount", os.fspath(self.path)], directory="/")
        self._mount()

    def popen(self, argv: Sequence[str | os.PathLike[str]], **options: Any) -> subprocess.Popen[Any]:
        """Starts a process in the namespace, in the directory of the disk; it keeps its id, so signals reach it."""
        return subprocess.Popen(self._inside(argv), **{"env": local_environment(), **options})

    def run(
        self, argv: Sequence[str | os.PathLike[str]], directory: str = "", **options: Any
    ) -> subprocess.CompletedProcess[Any]:
        """Runs a process in the namespace to its end, in the directory of the disk or another."""
        settings = {"check": True, "timeout": 60, "capture_output": True, "text": True, "env": local_environment()}
        return subprocess.run(self._inside(argv, directory), **{**settings, **options})

    def _mount(self) -> None:
        # The option says that nothing is written back before somebody asks: not even after the usual five seconds.
        self.run(["mount", "-o", "loop,commit=300", os.fspath(self._image), os.fspath(self.path)], directory="/")

    def _inside(self, argv: Sequence[str | os.PathLike[str]], directory: str = "") -> list[str]:
        nsenter = find_tool("nsenter") or "nsenter"
        script = ["sh", "-c", 'cd "$0" && exec "$@"', directory or os.fspath(self.path)]
        return [nsenter, f"--mount=/proc/{self._holder.pid}/ns/mnt", "--", *script, *(os.fspath(word) for word in argv)]

    @staticmethod
    def _call(argv: Sequence[str]) -> None:
        subprocess.run(argv, check=True, capture_output=True)
