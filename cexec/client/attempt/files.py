"""Files that a job takes along and brings back: `cexec --send FILE[=NAME] --fetch NAME[=FILE]`.

Contract: `plan_files` makes every possible check before the search for a worker, and opens the files that are sent.
For each attempt, `sources()` and `sinks()` are made anew and given to the pump with GO, before the program starts.  A
fetched file is written without a name, or under a temporary name beside its target, so an attempt that fails leaves
nothing (`discard`).  `failed()` takes the reason for a file that did not come.  `commit(status)` is called after the
exit frame was verified and every byte was written.  It gives all files their names, or none; a missing file is an error
only if the program has succeeded.  Wrong words raise `UsageError`, refusals of this system `LocalError`; both name the
file.  docs/protocol.md section 4.2 (GO).
"""

from __future__ import annotations

import _stat as stat
import os

from cexec.errors import LocalError, TooLongError, UsageError
from cexec.protocol.base.limits import MAXIMUM_STREAMS
from cexec.protocol.connection.frames import FIRST_FILE, Stream
from cexec.protocol.connection.options import FILE, READS, WRITES
from cexec.system.io.fds import FileSource, Sink
from cexec.system.reason import reason_of, why_not_writable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cexec.client.attempt.program_plan import ProgramPlan

LONGEST_NAME = 255  # bytes (protocol)
SHOWN = 40  # letters (ours) of a longer one, in an error
UNNAMED = getattr(os, "O_TMPFILE", 0)  # Linux: a file without a name leaves nothing behind if we are killed


class Sent:
    """One file that goes to the worker.  `name`: in the program's directory; `path`: here."""

    __slots__ = ("fd", "identity", "name", "number", "path")

    def __init__(self, number: int, path: str, name: str) -> None:
        self.number = number
        self.path = path
        self.name = name
        try:
            self.fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError as error:
            raise LocalError(f"cannot read {path}: {reason_of(error)}") from error
        status = os.fstat(self.fd)
        if not stat.S_ISREG(status.st_mode):
            raise UsageError(f"cannot send {path}: it is not a regular file; a pipe can be a descriptor: 3<{path}")
        self.identity = _identity(status)

    def source(self) -> FileSource:
        """Returns a source that begins with the first byte."""
        if _identity(os.fstat(self.fd)) != self.identity:
            raise LocalError(f"{self.path} has changed while it was being sent")
        return FileSource(self.fd)


