"""The modules that a client has sent: a zip file which Python imports from, and which nothing has to remove.

Contract: `path` belongs into `sys.path` and PYTHONPATH, as long as the file is not closed.  Where the system has files
without a name, it is one, so that it goes with its process also if that is killed.
"""

from __future__ import annotations

import os
import tempfile


class ModuleFile:
    """One zip file."""

    def __init__(self, data: bytes | bytearray) -> None:
        self._named = not hasattr(os, "memfd_create")
        if self._named:
            self._fd, self.path = tempfile.mkstemp(prefix="cexec-pool-", suffix=".zip")
        else:
            self._fd = os.memfd_create("cexec-pool-modules")
            self.path = f"/proc/{os.getpid()}/fd/{self._fd}"
        with open(self._fd, "wb", closefd=False) as file:
            file.write(data)

    def close(self) -> None:
        os.close(self._fd)
        if self._named:
            os.unlink(self.path)
