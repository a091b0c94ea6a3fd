"""What cexec-ssh(1) does beside running commands: its help page, its version, -G, and --links.

Contract: each function returns an exit status.  `make_links` makes `ssh`, `scp` and `sftp` in a directory for programs
that call these by name; it replaces only what it has made itself.  `UsageError` and `LocalError` say what is wrong.
"""

from __future__ import annotations

import os
import shlex
import sys
from functools import partial
from typing import TYPE_CHECKING, TextIO

from cexec import __version__
from cexec.commands.ssh_options import FORCED_TERMINAL, NO_TERMINAL, TERMINAL
from cexec.errors import LocalError, UsageError
from cexec.system.reason import reason_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cexec.commands.ssh_options import SshCall

COMMAND = "cexec-ssh"
USAGE = f"""{COMMAND} [ssh options] [user@]WORKER [COMMAND...]
       {COMMAND} --links DIR"""
HELP = f"""Usage: {USAGE}

  Run COMMAND on WORKER, for programs that were made for ssh. WORKER is the name
  or an address of a service that was started with: cservice --shell shell

  The client key is $CEXEC_SSH_KEY, else ~/.config/cexec/shell.pub.

Examples:
  cexec-ssh w uname -a
        run a command on the worker w
  rsync -a -e cexec-ssh DIRECTORY w:
        let a program use it in place of ssh
  cexec-ssh --links ~/links; PATH=~/links:$PATH scp FILE w:
        the same for programs that call ssh, scp or sftp by name

Options:
  -n               The command's standard input is /dev/null.
  -t               Give the command a terminal, if there is one here; -tt in any case.
  -T               Give the command no terminal.
  -l USER          The same as USER@WORKER: fail if commands run as another user.
  -s               COMMAND is the name of a subsystem; sftp is the only one.
  -o NAME=VALUE    Obeyed are ConnectTimeout, RequestTTY, SendEnv, SetEnv and User.
  -G               Print the settings and end.

  Ignored are all other options of ssh but -f -N -L -R -D -J -W -w -O -Q, which
  are refused.

Other:
  --links DIR      Make ssh, scp and sftp in DIR, for programs that call these.
  -V, --version    Show the version and exit.
  -h, --help       Show this message and exit.
"""
LINKED = ("scp", "sftp")  # programs that are told by -S what to use in place of ssh
MARK = "# made by cexec-ssh --links"
ANSWERS = {NO_TERMINAL: "no", TERMINAL: "yes", FORCED_TERMINAL: "force"}


def run_extra(words: list[str]) -> int:
    """Does what a first word with two hyphens, or -h, asks for."""
    option, equals, value = words[0].partition("=")
    if words[0] in ("-h", "--help"):
        return print_text(sys.stdout, HELP)
    if words[0] == "--version":
        return print_version(sys.stdout)
    if option == "--links":
        given = [value] if equals else words[1:]
        if len(given) != 1 or not given[0]:
            raise UsageError("--links needs one directory: cexec-ssh --links DIR")
        return make_links(given[0], os.environ)
    raise UsageError(f"no such option '{option}'; see {COMMAND} --help")


def print_text(stream: TextIO | None, text: str) -> int:
    """Prints; raises `LocalError` if nobody can read it."""
    try:
        if stream is not None:
            stream.write(text)
            stream.flush()
    except (OSError, ValueError) as error:
        raise LocalError(f"cannot write: {reason_of(error) if isinstance(error, OSError) else error}") from None
    return 0


def print_version(stream: TextIO | None) -> int:
    return print_text(stream, f"{COMMAND}, version {__version__}\n")


def print_settings(call: SshCall, environ: Mapping[str, str]) -> int:
    """Prints the settings of a call in ssh's form: a name in lower case, and a value."""
    lines = [
        f"host {call.host}",
        f"user {call.user or environ.get('LOGNAME') or environ.get('USER') or os.getuid()}",
        f"hostname {call.host}",
        "port 22",
        "batchmode yes",
        f"connecttimeout {call.timeout:.0f}",
        f"requesttty {ANSWERS.get(call.terminal, 'auto')}",
        f"sessiontype {'subsystem' if call.subsystem else 'default'}",
        f"stdinnull {'yes' if call.no_stdin else 'no'}",
        *(f"sendenv {one}" for one in call.send),
        *(f"setenv {name}={value}" for name, value in call.set.items()),
    ]
    return print_text(sys.stdout, "".join(f"{line}\n" for line in lines))


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
            return os.path.basename(os.readlink(path)) == COMMAND
        with open(path, encoding="utf-8", errors="replace") as file:
            return MARK in file.read(200)
    except OSError:
        return False


def _replace(path: str, make: Callable[[str], None]) -> None:
    """Puts what `make` makes at `path`; raises `UsageError` if the name belongs to something else."""
    if os.path.lexists(path) and not _is_ours(path):
        raise UsageError(f"{path} is there already, and {COMMAND} has not made it; choose another directory")
    new = f"{path}.{os.getpid()}"
    make(new)
    os.replace(new, path)


def _write_script(line: str, path: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o755)
    with open(fd, "w", encoding="utf-8") as file:
        file.write(f"#!/bin/sh\n{MARK}\n{line}\n")
