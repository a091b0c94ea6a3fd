"""Disks that fail: one that loses power, and one that is full.

Contract: `PowerlessDisk` is an ext4 on a loop device; `cut_power` shuts it down as a loss of power does: what was not
written is lost.  `with small_disk(path, size):` mounts a tmpfs.  Both need root, else `NoDisksError`.  `make faults`
runs in a mount namespace of its own: a copy of a mount in another one would keep a file system that has no power.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from tests.disks import SHUT_DOWN


class NoDisksError(OSError):
    """This machine allows no mounts."""


class PowerlessDisk:
    """A context manager; it is mounted at `path`."""

    def __init__(self, path: Path, megabytes: int = 128) -> None:
        self.path = path
        self._image = path.with_name(f"{path.name}.image")
        self._size = megabytes << 20

    def __enter__(self) -> Self:
        self.path.mkdir(exist_ok=True)
        with self._image.open("wb") as file:
            file.truncate(self._size)
        _call("mkfs.ext4", "-q", "-F", os.fspath(self._image))
        self.mount()
        return self

    def __exit__(self, *_: object) -> None:
        self.unmount()
        self._image.unlink()

    def mount(self) -> None:
        _call("mount", "-o", "loop,commit=300", os.fspath(self._image), os.fspath(self.path))

    def unmount(self) -> None:
        _call("umount", os.fspath(self.path))

    def cut_power(self) -> None:
        _call(sys.executable, "-c", SHUT_DOWN, os.fspath(self.path))


@contextmanager
def small_disk(path: Path, size: str) -> Iterator[None]:
    path.mkdir(exist_ok=True)
    _call("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", os.fspath(path))
    try:
        yield
    finally:
        _call("umount", os.fspath(path))


def enlarge(path: Path, size: str) -> None:
    """Gives room to a `small_disk`."""
    _call("mount", "-o", f"remount,size={size}", os.fspath(path))


def _call(*argv: str) -> None:
    environment = {**os.environ, "PATH": os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"}
    result = subprocess.run(argv, capture_output=True, text=True, env=environment)
    if result.returncode != 0:
        raise NoDisksError(f"{' '.join(argv)}: {result.stderr.strip()}")
