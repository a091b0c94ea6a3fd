"""The place of the report: a file that each page replaces, or something that gets the last page only.

Contract: `ReportFile(path)` raises `UsageError` for a file that is there and is no report, unless `overwrite` is true,
and writes nothing yet.  A symbolic link stays, and what it leads to is replaced.  A FIFO, a device or a descriptor of
ours (/dev/stdout) cannot be replaced, so it is `final`: it is written to once, when the run is over.  `write` raises
`LocalError` or `OSError`, after which a file is as it was.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cexec.cmap.results.appending import AppendFile, cannot_write
from cexec.errors import UsageError
from cexec.system.storage.identity import descriptor_of, identify
from cexec.system.storage.own_files import check_output

if TYPE_CHECKING:
    from collections.abc import Iterable

BEGIN = "<!doctype html>\n<html lang=en><head><meta charset=utf-8><meta name=generator content=cmap>\n"  # of each page
_RANDOM = 8  # bytes in a temporary name


class ReportFile:
    def __init__(self, path: str, *, overwrite: bool) -> None:
        self.path = path
        try:
            check_output(path)
        except OSError as error:
            raise cannot_write(path, error) from None
        self._target = os.path.realpath(path)
        self._open: AppendFile | None = None
        if descriptor_of(path) is not None or not identify(path).replaceable:
            self._open = AppendFile.open(path)
        elif not overwrite and not _may_be_replaced(path):
            raise UsageError(f"--report {path} exists already and is no report of cmap; remove it, or add --overwrite")

    @property
    def final(self) -> bool:
        """True if only the last page can be written."""
        return self._open is not None

    def write(self, page: Iterable[str]) -> None:
        pieces = (text.encode("utf-8", "replace") for text in page)
        if self._open is not None:
            self._open.append(pieces)
            self._open.close()
        else:
            self._replace(pieces)

    def _replace(self, pieces: Iterable[bytes]) -> None:
        temporary = os.path.join(os.path.dirname(self._target), f".cmap-report-{os.urandom(_RANDOM).hex()}")
        try:
            with open(temporary, "xb") as file:
                file.writelines(pieces)
            os.replace(temporary, self._target)
        except OSError:
            if os.path.exists(temporary):
                os.unlink(temporary)
            raise


def _may_be_replaced(path: str) -> bool:
    """Returns True for an earlier report, for an empty file, and if there is nothing."""
    try:
        with open(path, "rb") as file:
            found = file.read(len(BEGIN))
    except FileNotFoundError:
        return True
    except OSError as error:
        raise cannot_write(path, error) from None
    return not found or found == BEGIN.encode()
