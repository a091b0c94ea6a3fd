"""The files beside the state file, in which outputs are kept that are too long for memory.

Contract: an output is cut into segments of SEGMENT bytes, each a file `JOB.STREAM.NUMBER`, so that its beginning can be
removed while its end still grows.  Files that a job takes along or brings back are `JOB.in.N` and `JOB.out.N`.  The
directory is its owner's alone.  `LocalError` says what the system refuses; `StateFullError` that there is no room.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterable

from cexec.errors import LocalError
from cexec.gate.store.database import StateFullError
from cexec.system.reason import reason_of

SEGMENT = 8 * 1024 * 1024  # bytes (ours)
FULL = (errno.ENOSPC, errno.EDQUOT)


class OutputFiles:
    """The directory."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        try:
            os.makedirs(directory, mode=0o700, exist_ok=True)
            status = os.lstat(directory)
            if status.st_uid != os.geteuid() or status.st_mode & 0o077 or not os.path.isdir(directory):
                raise LocalError(f"{directory} is not a directory that only this user may enter; remove it")
        except OSError as error:
            raise self.error(error) from None

    def segment(self, job: str, stream: int, number: int) -> str:
        """Returns the path of one segment of an output."""
        return f"{self.directory}/{job}.{stream}.{number:06}"

    def taken(self, job: str, number: int) -> str:
        """Returns the path of a file that a job takes along."""
        return f"{self.directory}/{job}.in.{number}"

    def fetched(self, job: str, number: int) -> str:
        """Returns the path of a file that a job brings back."""
        return f"{self.directory}/{job}.out.{number}"

    def found(self) -> dict[str, list[str]]:
        """Returns the names of all files, by job."""
        files: dict[str, list[str]] = {}
        for name in sorted(os.listdir(self.directory)):
            files.setdefault(name.partition(".")[0], []).append(name)
        return files

    def segments(self, names: Iterable[str]) -> dict[int, tuple[int, int]]:
        """Returns the first byte that is kept, and the end, of each output that these files of one job are."""
        outputs: dict[int, tuple[int, int]] = {}
        for name in names:
            _, _, rest = name.partition(".")
            stream, _, number = rest.partition(".")
            if stream.isdigit() and number.isdigit():
                start = int(number) * SEGMENT
                end = start + os.path.getsize(f"{self.directory}/{name}")
                first = outputs.get(int(stream), (start, 0))[0]
                outputs[int(stream)] = min(first, start), max(end, outputs.get(int(stream), (0, 0))[1])
        return outputs

    def remove(self, names: Iterable[str]) -> None:
        """Removes files; those that are gone already do not matter."""
        for name in names:
            try:
                os.unlink(f"{self.directory}/{name}")
            except OSError:
                pass

    def remove_job(self, job: str) -> None:
        """Removes all files of a job."""
        self.remove(name for name in os.listdir(self.directory) if name.startswith(f"{job}."))

    def remove_segments(self, job: str, stream: int, first: int, last: int) -> None:
        """Removes the segments from `first` to `last`."""
        self.remove(os.path.basename(self.segment(job, stream, number)) for number in range(first, last + 1))

    def room(self) -> int:
        """Returns how many bytes the file system has room for."""
        return shutil.disk_usage(self.directory).free

    def error(self, error: OSError) -> LocalError:
        """Returns the error that a user is told."""
        kind = StateFullError if error.errno in FULL else LocalError
        return kind(f"cannot keep outputs in {self.directory}: {reason_of(error)}")