class Fetched:
    """One file that comes back.  `path`: the file that it will replace; `failure`: the reason if it does not come.

    `replaces`: the inode of what is there.  What goes to /dev/null is dropped.
    """

    __slots__ = (
        "_directory",
        "_dropped",
        "_fd",
        "_last",
        "_temporary",
        "failure",
        "name",
        "number",
        "path",
        "replaces",
    )

    def __init__(self, number: int, name: str, path: str) -> None:
        self.number = number
        self.name = name
        self.path = path
        self.failure: str | None = None
        self._fd = -1
        self._temporary = ""  # its name until `rename`, if it has one
        directory, self._last = os.path.split(os.path.realpath(path))  # a link stays: its target is replaced
        try:
            target = os.stat(path) if os.path.exists(path) else None
            self._directory = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise LocalError(f"cannot write {path}: {reason_of(error)}") from error
        self.replaces = None if target is None else (target.st_dev, target.st_ino)
        self._dropped = target is not None and stat.S_ISCHR(target.st_mode) and os.path.samefile(path, os.devnull)
        try:
            if target is not None and not stat.S_ISREG(target.st_mode) and not self._dropped:
                raise UsageError(f"cannot fetch into {path}: it is not a regular file")
            if not self._dropped and not os.access(directory, os.W_OK):
                raise LocalError(f"cannot write {path}: {why_not_writable(directory)} in {directory}")
        except BaseException:
            os.close(self._directory)
            raise

    def sink(self) -> Sink:
        """Returns the sink of a new file, for another attempt."""
        self.discard()
        try:
            self._fd = self._open()
        except OSError as error:
            raise LocalError(f"cannot write {self.path}: {reason_of(error)}") from error
        return Sink(self._fd, shared=True)

    def name_it(self) -> None:
        """Gives the file a temporary name beside the target, so that only `rename` is left to do."""
        if not self._temporary and not self._dropped:
            name = self._new_name()
            # Python passes AT_SYMLINK_FOLLOW, which /proc's link needs, only if a directory descriptor is given.
            os.link(f"/proc/self/fd/{self._fd}", name, src_dir_fd=self._directory, dst_dir_fd=self._directory)
            self._temporary = name
        fd, self._fd = self._fd, -1
        os.close(fd)  # NFS and others report a full disk only here

    def rename(self) -> None:
        if self._dropped:
            return
        os.rename(self._temporary, self._last, src_dir_fd=self._directory, dst_dir_fd=self._directory)
        self._temporary = ""

    def discard(self) -> None:
        """Removes everything that an attempt has written."""
        self.failure = None
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        if self._temporary:
            try:
                os.unlink(self._temporary, dir_fd=self._directory)
            except OSError:
                pass  # another program has removed it
            self._temporary = ""

    def close(self) -> None:
        """Removes what was not renamed, and closes the directory: no further attempt follows."""
        self.discard()
        if self._directory >= 0:
            os.close(self._directory)
            self._directory = -1

    def _open(self) -> int:
        if self._dropped:
            return os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        if UNNAMED and os.path.isdir("/proc/self/fd"):
            try:
                return os.open(".", os.O_WRONLY | UNNAMED | os.O_CLOEXEC, 0o666, dir_fd=self._directory)
            except OSError:
                pass  # NFS and others have no files without a name
        name = self._new_name()
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(name, flags, 0o666, dir_fd=self._directory)
        self._temporary = name
        return fd

    def _new_name(self) -> str:
        return f".{self._last[:200]}.{os.urandom(6).hex()}"


class FilePlan:
    """All files of one job."""

    def __init__(self, sent: list[Sent], fetched: list[Fetched], program: ProgramPlan | None = None) -> None:
        self.program = program
        self._sent = sent
        self._fetched = {one.number: one for one in fetched}

    def streams(self) -> list[Stream]:
        """Returns the streams that GO lists after those of the descriptors."""
        streams = [Stream(one.number, READS, FILE, name=one.name) for one in self._sent]
        streams += [Stream(one.number, WRITES, FILE, name=one.name) for one in self._fetched.values()]
        return streams if self.program is None else [*streams, self.program.stream()]

    def sources(self) -> dict[int, FileSource]:
        return {one.number: one.source() for one in self._sent}

    def sinks(self) -> dict[int, Sink]:
        return {number: one.sink() for number, one in self._fetched.items()}

    def inodes(self) -> set[tuple[int, int]]:
        """Returns the identities of the files that are sent, comparable with `Descriptor.inode`."""
        return {one.identity[:2] for one in self._sent}

    def check_targets(self, others: Mapping[tuple[int, int], str]) -> None:
        """Raises `UsageError` for a fetched file that would replace one of `others`: what each is, by inode.

        A file that is sent may be replaced by its new content.
        """
        for one in self._fetched.values():
            if one.replaces is not None and one.replaces in others:
                raise UsageError(f"cannot fetch into {one.path}: it is {others[one.replaces]}")

    def name_of(self, number: int) -> str:
        """Returns the name of this stream for messages."""
        if self.program is not None and number == self.program.number:
            return self.program.name()
        paths = {one.number: one.path for one in self._sent} | {one.number: one.path for one in self._fetched.values()}
        return paths.get(number, "a file")

    def failed(self, number: int, reason: str) -> None:
        """Notes that a file does not come, as the worker has said."""
        self._fetched[number].failure = reason

    def commit(self, status: int) -> None:
        """Gives the files their names after the job has ended with `status`, or raises `LocalError`."""
        came = [one for one in self._fetched.values() if one.failure is None]
        for one in self._fetched.values():
            if one.failure is not None and status == 0:
                failure = one.failure
                self.discard()
                raise LocalError(f"cannot fetch {one.name}: the program has succeeded, but {failure}")
        for step in (Fetched.name_it, Fetched.rename):
            for one in came:
                try:
                    step(one)
                except OSError as error:
                    self.discard()
                    raise LocalError(f"cannot write {one.path}: {reason_of(error)}") from error
        self.discard()  # the remains of files that did not come

    def discard(self) -> None:
        """Removes all files of a failed attempt."""
        for one in self._fetched.values():
            one.discard()


