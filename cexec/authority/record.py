"""The record of an application's owner: which certificates were issued and which were revoked.

Contract: the record is the text file APP.issued.  Lines are only ever added, under a lock and synchronised, before the
file that they tell of is written; so the record may name a key that was never written, and never misses one.  A line
that a crash has cut is kept, told in `damaged`, and read over.  Nothing in the record is secret.  A record that another
user may have put in place is refused, see `own_files`.
"""

from __future__ import annotations

import fcntl
import os
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cexec.errors import KeyFileError, LocalError, UsageError
from cexec.protocol.base.certificate import ROLE_CLIENT, ROLE_WORKER, valid_name
from cexec.protocol.base.keys import DEFAULT_CLIENT_NAME, DEFAULT_CLIENT_SERIAL
from cexec.protocol.base.revocation import LARGEST_SERIAL
from cexec.system.reason import reason_of
from cexec.system.storage.own_files import open_output
from cexec.system.storage.user_files import key_descriptor, quoted

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

SUFFIX = ".issued"
HEAD = (
    "# Certificates that were issued and revoked with this private key, for: ckeygen --list.  Lines are only added.\n"
    "# issued ROLE NAME SERIAL TIME END and revoked SERIAL LIST TIME; times are in seconds since 1970.\n"
)
_NO_END = "-"
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK  # not blocking, because a named pipe would wait for a writer
_CREATE = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK


@dataclass(frozen=True, slots=True)
class Issued:
    """One certificate.  `issued` and `not_after` are in seconds since 1970; `issued` is None for the default client."""

    role: str
    name: str
    serial: int
    issued: int | None
    not_after: int | None


@dataclass(slots=True)
class IssueRecord:
    """The content of a record.  `revoked` has, by serial, the number of the list; `damaged` counts lines."""

    issued: list[Issued] = field(default_factory=list)
    revoked: dict[int, int] = field(default_factory=dict)
    damaged: int = 0

    @property
    def latest_list(self) -> int:
        """The serial of the latest list, or 0."""
        return max(self.revoked.values(), default=0)

    def certificates(self) -> list[Issued]:
        """Returns what was issued, the default client's first, which every APP.pub has."""
        return [Issued(ROLE_CLIENT, DEFAULT_CLIENT_NAME, DEFAULT_CLIENT_SERIAL, None, None), *self.issued]


class OpenRecord:
    """The record of one private key, locked until the end of the `with` statement."""

    def __init__(self, app: str) -> None:
        if key_descriptor(app) is not None:
            raise UsageError(f"{app}: the record of what is issued stands beside APP, which must be a file for this")
        self.path = app + SUFFIX
        try:
            self._fd = open_output(self.path, _CREATE, 0o600)
        except OSError as error:
            raise LocalError(f"cannot write {self.path}: {reason_of(error)}") from None
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX)
            self.record = _parse(_read(self._fd, self.path))
        except BaseException:
            os.close(self._fd)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._fd)

    def add_issued(self, one: Issued) -> None:
        """Adds a certificate."""
        end = _NO_END if one.not_after is None else one.not_after
        self._add([f"issued {one.role} {one.name} {one.serial} {one.issued} {end}"])
        self.record.issued.append(one)

    def add_revoked(self, serials: list[int], number: int, now: int) -> None:
        """Adds revocations, which list `number` has for the first time."""
        self._add([f"revoked {serial} {number} {now}" for serial in serials])
        self.record.revoked.update(dict.fromkeys(serials, number))

    def _add(self, lines: list[str]) -> None:
        text = "".join(f"{line}\n" for line in lines)
        try:
            size = os.fstat(self._fd).st_size
            if size == 0:
                text = HEAD + text
            elif os.pread(self._fd, 1, size - 1) != b"\n":  # a crash has cut the last line
                text = "\n" + text
            data = text.encode()
            while data:
                data = data[os.write(self._fd, data) :]
            os.fsync(self._fd)
        except OSError as error:
            raise LocalError(f"cannot write {self.path}: {reason_of(error)}") from None


def read_record(app: str) -> IssueRecord:
    """Returns the content of the record of `app`, which is empty if there is none."""
    path = app + SUFFIX
    try:
        fd = open_output(path, _READ)
    except FileNotFoundError:
        return IssueRecord()
    except OSError as error:
        raise LocalError(f"cannot read {path}: {reason_of(error)}") from None
    try:
        return _parse(_read(fd, path))
    finally:
        os.close(fd)


def _read(fd: int, path: str) -> str:
    """Returns the text of a regular file that only its owner may change."""
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise KeyFileError(f"{path} is no regular file; move it away")
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise KeyFileError(f"{path} can be changed by others; type: chmod 600 {quoted(path)}")
        return os.pread(fd, status.st_size, 0).decode("utf-8", "replace")
    except OSError as error:
        raise LocalError(f"cannot read {path}: {reason_of(error)}") from None


def _parse(text: str) -> IssueRecord:
    record = IssueRecord()
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        match line.split(" "):
            case ["issued", role, name, serial, issued, end] if (
                role in (ROLE_CLIENT, ROLE_WORKER)
                and valid_name(name)
                and all(map(_is_number, (serial, issued, *([] if end == _NO_END else [end]))))
            ):
                until = None if end == _NO_END else int(end)
                record.issued.append(Issued(role, name, int(serial), int(issued), until))
            case ["revoked", serial, number, time] if all(map(_is_number, (serial, number, time))):
                record.revoked[int(serial)] = int(number)
            case _:
                record.damaged += 1
    return record


def _is_number(digits: str) -> bool:
    return digits.isascii() and digits.isdigit() and len(digits) <= 20 and int(digits) <= LARGEST_SERIAL
