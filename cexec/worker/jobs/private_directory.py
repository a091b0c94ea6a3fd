"""A job's private directory, and the files that go there and come back.

Contract: `PrivateDirectory` is empty when it is made and belongs to one job.  Names are relative paths as the session
has checked them; whatever the program does there, nothing is opened through a link, and only regular files are read.
`receive_files` and `send_files` pump until the streams of kind FILE in their direction have ended.  `OSError` if the
system refuses something, `FileProblem` if the client is to be told of one file.  docs/protocol.md section 4.2 (GO).
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

from cexec.errors import CexecError
from cexec.protocol.connection.options import FILE, READS, WRITES
from cexec.protocol.connection.streams import OPEN
from cexec.system.io.fds import Source
from cexec.system.process.orphans import PRIVATE_PREFIX, remove_directory
from cexec.system.reason import reason_of
from cexec.worker.jobs.disk_quota import QuotaSink

if TYPE_CHECKING:
    from collections.abc import Callable

    from cexec.net.pump import Pump
    from cexec.protocol.connection.frames import Stream
    from cexec.worker.jobs.disk_quota import DiskQuota

_INSIDE = os.O_NOFOLLOW | os.O_CLOEXEC
_REASONS = {errno.ENOENT: "no such file", errno.ELOOP: "it is a link", errno.ENOTDIR: "no such file"}


class FileProblem(CexecError):
    """One file cannot be sent."""


def directory_of_all() -> str:
    """The directory in which those of jobs are made."""
    return os.path.abspath(os.environ.get("TMPDIR") or "/tmp")


def problem() -> str:
    """Says why no private directory can be made now; empty if one can."""
    path = _new_path()
    try:
        os.mkdir(path, 0o700)
        os.rmdir(path)
    except OSError as error:
        return f"cannot make a directory in {directory_of_all()} (TMPDIR): {reason_of(error)}"
    return ""


def _new_path() -> str:
    return f"{directory_of_all()}/{PRIVATE_PREFIX}{os.urandom(8).hex()}"


class PrivateDirectory:
    """The directory, under $TMPDIR or /tmp."""

    def __init__(self) -> None:
        self.path = _new_path()
        os.mkdir(self.path, 0o700)
        self._fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | _INSIDE)

    def enter(self) -> None:
        """Makes it the working directory, which the program inherits."""
        os.fchdir(self._fd)

    def create(self, name: str) -> int:
        """Makes a file and the directories of its name; returns a descriptor for writing."""
        above, last = self._descend(name, make=True)
        try:
            return os.open(last, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _INSIDE, 0o666, dir_fd=above)
        finally:
            os.close(above)

    def open(self, name: str) -> int:
        """Returns a descriptor for reading; raises `FileProblem` if there is no such regular file."""
        try:
            above, last = self._descend(name, make=False)
            try:
                fd = os.open(last, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | _INSIDE, dir_fd=above)
            finally:
                os.close(above)
        except OSError as error:
            number = error.errno or 0
            raise FileProblem(_REASONS.get(number, reason_of(number))) from None
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise FileProblem("it is not a regular file")
        return fd

    def remove(self) -> None:
        os.chdir("/")
        os.close(self._fd)
        remove_directory(self.path)

    def _descend(self, name: str, *, make: bool) -> tuple[int, str]:
        """Opens the directory that holds the file; returns its descriptor and the last part of the name."""
        *parts, last = name.split("/")
        above = os.dup(self._fd)
        for part in parts:
            try:
                if make:
                    _make_directory(part, above)
                below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | _INSIDE, dir_fd=above)
            finally:
                os.close(above)
            above = below
        return above, last


def receive_files(
    pump: Pump, streams: list[Stream], directory: PrivateDirectory, quota: DiskQuota, step: Callable[[], None]
) -> None:
    """Receives the files that the client sends before the program starts; `step` pumps."""
    sent = [stream for stream in streams if stream.kind == FILE and stream.directions & READS]
    for stream in sent:
        pump.sinks[stream.number] = QuotaSink(directory.create(stream.name), quota)
    while any(stream.number in pump.sinks for stream in sent):
        step()


def send_files(
    pump: Pump, streams: list[Stream], directory: PrivateDirectory, step: Callable[[], None], *, skip: bool
) -> None:
    """Sends the files that the program has left, one after the other; `step` pumps.  `skip` sends none of them."""
    for stream in streams:
        if stream.kind != FILE or not stream.directions & WRITES:
            continue
        try:
            if skip:
                raise FileProblem("not fetched, because the program failed")
            pump.sources[stream.number] = Source(directory.open(stream.name))
        except FileProblem as error:
            pump.session.broken(stream.number, str(error))
        while pump.session.outgoing[stream.number].state == OPEN:
            step()


def _make_directory(name: str, above: int) -> None:
    try:
        os.mkdir(name, dir_fd=above)
    except FileExistsError:
        pass
