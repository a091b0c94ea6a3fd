"""What the first bytes of an executable file say: who runs it, and why it cannot be started here.

Contract: `problem_of(path, search)` returns in words why the file cannot be started, or "" if nothing speaks against
it; `search` is the PATH in which `env` looks.  `is_script(path)` is true for a text without `#!`, which the kernel does
not start, and a shell does.  Neither raises: of a file that cannot be read nothing is known.  `shown_path` is what a
PATH is called in messages.
"""

from __future__ import annotations

import os
import shutil
import struct
import sys

SHELL = "/bin/sh"  # runs scripts without `#!`, as execvp(3) and all shells have it
_HEAD = (
    4096  # bytes (ours): the kernel looks at 256 of a script, and an ELF file has its loader's name in the first page
)
_HEADER = 52  # bytes of the shortest header of an ELF file, that of 32 bits
_LOADER = 3  # PT_INTERP of <elf.h>
_BEGINNING = b"\x7fELF"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# e_machine of <elf.h>
_MACHINES = {3: "x86", 8: "mips", 20: "ppc", 21: "ppc64", 22: "s390x", 40: "arm", 62: "x86_64", 183: "aarch64",
             243: "riscv", 258: "loongarch"}  # fmt: skip
_FAMILY = {62: 3, 183: 40, 21: 20}  # one kernel may run both
EMULATORS = "/proc/sys/fs/binfmt_misc"  # one file each, beside "register" and "status"
UNKNOWN = "it is neither a program nor a script; name what runs it in front of it"


def is_script(path: str) -> bool:
    """Returns True for a text without `#!`."""
    head = _head(path)
    if head is None or head.startswith((b"#!", _BEGINNING)):
        return False
    return b"\0" not in head.partition(b"\n")[0]  # bash decides in the same way


def problem_of(path: str, search: str | None) -> str:
    """Returns why the file cannot be started, or ""."""
    head = _head(path)
    if head is None:
        return ""
    if head.startswith(_BEGINNING):
        return _problem_of_binary(head)
    first, newline, _ = head.partition(b"\n")
    if newline and first.endswith(b"\r") and b"\0" not in first:
        return f"its lines end with CR LF, as in files from Windows; type: sed -i 's/\\r$//' {path}"
    if first.startswith(_BYTE_ORDER_MARK + b"#!"):
        return (
            f"it begins with a byte order mark, as in files from Windows; type: sed -i '1s/^\\xef\\xbb\\xbf//' {path}"
        )
    if not first.startswith(b"#!"):
        return UNKNOWN if b"\0" in first and not _emulates() else ""
    return _problem_of_script(os.fsdecode(first[2:]).strip(" \t"), search)


def _problem_of_script(line: str, search: str | None) -> str:
    interpreter, argument = (*line.split(None, 1), "", "")[:2]
    if not interpreter:
        return ""
    if not os.path.exists(interpreter):
        return f"its interpreter {interpreter} is not there; install it, or correct the first line"
    if not os.access(interpreter, os.X_OK):
        return f"its interpreter {interpreter} is not executable"
    if os.path.basename(interpreter) != "env":
        return ""
    name = argument.strip(" \t")  # the kernel passes the rest of the line on as one word
    if name.startswith("-S"):
        name = (name.removeprefix("-S").split() or [""])[0]
    if not name or name.startswith("-") or "=" in name or shutil.which(name, path=search):
        return ""
    return f"its interpreter {name} is not found in {shown_path(search)}; install it, or correct the first line"


def _problem_of_binary(head: bytes) -> str:
    """The loader of a program that was made for another C library is missing, and the kernel only says ENOENT."""
    if len(head) < _HEADER:
        return UNKNOWN
    theirs, ours = _machine_of(head), _machine_of(_head(sys.executable) or b"")
    if theirs and ours and _FAMILY.get(theirs, theirs) != _FAMILY.get(ours, ours) and not _emulates():
        return f"it is a program for {_machine(theirs)}, and this machine is {_machine(ours)}"
    loader = _loader_of(head)
    if not loader or os.path.exists(loader):
        return ""
    return f"its loader {loader} is not there: it was made for another system"


def _machine_of(head: bytes) -> int:
    """Returns the number of the processor that an ELF file is for; 0 if the file is damaged or something else."""
    if len(head) < 20 or not head.startswith(_BEGINNING):
        return 0
    return int.from_bytes(head[18:20], "little" if head[5] == 1 else "big")


def _machine(number: int) -> str:
    return _MACHINES.get(number, f"processor {number} of ELF")


def _emulates() -> bool:
    """Returns True if the kernel may start programs for other processors with an emulator."""
    try:
        return len(os.listdir(EMULATORS)) > 2
    except OSError:
        return False


def _loader_of(head: bytes) -> str:
    """Returns the path in the segment PT_INTERP of a 64-bit file, "" if there is none."""
    try:
        if head[4] != 2:
            return ""
        order = "<" if head[5] == 1 else ">"
        (table,) = struct.unpack_from(f"{order}Q", head, 32)
        size, count = struct.unpack_from(f"{order}HH", head, 54)
        for number in range(count):
            kind, _, offset, _, _, length = struct.unpack_from(f"{order}IIQQQQ", head, table + number * size)
            if kind == _LOADER and offset + length <= len(head):
                return os.fsdecode(head[offset : offset + length].rstrip(b"\0"))
    except (struct.error, IndexError):
        pass  # a damaged file, or a table farther on
    return ""


def _head(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read(_HEAD)
    except OSError:
        return None


def shown_path(search: str | None) -> str:
    return f"the PATH {search}" if search else "the PATH, which is empty"
