"""A shell service (`cservice --shell`): what a job runs there, where, and in which environment.

Contract: `find_shell` returns the account that jobs have, and raises `UsageError` if it has no shell that can be used.
`command_of` returns argv and the environment of one job, as sshd makes them: the words of GO,
joined by one space, are given to `$SHELL -c`; without words the shell is a login shell, and with GO's option
`subsystem` it runs that server.  Variables that sshd would take from its client have their own names; all others are
PEER_ ones.  docs/protocol.md section 4.2 (GO), docs/ssh.md.
"""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cexec.errors import UsageError
from cexec.protocol.connection.frames import PERMANENT, Refusal
from cexec.protocol.connection.options import SFTP, SUBSYSTEM

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cexec.protocol.connection.frames import Go

SLOTS = 100  # (ours): programs make many calls at once; -j changes it
PATH_OF_ROOT = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"  # as Debian's sshd sets it
PATH = "/usr/local/bin:/usr/bin:/bin:/usr/games"  # the same for other users
NOBODYS = ("nologin", "false")  # shells of accounts that are for no person
# Where systems keep the server of the protocol SFTP, which is not in PATH.
SFTP_SERVERS = (
    "/usr/lib/openssh/sftp-server",
    "/usr/libexec/openssh/sftp-server",
    "/usr/lib/ssh/sftp-server",
    "/usr/libexec/sftp-server",
    "/usr/lib/sftp-server",
)
ACCEPTED = (b"LANG", b"GIT_PROTOCOL")  # variables that the client may set, and all that begin with
ACCEPTED_BEGINNING = b"LC_"


@dataclass(frozen=True, slots=True)
class Shell:
    """The account of a shell service.  `path` is its login shell."""

    account: str
    home: str
    path: str
    environment: Mapping[bytes, bytes] = field(default_factory=dict)  # that of a login

    def enter(self) -> None:
        """Makes the account's home the working directory, or `/` if there is none."""
        try:
            os.chdir(self.home)
        except OSError:
            os.chdir("/")


def find_shell() -> Shell:
    """Returns the account that this process has."""
    number = os.geteuid()
    try:
        found = pwd.getpwuid(number)
    except KeyError:
        raise UsageError(f"--shell: user number {number} has no account on this machine") from None
    path = found.pw_shell or "/bin/sh"
    if os.path.basename(path) in NOBODYS:
        raise UsageError(f"--shell: the account {found.pw_name} lets nobody log in, because its shell is {path}")
    if not os.access(path, os.X_OK):
        raise UsageError(f"--shell: the shell of the account {found.pw_name}, {path}, cannot be started")
    values = {
        "HOME": found.pw_dir,
        "LOGNAME": found.pw_name,
        "MAIL": f"/var/mail/{found.pw_name}",
        "PATH": PATH if number else PATH_OF_ROOT,
        "SHELL": path,
        "USER": found.pw_name,
    }
    if zone := os.environ.get("TZ"):
        values["TZ"] = zone
    encoded = {name.encode(): os.fsencode(value) for name, value in values.items()}
    return Shell(found.pw_name, found.pw_dir, path, encoded)


def check(go: Go, shell: Shell | None) -> Refusal | None:
    """Returns why this job cannot be run, if that is so."""
    name = go.options.get(SUBSYSTEM)
    if name is None:
        return None
    if shell is None:
        return Refusal(PERMANENT, "this service offers no shell, so it has no subsystems")
    if name != SFTP:
        return Refusal(PERMANENT, f"there is no subsystem {name[:80]!r} here, only {SFTP}")
    if not _sftp_server():
        return Refusal(PERMANENT, "there is no sftp-server on this worker; install the package openssh-sftp-server")
    return None


def command_of(shell: Shell, go: Go, extra: Mapping[bytes, bytes]) -> tuple[list[bytes | str], dict[bytes, bytes]]:
    """Returns argv and the environment; called in the directory in which the program will run."""
    environment = {**shell.environment, **_own_variables(go, extra)}
    environment[b"PWD"] = os.getcwdb()
    name = os.path.basename(shell.path)
    words: list[bytes | str] = [f"-{name}"]
    if SUBSYSTEM in go.options:
        words = [name, "-c", _sftp_server()]
    elif line := b" ".join(go.arguments):
        words = [name, "-c", line]
    return words, environment


def without_first_word(words: list[bytes | str], path: str) -> list[bytes | str]:
    """Returns the same command with the shell's path as argv[0], because a sandbox passes no other on."""
    return [path, "-l"] if len(words) == 1 else [path, *words[1:]]


def _own_variables(go: Go, extra: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """Returns the job's own variables, those of the connection as sshd names them."""
    given = {name.encode(): value for name, value in go.environment.items()}
    taken = {name: value for name, value in given.items() if _is_accepted(name)}
    result = {name: value for name, value in extra.items() if name.removeprefix(b"PEER_") not in taken}
    client, server = (b"%s %s" % (extra[f"{who}_ADDR".encode()], extra[f"{who}_PORT".encode()])
                      for who in ("REMOTE", "SERVER"))  # fmt: skip
    port = extra[b"SERVER_PORT"]
    return {**result, **taken, b"SSH_CLIENT": b"%s %s" % (client, port), b"SSH_CONNECTION": b"%s %s" % (client, server)}


def _is_accepted(name: bytes) -> bool:
    return name in ACCEPTED or name.startswith(ACCEPTED_BEGINNING)


def _sftp_server() -> str:
    """Returns the path of the server; empty if there is none."""
    return next((path for path in SFTP_SERVERS if os.access(path, os.X_OK)), "")
