"""-V and -G of cexec-ssh(1): programs call these to find out which ssh they have.

Contract: each function prints, and returns the exit status.  It raises `LocalError` if nobody can read it.
"""

from __future__ import annotations

import errno
import os
import sys

from cexec import __version__
from cexec.commands.ssh_options import FORCED_TERMINAL, NAME, NO_TERMINAL, TERMINAL
from cexec.errors import LocalError
from cexec.system.reason import reason_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import TextIO

    from cexec.commands.ssh_options import SshCall

ANSWERS = {NO_TERMINAL: "no", TERMINAL: "yes", FORCED_TERMINAL: "force"}


def print_text(stream: TextIO | None, text: str) -> int:
    """Prints; raises `LocalError` if nobody can read it."""
    if stream is None:
        raise LocalError(f"cannot write: {reason_of(errno.EBADF)}")
    try:
        stream.write(text)
        stream.flush()
    except (OSError, ValueError) as error:
        raise LocalError(f"cannot write: {reason_of(error) if isinstance(error, OSError) else error}") from None
    return 0


def print_version(stream: TextIO | None) -> int:
    """Prints the version; ssh does that on standard error."""
    return print_text(stream, f"{NAME} {__version__}\n")


def print_settings(call: SshCall, environ: Mapping[str, str]) -> int:
    """Prints the settings of a call in ssh's form: a name in lower case, and a value."""
    lines = [
        f"host {call.host}",
        f"user {call.user or _account(environ)}",
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


def _account(environ: Mapping[str, str]) -> str:
    """Returns the name of the account here, which the service's mostly has, too; an account may have none."""
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return environ.get("LOGNAME") or environ.get("USER") or str(os.getuid())
