"""Programs that clients have sent, stored under the hash of their content; several workers may share one directory.

Contract: `ProgramCache.use` gives a `HeldProgram` whose content has been verified, or None when it is not there;
`draft` takes a new one, which `keep` verifies and gives its name.  What is held is never evicted, by whichever host.
Together entries and drafts take at most `limit` bytes: the least recently used entries go first.  `OSError` for what
the system refuses, `CacheProblem` for what a client has to be told.  The hash is that of docs/protocol.md section 4.2.

    DIRECTORY/lock            held while entries come and go
    DIRECTORY/HASH            the program, mode 0500; appears by rename, when its content has been verified and synced
    DIRECTORY/HASH.use        held, shared, by every job that uses it; its time of modification is that of the last use
    DIRECTORY/draft-RANDOM    what is being received, of its final size from the beginning; held by who receives it

Locks are flock(2), which the kernel forgets with the process, and which NFS carries to the other hosts.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import stat
from typing import TYPE_CHECKING

from cexec.errors import CexecError, LocalError, UsageError
from cexec.system.reason import reason_of
from cexec.system.storage.directories import cache_directory
from cexec.system.units import parse_size

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import TracebackType

HASH_SIZE = 32  # bytes (protocol) of a program's hash
LABEL = b"cexec 1 program"
DEFAULT_LIMIT = 1 << 30  # bytes (ours)
LEAST_LIMIT = 1 << 20  # bytes (ours): in less there is no room for any program
_DRAFT = "draft-"
_LOCK = "lock"
_USE = ".use"
_PIECE = 1 << 20  # bytes (ours) that are hashed at once
_FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW


class CacheProblem(CexecError):
    """A program cannot be kept here."""


class HeldProgram:
    """A program that may be started, until it is released."""

    def __init__(self, path: str, use: int) -> None:
        self.path = path
        self._use = use

    def release(self) -> None:
        if self._use >= 0:
            os.close(self._use)
            self._use = -1


class Draft:
    """A program that is being received into `fd`."""

    def __init__(self, path: str, fd: int) -> None:
        self.path = path
        self.fd = fd

    def discard(self) -> None:
        """Leaves nothing of it, if it has not been kept."""
        if self.fd >= 0:
            os.unlink(self.path)
            os.close(self.fd)
            self.fd = -1


class ProgramCache:
    """One directory."""

    def __init__(self, directory: str, limit: int = DEFAULT_LIMIT) -> None:
        self.directory = os.path.abspath(directory)
        self.limit = limit
        self._verified: dict[str, tuple[int, ...]] = {}  # what the files were like when their content was verified
        try:
            os.makedirs(self.directory, mode=0o700, exist_ok=True)
            status = os.stat(self.directory)
            if status.st_uid != os.getuid() or status.st_mode & 0o022:
                raise UsageError(
                    f"{self.directory} belongs to another user, or others may write to it; make it yours alone: "
                    "chmod 700"
                )
            with self._locked():
                pass
        except OSError as error:
            raise LocalError(f"cannot keep programs in {self.directory}: {reason_of(error)}") from None

    def use(self, hash: str) -> HeldProgram | None:
        """The program with this hash, held, if it is here."""
        path = f"{self.directory}/{hash}"
        if not os.path.exists(path):
            return None
        use = self._hold(hash)
        try:
            if self._verify(path, hash):
                os.utime(use)
                return HeldProgram(path, use)
        except BaseException as error:
            if not _is_gone(error):  # it was evicted before we held it
                os.close(use)
                raise
        os.close(use)
        return None

    def draft(self, size: int) -> Draft:
        """Room for a new program of this size."""
        with self._locked():
            self._make_room(size)
            path = f"{self.directory}/{_DRAFT}{os.urandom(8).hex()}"
            draft = Draft(path, os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | _FLAGS, 0o600))
            try:
                fcntl.flock(draft.fd, fcntl.LOCK_EX)
                os.ftruncate(draft.fd, size)
            except BaseException:
                draft.discard()
                raise
            return draft

    def keep(self, draft: Draft, hash: str, size: int) -> HeldProgram:
        """The program that has been received, under its name and held."""
        if os.fstat(draft.fd).st_size != size or _hash_of(draft.fd) != hash:
            raise CacheProblem("the program has changed while it was being sent")
        os.fchmod(draft.fd, 0o500)
        os.fsync(draft.fd)
        path = f"{self.directory}/{hash}"
        with self._locked():
            use = self._hold(hash)
            try:
                if _verified_now(path, hash):
                    draft.discard()  # somebody else was faster, and may be running it
                else:
                    os.rename(draft.path, path)
                    os.close(draft.fd)
                    draft.fd = -1
                    _sync_directory(self.directory)
                self._verified[path] = _identity(os.stat(path))
                os.utime(use)
            except BaseException:
                os.close(use)
                raise
        return HeldProgram(path, use)

    def empty(self) -> None:
        """Removes every program that nobody uses."""
        with self._locked():
            for _, name, _ in self._entries():
                self._evict(name)
            self._remove_what_is_dead()

    # inside

    def _hold(self, hash: str) -> int:
        """A descriptor that holds the program with this hash: nobody evicts it, whether it is there yet or not."""
        path = f"{self.directory}/{hash}{_USE}"
        while True:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | _FLAGS, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_SH)
                if os.path.samestat(os.fstat(fd), status_now(path)):
                    return fd
            except BaseException as error:
                if not _is_gone(error):  # evicted between our two calls
                    os.close(fd)
                    raise
            os.close(fd)

    def _verify(self, path: str, hash: str) -> bool:
        """Returns True if the file's hash is its name.  A file that has not changed since then is not read again."""
        identity = _identity(status_now(path))
        if self._verified.get(path) == identity:
            return True
        if not _verified_now(path, hash):
            return False
        self._verified[path] = identity
        return True

    def _make_room(self, size: int) -> None:
        """Evicts until so many bytes more fit."""
        if size > self.limit:
            raise CacheProblem(f"the program has {size} bytes and the cache of this worker is for {self.limit}")
        self._remove_what_is_dead()
        entries = sorted(self._entries())
        taken = sum(one for _, _, one in entries) + self._size_of_drafts()
        for _, name, one in entries:
            if taken + size <= self.limit:
                return
            if self._evict(name):
                taken -= one
        if taken + size > self.limit:
            raise CacheProblem("the program cache of this worker is full of programs that are in use")

    def _entries(self) -> list[tuple[int, str, int]]:
        """When each was last used, its name, and its size."""
        found = []
        for name in os.listdir(self.directory):
            if _is_hash(name):
                path = f"{self.directory}/{name}"
                used = _status(f"{path}{_USE}") or _status(path)
                status = _status(path)
                if status is not None and used is not None:
                    found.append((used.st_mtime_ns, name, status.st_size))
        return found

    def _evict(self, name: str) -> bool:
        """Removes a program unless it is in use."""
        path = f"{self.directory}/{name}"
        fd = os.open(f"{path}{_USE}", os.O_RDWR | os.O_CREAT | _FLAGS, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(path)
            os.unlink(f"{path}{_USE}")
            return True
        except OSError:
            return False  # in use
        finally:
            os.close(fd)

    def _drafts(self) -> Iterator[str]:
        return (f"{self.directory}/{name}" for name in os.listdir(self.directory) if name.startswith(_DRAFT))

    def _size_of_drafts(self) -> int:
        return sum(status.st_size for status in map(_status, self._drafts()) if status is not None)

    def _remove_what_is_dead(self) -> None:
        """Drafts whose receiver is no more, and marks of use without a program."""
        names = os.listdir(self.directory)
        marks = [name for name in names if name.endswith(_USE) and name.removesuffix(_USE) not in names]
        for path in [*self._drafts(), *(f"{self.directory}/{name}" for name in marks)]:
            try:
                fd = os.open(path, os.O_RDWR | _FLAGS)
            except OSError:
                continue
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.unlink(path)
            except OSError:
                pass  # somebody holds it
            finally:
                os.close(fd)

    def _locked(self) -> _Locked:
        return _Locked(f"{self.directory}/{_LOCK}")


class _Locked:
    """The directory's lock, for a few system calls."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd = -1

    def __enter__(self) -> None:
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | _FLAGS, 0o600)
        fcntl.flock(self._fd, fcntl.LOCK_EX)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._fd)


def hash_and_size(fd: int) -> tuple[str, int]:
    """Of a regular file, from its beginning."""
    return _hash_of(fd), os.fstat(fd).st_size


def parse_limit(text: str, name: str) -> int:
    """Returns a limit as its option says it."""
    return parse_size(text, name, LEAST_LIMIT)


def default_directory(environ: Mapping[str, str]) -> str:
    """Returns the directory for programs in the user's cache."""
    directory = cache_directory(environ)
    if directory is None:
        raise UsageError(
            "there is no directory of this user to keep programs in: HOME and XDG_CACHE_HOME are unset or belong to "
            "another user; give --program-cache DIRECTORY"
        )
    return f"{directory}/programs"


def _hash_of(fd: int) -> str:
    """In pieces, so not by `sodium.keyed_hash`, of which it is one with an empty key."""
    state = hashlib.blake2b(bytes([len(LABEL)]) + LABEL, digest_size=HASH_SIZE)
    position = 0
    while piece := os.pread(fd, _PIECE, position):
        state.update(piece)
        position += len(piece)
    return state.hexdigest()


def _verified_now(path: str, hash: str) -> bool:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | _FLAGS)
    except OSError:
        return False
    try:
        status = os.fstat(fd)
        return stat.S_ISREG(status.st_mode) and bool(status.st_mode & stat.S_IXUSR) and _hash_of(fd) == hash
    finally:
        os.close(fd)


def _identity(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_ctime_ns


def _is_hash(name: str) -> bool:
    return len(name) == 2 * HASH_SIZE and not name.strip("0123456789abcdef")


def _status(path: str) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except OSError:
        return None


def status_now(path: str) -> os.stat_result:
    """Of a file as it is there now: over NFS only what is opened is looked up anew, `stat` may tell of what was."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | _FLAGS)
    try:
        return os.fstat(fd)
    finally:
        os.close(fd)


def _is_gone(error: BaseException) -> bool:
    """Returns True if the error says that there is no such file; ESTALE: another host has removed it, over NFS."""
    return isinstance(error, OSError) and error.errno in (errno.ENOENT, errno.ESTALE)


def _sync_directory(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
