"""The files that a run as a whole reads and writes, so that no output of it replaces another file of it.

Contract: `reads` and `writes` take the files one by one; `UsageError` for an output that is the same file as an input
or as another output, under whatever name (`system.storage.identity`).  Then `written_as` and `used_as` say in words
which of them a file of a row is, or nothing.  Devices, FIFOs and the descriptors of this process are written to as they
are, so they may be given several times.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cexec.errors import UsageError
from cexec.system.storage.identity import descriptor_of, identify, identify_descriptor

if TYPE_CHECKING:
    from cexec.system.storage.identity import FileIdentity

STANDARD_INPUT, STANDARD_OUTPUT, STANDARD_ERROR = range(3)


class NamedFiles:
    """Each file is known by a role, in words for people: `--joblog log`."""

    def __init__(self) -> None:
        self._read: dict[object, str] = {}  # roles by inode and by entry
        self._written: dict[object, str] = {}

    def add_standard(self) -> None:
        """Adds the files that standard input, output and error are; output and error may be one."""
        _add(self._read, "standard input", identify_descriptor(STANDARD_INPUT))
        output, errors = map(identify_descriptor, (STANDARD_OUTPUT, STANDARD_ERROR))
        self._add_written("standard output", output)
        if not output.same_file(errors):
            self._add_written("standard error", errors)

    def reads(self, option: str, path: str) -> None:
        _add(self._read, f"{option} {path}", identify(path))

    def writes(self, option: str, path: str) -> None:
        if descriptor_of(path) is None:
            self._add_written(f"{option} {path}", identify(path))

    def written_as(self, inode: tuple[int, int]) -> str:
        """Returns the role of the output that this is; empty if it is none."""
        return self._written.get(inode, "")

    def used_as(self, identity: FileIdentity) -> str:
        """Returns the role of the input or output that this is; empty if it is none."""
        return _role(self._read, identity) or _role(self._written, identity)

    def place_used_as(self, entry: tuple[int, int, str]) -> str:
        """Returns the role of the input or output that a new file in this place would be; empty if none."""
        return self._read.get(entry) or self._written.get(entry, "")

    def _add_written(self, role: str, identity: FileIdentity) -> None:
        other = self.used_as(identity)
        if other:
            raise UsageError(f"{role} is the same file as {other}; give it a name of its own")
        _add(self._written, role, identity)


def _add(roles: dict[object, str], role: str, identity: FileIdentity) -> None:
    if not identity.replaceable:
        return
    for key in (identity.inode, identity.entry):
        if key is not None:
            roles.setdefault(key, role)


def _role(roles: dict[object, str], identity: FileIdentity) -> str:
    return roles.get(identity.inode, "") or roles.get(identity.entry, "")
