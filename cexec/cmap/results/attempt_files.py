"""The outputs of a job until its task is over: buffers, and temporary files that get their names at the end.

Contract: an `Output` takes bytes and gives them back in pieces.  A result is there whole or not at all: it is written
under a temporary name in its own directory, brought to disk and renamed.  Temporary names begin with `.cmap-` and a
token, by which `sweep` finds what a killed run has left.  `LocalError` names what cannot be written.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from cexec.cmap.inputs.file_names import PREFIX
from cexec.cmap.inputs.store import CHUNK, Spool
from cexec.cmap.inputs.tasks import STDERR, STDOUT
from cexec.cmap.results.renames import Rename, remove, seen
from cexec.cmap.results.syncing import sync_file
from cexec.errors import LocalError, UsageError
from cexec.system.reason import reason_of, why_not_writable
from cexec.system.storage.own_files import check_output

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Iterator, Mapping

    from cexec.cmap.inputs.tasks import Task

MEMORY = 1 << 16  # bytes (ours) of one output that are kept in memory; the rest goes to disk
PARAMETERS = "parameters.json"  # a file in each directory of --results DIR
MOST_SAID, MOST_LINES = 2000, 10  # bytes, and lines (ours), of standard error that a report shows of a failed task
LONGEST_LINE = 200  # characters (ours) of the last line of it, which is told at once
_RANDOM = 8  # bytes in a temporary name


class Output:
    """One stream of one attempt, kept until it is known whether it counts."""

    def __init__(self) -> None:
        self.size = 0
        self._memory: bytes | bytearray = b""  # a single piece, as most outputs are, is copied once
        self._spool: Spool | None = None

    def append(self, data: bytes | memoryview) -> None:
        self.size += len(data)
        if self._spool is not None:
            self._spool.append(data)
        elif self.size > MEMORY:
            self._spool = Spool()
            self._spool.append(self._memory)
            self._spool.append(data)
            self._memory = b""
        elif not self._memory:
            self._memory = bytes(data)
        else:
            self._memory = bytearray(self._memory) if isinstance(self._memory, bytes) else self._memory
            self._memory += data

    def pieces(self) -> Iterator[bytes]:
        if self._spool is not None:
            yield from self._spool.pieces(0, self._spool.size)
        elif self._memory:
            yield bytes(self._memory)

    def tail(self, size: int) -> bytes:
        """Returns the last `size` bytes, or all if there are fewer."""
        if self._spool is None:
            return bytes(self._memory[-size:])
        return self._spool.read(max(0, self._spool.size - size), size)

    def close(self) -> None:
        if self._spool is not None:
            self._spool.close()
        self._memory = b""  # the error of a full disk may still hold a view of the old one
        self._spool = None


class Discarded(Output):
    """One stream whose bytes are only counted, because the user has said /dev/null."""

    def append(self, data: bytes | memoryview) -> None:
        self.size += len(data)


class FileOutput(Output):
    """One stream of one attempt that goes to a temporary file; `final` is the name that it is to get."""

    def __init__(self, path: str, final: str) -> None:
        super().__init__()
        self.path = path
        self._final = final
        try:
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise _failure(final, error) from None

    def append(self, data: bytes | memoryview) -> None:
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError as error:
            raise _failure(self._final, error) from None
        self.size += len(data)

    def pieces(self) -> Iterator[bytes]:
        with open(self.path, "rb") as file:
            while piece := file.read(CHUNK):
                yield piece

    def tail(self, size: int) -> bytes:
        try:
            with open(self.path, "rb") as file:
                file.seek(max(0, self.size - size))
                return file.read(size)
        except OSError:
            return b""  # somebody has removed it; the result will say so

    def sync(self) -> None:
        """Brings to disk what was written."""
        sync_file(self._fd, self._final)

    def close(self) -> None:
        """Closes the file, which stays.  A network file system may say only now that there was no room."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            try:
                os.close(fd)
            except OSError as error:
                raise _failure(self._final, error) from None


def last_lines(output: Output | None) -> list[str]:
    """Returns the last lines of what a program has said, as text; the first of them may be cut."""
    data = b"" if output is None else output.tail(MOST_SAID)
    lines = [line.rstrip() for line in data.decode("utf-8", "replace").splitlines()]
    return [line for line in lines if line][-MOST_LINES:]


def last_line(output: Output) -> str:
    """Returns the last line of it, shortened."""
    found = "".join(last_lines(output)[-1:]).strip()
    return found if len(found) <= LONGEST_LINE else f"{found[:LONGEST_LINE]}..."


def latest_line(outputs: Mapping[str, Output]) -> str:
    """Returns the last line of standard output so far, or that of standard error if there is no other."""
    return last_line(outputs[STDOUT]) or last_line(outputs[STDERR])


