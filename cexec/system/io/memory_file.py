"""Files in memory, which nobody has to remove.

Contract: `open_memory(name)` returns a descriptor, which is closed when a program is started.  `OSError` where there
are no such files: on other systems than Linux, and where a container's filter of system calls forbids them.
"""

from __future__ import annotations

import errno
import os

# Linux 6.3: nobody can make the file executable.  A kernel with the setting vm.memfd_noexec=2 gives no others.
_NOEXEC_SEAL = 0x8


def open_memory(name: str, *, sealable: bool = False) -> int:
    """`name` is what /proc shows.  `sealable`: its size can be fixed by F_ADD_SEALS."""
    if not hasattr(os, "memfd_create"):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    flags = os.MFD_CLOEXEC | (os.MFD_ALLOW_SEALING if sealable else 0)
    try:
        return os.memfd_create(name, flags)
    except PermissionError:
        return os.memfd_create(name, flags | _NOEXEC_SEAL)
