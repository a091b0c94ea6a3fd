"""Network namespaces for the test run itself: `own_network()`, or as a script, only the loopback of the present one.

Contract: imports nothing but the standard library, because `isolated.sh` runs it with any Python 3.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket

_CLONE_NEWNET = 0x40000000  # <linux/sched.h>
_SIOCSIFFLAGS = 0x8914  # <linux/sockios.h>
_IFF_UP = 1  # <linux/if.h>
_NAME_SIZE, _REST = 16, 22  # bytes of struct ifreq before and after the flags


def own_network() -> None:
    """Moves this process into a network namespace of its own; `OSError` where that is not allowed."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"cannot make a network namespace: {os.strerror(number).lower()}")
    bring_up()


def bring_up() -> None:
    """The loopback of a new namespace is down, and ip(8) may be missing."""
    flags = _IFF_UP.to_bytes(2, "little")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, b"lo".ljust(_NAME_SIZE, b"\0") + flags + bytes(_REST))


if __name__ == "__main__":
    bring_up()