class AttemptFiles:
    """Everything that one attempt writes: by `STDOUT`, `STDERR` or the job's name of a file.

    `keep_in`: the directory of --results DIR, in which the whole attempt becomes a directory with the task's number.
    `replace`: a result may be there already.
    """

    def __init__(self, task: Task, token: str, keep_in: str = "", *, replace: bool = False) -> None:
        self._replace = replace
        self.outputs: dict[str, Output] = {}
        self.renames: list[Rename] = []  # of an attempt that counts and is complete
        self._files: list[FileOutput] = []
        self._names: list[tuple[str, str]] = []  # temporary and final
        self._directory = ""  # the temporary one
        try:
            for result in task.results:
                if result.path == os.devnull:
                    self.outputs[result.name or result.kind] = Discarded()
                    continue
                path = os.path.realpath(result.path) if os.path.islink(result.path) else result.path  # a link stays
                temporary = os.path.join(os.path.dirname(path), temporary_name(token))
                self._names.append((temporary, path))
                self.outputs[result.name or result.kind] = self._open(temporary, path)
            if keep_in:
                self._make_directory(task, token, keep_in)
        except BaseException:
            self.discard()
            raise
        for kind in (STDOUT, STDERR):
            self.outputs.setdefault(kind, Output())

    @property
    def on_disk(self) -> bool:
        """True if the attempt writes any file that is to get a name."""
        return bool(self._names)

    @property
    def directories(self) -> list[str]:
        """The directories in which the attempt has made names."""
        return [*([self._directory] if self._directory else ()), *(os.path.dirname(path) for path, _ in self._names)]

    def finish(self, *, sync: bool) -> None:
        """Closes the files of an attempt that counts, and first brings them to disk if that is wanted."""
        self._check_nothing_is_there()
        for file in self._files:
            if sync:
                file.sync()
            file.close()
        self.renames = [seen(temporary, final) for temporary, final in self._names]

    def close(self) -> None:
        """Closes everything; nothing will be read from here any more."""
        for output in self.outputs.values():
            output.close()

    def discard(self) -> None:
        """Removes everything; the attempt does not count."""
        for output in (*self.outputs.values(), *self._files):
            try:
                output.close()
            except LocalError:
                pass  # the attempt does not count, so it does not matter that bytes could not be written
        for temporary, _ in self._names:
            remove(temporary)

    def _check_nothing_is_there(self) -> None:
        """All was looked at before the run, but another program, or another cmap, may have made a file meanwhile."""
        for _, final in () if self._replace else self._names:
            if os.path.lexists(final):
                self.discard()
                raise LocalError(f"cannot write {final}: another program has made it since the run began")

    def _open(self, path: str, final: str) -> FileOutput:
        file = FileOutput(path, final)
        self._files.append(file)
        return file

    def _make_directory(self, task: Task, token: str, keep_in: str) -> None:
        directory, final = os.path.join(keep_in, temporary_name(token)), os.path.join(keep_in, str(task.number))
        try:
            os.mkdir(directory)
        except OSError as error:
            raise _failure(final, error) from None
        self._directory = directory
        self._names.append((directory, final))
        for kind in {STDOUT, STDERR} - self.outputs.keys():
            self.outputs[kind] = self._open(os.path.join(directory, kind), os.path.join(final, kind))
        name = PARAMETERS
        parameters = self._open(os.path.join(directory, name), os.path.join(final, name))
        parameters.append(json.dumps(task.parameters).encode() + b"\n")


def temporary_name(token: str) -> str:
    return f"{PREFIX}{token}-{os.urandom(_RANDOM).hex()}"


def sweep(directories: Iterable[str], token: str) -> None:
    """Removes the temporary files of runs that were killed.  Nobody else may be using the token."""
    for directory in directories:
        for entry in os.listdir(directory or "."):
            if entry.startswith(f"{PREFIX}{token}-"):
                remove(os.path.join(directory, entry))


def make_results_directory(
    path: str, numbers: Container[int] | None, finished: Callable[[int], bool], *, overwrite: bool, advice: str
) -> None:
    """--results DIR: makes it; raises `UsageError` if it cannot be written or has a result of one of the rows.

    Without `numbers` any number may become that of a row.  With `overwrite` such results are removed.
    """
    try:
        check_output(path)  # in /tmp, for example, it may be another user's directory, or a link to anywhere
        os.makedirs(path, exist_ok=True)
        present = [int(name) for name in os.listdir(path) if name.isascii() and name.isdecimal()]
    except OSError as error:
        raise UsageError(f"--results {path}: {reason_of(error)}") from None
    if not os.access(path, os.W_OK | os.X_OK):
        raise UsageError(f"--results {path}: directory cannot be written: {why_not_writable(path)}")
    for number in sorted(present):
        result = os.path.join(path, str(number))
        if not os.path.lexists(result) or (numbers is not None and (number not in numbers or finished(number))):
            continue
        if not overwrite:
            raise UsageError(f"row {number}: result {result} exists already; {advice}")
        if not _is_result(result):
            raise UsageError(f"row {number}: {result} is no result of cmap, so it is not replaced; remove it")
        remove(result)


def _is_result(path: str) -> bool:
    """Returns True for a directory with nothing but what cmap makes in it."""
    return (
        os.path.isdir(path) and not os.path.islink(path) and {STDOUT, STDERR, PARAMETERS}.issuperset(os.listdir(path))
    )


def _failure(path: str, error: OSError) -> LocalError:
    return LocalError(f"cannot write {path}: {reason_of(error)}")
