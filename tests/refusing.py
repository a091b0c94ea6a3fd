"""A program that the kernel refuses a system call, as in a container with a filter.

Contract: `refusing(CALL, ERROR, argv)` is a command that runs `argv` where the call always fails with this error.  Only
for Linux on x86-64 and ARM; elsewhere `NUMBERS` is empty.
"""

from __future__ import annotations

import errno
import platform
import sys
from collections.abc import Sequence

# of what may be refused, as <asm/unistd.h> has them
NUMBERS = {
    "x86_64": {"recvmmsg": 299, "memfd_create": 319, "splice": 275},
    "aarch64": {"recvmmsg": 243, "memfd_create": 279, "splice": 76},
}.get(platform.machine() if sys.platform == "linux" else "", {})

# A filter of four instructions: load the number; is it this one? then fail; else allow.
FILTER = """
import ctypes, os, struct, sys
number, error, *argv = sys.argv[1:]
filter = [(0x20, 0, 0, 0), (0x15, 0, 1, int(number)), (0x06, 0, 0, 0x50000 | int(error)), (0x06, 0, 0, 0x7FFF0000)]
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *one) for one in filter))
program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(filter), ctypes.addressof(code)))
libc = ctypes.CDLL(None)
assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
assert libc.prctl(22, 2, ctypes.c_void_p(ctypes.addressof(program)), 0, 0) == 0  # PR_SET_SECCOMP
os.execvp(argv[0], argv)
"""


def refusing(call: str, error: str, argv: Sequence[str]) -> list[str]:
    """`error` is a name of `errno`."""
    return [sys.executable, "-c", FILTER, str(NUMBERS[call]), str(getattr(errno, error)), *argv]
