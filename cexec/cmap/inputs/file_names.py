"""Names that a file system takes: how long they may be, and which characters.

Contract: `NameCheck(directory).problem(name)` returns in words what is wrong with a name for a new file there, and
nothing if it is right.  Whether a file system takes an unusual name is known only when a file of that name is made; it
is made in a directory of its own, which is then removed, and only if `may_write`.
"""

from __future__ import annotations

import os
import shutil
import string
import tempfile

from cexec.system.reason import reason_of

PREFIX = ".cmap-"  # begins the names of all temporary files
LONGEST_TEMPORARY = 64  # bytes (ours): no temporary name is longer
LONGEST_NAME, LONGEST_PATH = 255, 4096  # bytes, where the system does not say
_PLAIN = frozenset(string.ascii_letters + string.digits + "._-+=@,%~")
_ANYTHING = b'\x01<>:"\\|?* \xff\xc3\xa9 .'  # a name with everything that some file system does not take


class NameCheck:
    """Of one directory."""

    def __init__(self, directory: str, *, may_write: bool) -> None:
        self._directory = directory or "."
        self._may_write = may_write
        self._takes_anything: bool | None = None  # not known yet
        self._longest_name = _limit(self._directory, "PC_NAME_MAX", LONGEST_NAME)
        longest_path = _limit(self._directory, "PC_PATH_MAX", LONGEST_PATH)
        self._longest_here = longest_path - len(os.fsencode(self._directory)) - 2  # for the slash and the NUL

    def problem(self, name: str) -> str:
        size = len(os.fsencode(name))
        if size > self._longest_name:
            return f"its name is {size} bytes long, and at most {self._longest_name} fit"
        if max(size, LONGEST_TEMPORARY) > self._longest_here:
            return "its path is too long"
        if not self._may_write or _PLAIN.issuperset(name):
            return ""
        if self._takes_anything is None:
            self._takes_anything = not self._refusal(_ANYTHING)
        return "" if self._takes_anything else self._refusal(os.fsencode(name))

    def _refusal(self, name: bytes) -> str:
        scratch = ""
        try:
            scratch = tempfile.mkdtemp(prefix=PREFIX, dir=self._directory)
            os.close(os.open(os.path.join(os.fsencode(scratch), name), os.O_CREAT | os.O_EXCL | os.O_CLOEXEC))
        except OSError as error:
            return f"the file system does not take its name: {reason_of(error)}" if scratch else ""
        finally:
            if scratch:
                shutil.rmtree(scratch, ignore_errors=True)
        return ""


def _limit(directory: str, name: str, default: int) -> int:
    try:
        limit = os.pathconf(directory, name)
    except (OSError, ValueError):
        return default
    return limit if limit > 0 else default