def plan_files(sends: Iterable[str], fetches: Iterable[str], programs: Iterable[str] = ()) -> FilePlan | None:
    """Returns the files of `--send`, `--fetch` and `--program`; None without any."""
    sent = [_split(word, "--send") for word in sends]
    fetched = [_split(word, "--fetch") for word in fetches]
    program = _plan_programs(programs, FIRST_FILE + len(sent) + len(fetched))
    if not sent and not fetched and program is None:
        return None
    if FIRST_FILE + len(sent) + len(fetched) + (program is not None) > MAXIMUM_STREAMS:
        raise TooLongError(f"at most {MAXIMUM_STREAMS - FIRST_FILE} files can go with a job; pack them with tar")
    _check_twice([name for _, name in sent], "--send")
    _check_twice([name for name, _ in fetched], "--fetch")
    _check_twice([path for _, word in fetched if (path := os.path.realpath(word)) != os.devnull], "--fetch")
    for option, name in [("--send", name) for _, name in sent] + [("--fetch", name) for name, _ in fetched]:
        check_name(name, option)
    number = FIRST_FILE
    numbered_sent = [Sent(number + index, path, name) for index, (path, name) in enumerate(sent)]
    number += len(sent)
    numbered_fetched = [Fetched(number + index, name, path) for index, (name, path) in enumerate(fetched)]
    return FilePlan(numbered_sent, numbered_fetched, program)


def _plan_programs(words: Iterable[str], number: int) -> ProgramPlan | None:
    """Loads the modules that hash programs only if there is a program."""
    words = list(words)
    if not words:
        return None
    from cexec.client.attempt.program_plan import plan_programs

    return plan_programs(words, number)


def _split(word: str, option: str) -> tuple[str, str]:
    r"""Returns the two sides of the equals sign.  Without one, the second is the last part of the path.

    `\=` stands for an equals sign in a name; backslashes before one are halved, any others are as they are.
    """
    sides = [""]
    for position, part in enumerate(word.split("=")):
        if position:
            backslashes = len(sides[-1]) - len(sides[-1].rstrip("\\"))
            sides[-1] = sides[-1].removesuffix("\\" * -(-backslashes // 2))
            if backslashes % 2:
                sides[-1] += "=" + part
                continue
            sides.append(part)
        else:
            sides[0] = part
    if option == "--send":
        one, other = "=".join(sides[:-1]), sides[-1]
    else:
        one, other = sides[0], "=".join(sides[1:])
    if len(sides) == 1:
        one, other = sides[0], os.path.basename(sides[0])
    if not one or not other:
        raise UsageError(f"{option} {word!r} lacks a file's name; write {option} FILE, or FILE=NAME for another name")
    return one, other


def check_name(name: str, option: str) -> None:
    """Refuses a name that is no plain relative path.  The worker checks it again."""
    if "\0" in name or any(part in ("", ".", "..") for part in name.split("/")):
        raise UsageError(f"{option} {name!r}: names in the job's directory are relative, without . and ..")
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise UsageError(f"{option} {os.fsencode(name)!r}: names in the job's directory are UTF-8") from None
    if size > LONGEST_NAME:
        raise TooLongError(f"{option} {name[:SHOWN]}...: such a name has at most {LONGEST_NAME} bytes")


def _check_twice(names: list[str], option: str) -> None:
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise UsageError(f"{option} has {min(twice)!r} twice")


def _identity(status: os.stat_result) -> tuple[int, int, int, int]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
