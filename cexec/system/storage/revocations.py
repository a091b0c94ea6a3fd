"""The list of revoked certificates beside a key file, and the memory of the latest one that this user has seen.

Contract: `Revocations.check(certificate)` raises `RevokedError` for a certificate that is revoked, and for every
certificate while the list cannot be trusted: it was seen once and is missing, damaged or older than the latest one that
was seen, or it is required and was never there.  Without a list that was ever seen nothing is revoked, also where
this user may not look for one; `warning` says so then.
`refresh(now)` looks at the file again, at most once in LOOK_INTERVAL, and returns True if the verdicts may have
changed.  docs/protocol.md section 1.6.
"""

from __future__ import annotations

import os

from cexec.errors import CexecError, KeyFileError, RevokedError
from cexec.system.reason import reason_of
from cexec.system.storage.directories import state_directory
from cexec.system.storage.keyfile import WRITABLE_BY_OTHERS, read_guarded
from cexec.system.storage.user_files import memory_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cexec.protocol.base.certificate import Certificate


LOOK_INTERVAL = 2.0  # seconds (ours) between two looks at the file
LARGEST_LIST = 1 << 20  # bytes (ours): MAXIMUM_REVOKED entries and comments
MEMORY_SIZE = 21  # bytes of the memory: always as many, so that one write changes all of it


class Revocations:
    """The verdicts of one authority's list."""

    def __init__(
        self, path: str | None, authority_public: bytes, *, required: bool = False, directory: str | None = None
    ) -> None:
        """`directory` has the memory; by default it is the user's directory for state, if there is one."""
        self.path = path
        self.problem = ""  # why no certificate is accepted
        self.warning = ""  # why a restart would not know which list was seen
        self._authority = authority_public
        self._required = required
        directory = directory or state_directory()
        self._memory = None if directory is None else os.path.join(directory, memory_name(authority_public))
        self._latest = 0  # the serial of the latest list that was seen
        self._revoked: dict[int, str] = {}
        self._seen: object = None  # what stat said of the file that was read last
        self._serial = 0  # of that file's list; 0 if it could not be read
        self._fault = ""  # why
        self._next_look = 0.0
        self._look()

    def refresh(self, now: float, *, at_once: bool = False) -> bool:
        """Looks again if it is time; returns True if another list has come or the problem is another one.

        `at_once`: it is time, and the file is read also if it seems to be the one that was read.
        """
        if now < self._next_look and not at_once:
            return False
        self._next_look = now + LOOK_INTERVAL
        before = (self.problem, self._serial, self._seen)
        if at_once:
            self._seen = None
        self._look()
        return before != (self.problem, self._serial, self._seen)

    def check(self, certificate: Certificate) -> None:
        """Raises `RevokedError` unless the certificate may be accepted."""
        if self.problem:
            raise RevokedError(f"no certificate is accepted: {self.problem}")
        if self.revoked(certificate):
            raise RevokedError(f"certificate of {certificate.name} (serial {certificate.serial}) is revoked")

    def revoked(self, certificate: Certificate) -> bool:
        """Returns True if the latest list that could be read names it."""
        return certificate.serial in self._revoked

    def _look(self) -> None:
        try:
            self._latest = max(self._latest, self._remembered())
            self._read()
            self.problem = self._judge()
            if not self.problem and self._serial > self._latest:
                self._latest = self._serial
                self._remember()
        except CexecError as error:
            self.problem = str(error)

    def _read(self) -> None:
        """Reads the file if it is another one than before."""
        seen = self._stat()
        if seen == self._seen and seen is not None:
            return
        self._seen, self._serial, self._fault = seen, 0, ""
        if seen is None or self.path is None:
            return
        from cexec.protocol.base.revocation import decode_list  # most clients have no list

        try:
            found = decode_list(read_guarded(self.path, WRITABLE_BY_OTHERS, LARGEST_LIST))
        except KeyFileError as error:
            self._fault = f"{self.path} {error}"
            return
        if found.authority_public != self._authority:
            self._fault = f"{self.path} is the list of another application ({found.fingerprint})"
            return
        self._serial, self._revoked = found.serial, found.revoked

    def _stat(self) -> tuple[int, ...] | None:
        if self.path is None:
            return None
        try:
            status = os.stat(self.path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except PermissionError as error:
            # A directory that this user may not enter, as with cservice --user and a key of root: no list was seen.
            self.warning = f"nobody counts as revoked, because {self.path} cannot be looked at: {reason_of(error)}"
            return None
        except OSError as error:
            raise KeyFileError(f"{self.path} cannot be read: {reason_of(error)}") from None
        return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_mode)

    def _judge(self) -> str:
        """Returns why the list cannot be trusted, or ""."""
        if self._fault:
            return self._fault
        where = self.path or "the list of revoked certificates (CEXEC_REVOKED)"
        if self._serial == 0 and self._latest:
            return f"{where} is missing, and list {self._latest} was seen before; copy it from its owner again"
        if self._serial == 0 and self._required:
            return f"{where} is missing and required; copy it from its owner"
        if self._serial < self._latest:
            return f"{where} is list {self._serial}, but list {self._latest} was seen before; copy the newer one"
        return ""

    def _remembered(self) -> int:
        if self._memory is None:
            return 0
        try:
            fd = os.open(self._memory, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except (FileNotFoundError, NotADirectoryError):
            return 0
        except OSError as error:
            raise KeyFileError(f"{self._memory} cannot be read: {reason_of(error)}") from None
        try:
            return self._number(os.read(fd, MEMORY_SIZE + 1))
        finally:
            os.close(fd)

    def _number(self, data: bytes) -> int:
        digits = data.removesuffix(b"\n")
        if len(data) != MEMORY_SIZE or len(digits) != MEMORY_SIZE - 1 or not digits.isdigit():
            raise KeyFileError(f"{self._memory} is damaged, which has the number of the latest list that was seen")
        return int(digits)

    def _remember(self) -> None:
        """Writes the serial down unless another process has written a higher one; a full disk is no reason to fail."""
        import fcntl

        if self._memory is None:
            self.warning = "there is no directory in which the number of the list can be remembered (XDG_STATE_HOME)"
            return
        try:
            os.makedirs(os.path.dirname(self._memory), mode=0o700, exist_ok=True)
            fd = os.open(self._memory, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX)
                data = os.pread(fd, MEMORY_SIZE + 1, 0)
                if not data or self._number(data) < self._serial:
                    os.pwrite(fd, b"%0*d\n" % (MEMORY_SIZE - 1, self._serial), 0)
            finally:
                os.close(fd)
            self.warning = ""
        except OSError as error:  # this process remembers it
            self.warning = f"the number of the list cannot be remembered in {self._memory}: {reason_of(error)}"
