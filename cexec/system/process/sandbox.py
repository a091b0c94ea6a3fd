"""Programs in a sandbox of bubblewrap, bwrap(1): a read-only file system, a private /tmp, process ids of their own.

Contract: `find_sandbox` raises `UsageError` if this machine cannot make one; it tries.  `Sandbox.command` returns the
command that runs another one inside: the root and the kernel's settings in /proc are read-only, /tmp, /var/tmp and /run
are empty and private, /dev has the plain devices only, there is no network unless it is asked for, and no process
outside can be seen or signalled.  `hidden` files cannot be read there.  The sandbox ends with the process that started
it.

The process that is started is bwrap's own and must not get a signal that is meant for the program: it would end, and
the kernel would kill the program then.
"""

from __future__ import annotations

import os
import stat
import subprocess
from typing import TYPE_CHECKING

from cexec.errors import UsageError
from cexec.system.process import process

if TYPE_CHECKING:
    from collections.abc import Sequence

_PRIVATE = ("/tmp", "/var/tmp", "/run")  # sockets are in /run: through that of systemd a program could start another
_ALWAYS = ("--die-with-parent", "--unshare-all", "--cap-drop", "ALL", "--ro-bind", "/", "/", "--dev", "/dev", "--proc",
           "/proc")  # fmt: skip
_RESOLVER = "/etc/resolv.conf"  # often a link to /run
_TRIAL = "/bin/true"
_TRIAL_PATIENCE = 20.0  # seconds (ours)


class Sandbox:
    """`network`: programs have the network of the machine.  `hidden`: the paths of files that they must not read."""

    __slots__ = ("_bwrap", "_hidden", "_of_the_kernel", "network")

    def __init__(self, bwrap: str, *, network: bool, hidden: Sequence[str] = ()) -> None:
        self.network = network
        self._bwrap = bwrap
        self._hidden = [os.path.realpath(path) for path in hidden]
        self._of_the_kernel = [word for path in of_the_kernel() for word in ("--ro-bind-try", path, path)]

    def command(self, words: Sequence[bytes | str], directory: str, *, private: bool) -> list[bytes | str]:
        """`words` begin with the path of an executable.

        `directory` is where they run; they may write there if it is `private`.
        """
        options: list[str] = [*_ALWAYS, *self._of_the_kernel, *(["--share-net"] if self.network else [])]
        for path in _PRIVATE:
            options += ["--tmpfs", path] if os.path.isdir(path) and not os.path.islink(path) else []
        executable = os.fsdecode(words[0])  # not what a link leads to: its name may say what the program is to do
        shown = [executable, os.path.realpath(executable), *([os.path.realpath(_RESOLVER)] if self.network else []),
                 *([] if private else [directory])]  # fmt: skip
        for path in shown:
            options += ["--ro-bind", path, path] if _is_covered(path) and os.path.exists(path) else []
        if private:
            options += ["--bind", directory, directory]
        for path in self._hidden:
            options += ["--ro-bind", os.devnull, path] if os.access(path, os.R_OK) else []
        return [self._bwrap, *options, "--chdir", directory, "--", executable, *words[1:]]


def find_sandbox(search: str | None, *, network: bool, hidden: Sequence[str]) -> Sandbox:
    """`search` is a PATH."""
    try:
        bwrap = process.resolve("bwrap", search)
    except UsageError:
        raise UsageError("--isolate needs bwrap; install the package bubblewrap") from None
    sandbox = Sandbox(bwrap, network=network, hidden=hidden)
    command = sandbox.command([_TRIAL], "/", private=False)
    try:
        trial = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_TRIAL_PATIENCE)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UsageError(f"--isolate: bwrap does not work here: {error}") from None
    if trial.returncode:
        said = trial.stderr.decode("utf-8", "replace").strip().removeprefix("bwrap: ") or f"it exits {trial.returncode}"
        raise UsageError(f"--isolate: bwrap does not work here: {said}")
    return sandbox


def of_the_kernel(proc: str = "/proc") -> list[str]:
    """Returns what is in /proc beside the processes and can be written to, or contains such files.

    Without capabilities, root is still the owner of the kernel's settings, and bwrap covers only some of them.
    """
    found = []
    for name in sorted(os.listdir(proc)):
        path = f"{proc}/{name}"
        if not name.isdigit() and not stat.S_ISLNK(mode := os.lstat(path).st_mode):
            found += [path] if stat.S_ISDIR(mode) or mode & 0o222 else []
    return found


def _is_covered(path: str) -> bool:
    """Returns True if one of the private directories would take its place."""
    return any(path.startswith(f"{os.path.realpath(one)}/") for one in _PRIVATE)
