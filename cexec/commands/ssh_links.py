"""`cexec-ssh --links DIR`: `ssh`, `scp` and `sftp` for programs that call these by name.

Contract: `make_links` makes them in the directory, and the directory if it is not there; it replaces only what it has
made itself.  `scp` and `sftp` are those of OpenSSH, told to use cexec-ssh.  `UsageError` and `LocalError` say what is
wrong.
"""

from __future__ import annotations

import os
import shlex
import sys
from functools import partial
from typing import TYPE_CHECKING

from cexec.commands.ssh_options import NAME
from cexec.commands.ssh_settings import print_text
from cexec.errors import LocalError, UsageError
from cexec.system.reason import reason_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

LINKED = ("scp", "sftp")  # programs that are told by -S what to use in place of ssh
MARK = "# made by cexec-ssh --links"


def make_links(directory: str, environ: Mapping[str, str]) -> int:
    """Makes `ssh`, `scp` and `sftp` in the directory."""
    target = os.path.abspath(directory)
    launcher = _launcher(environ)
    try:
        os.makedirs(target, exist_ok=True)
        _replace(f"{target}/ssh", lambda new: os.symlink(launcher, new))
        missing = []
        for name in LINKED:
            program = _find(name, environ, target)
            if program:
                line = f'exec {shlex.quote(program)} -S {shlex.quote(launcher)} "$@"'
                _replace(f"{target}/{name}", partial(_write_script, line))
            else:
                missing.append(name)
    except OSError as error:
        raise LocalError(f"--links {directory}: {reason_of(error)}") from None
    made = ", ".join(["ssh", *(name for name in LINKED if name not in missing)])
    print_text(sys.stdout, f"made {made}; programs find them with: PATH={shlex.quote(target)}:$PATH\n")
    if missing:
        raise LocalError(f"there is no {' and no '.join(missing)} on this machine; install the package openssh-client")
    return 0


def _launcher(environ: Mapping[str, str]) -> str:
    """Returns the path of the program that runs now."""
    path = sys.argv[0]
    found = path if "/" in path else _find(path, environ, "")
    return os.path.abspath(found or path)


def _find(name: str, environ: Mapping[str, str], without: str) -> str:
    """Returns the program's path; `without` is a directory that does not count.  Empty if there is none."""
    for directory in environ.get("PATH", os.defpath).split(":"):
        path = os.path.abspath(os.path.join(directory or ".", name))
        if (
            os.path.dirname(path) != without
            and os.path.isfile(path)
            and os.access(path, os.X_OK)
            and not _is_ours(path)
        ):
            return path
    return ""


def _is_ours(path: str) -> bool:
    """Returns True if an earlier `--links` has made this file or link."""
    try:
        if os.path.islink(path):
            return os.path.basename(os.readlink(path)) == NAME
        with open(path, encoding="utf-8", errors="replace") as file:
            return MARK in file.read(200)
    except OSError:
        return False


def _replace(path: str, make: Callable[[str], None]) -> None:
    """Puts what `make` makes at `path`; raises `UsageError` if the name belongs to something else."""
    if os.path.lexists(path) and not _is_ours(path):
        raise UsageError(f"{path} is there already, and {NAME} has not made it; choose another directory")
    new = f"{path}.{os.getpid()}"
    make(new)
    os.replace(new, path)


def _write_script(line: str, path: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o755)
    with open(fd, "w", encoding="utf-8") as file:
        file.write(f"#!/bin/sh\n{MARK}\n{line}\n")
