"""The audit: a line for each request that changes something, and for each one that was refused for its secret.

Contract: a line has the time, who asked and from where, and what it was and became:

    2026-01-31T12:00:00Z audit: who=ci(submitter,#3) from=127.0.0.1:40312 what="POST /v1/jobs" status=201 job 7 started

Callers choose paths, so everything is on one line, quoted where it can hold a space, and shorter than `LONGEST`;
anything that may be a secret is taken out.  Nobody waits for the reader of the lines (`LogLines`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from cexec.errors import LocalError
from cexec.gate.access.secret import hide_secrets
from cexec.system.io.log_lines import LogLines
from cexec.system.printable import printable
from cexec.system.reason import reason_of
from cexec.system.storage.own_files import open_own

if TYPE_CHECKING:
    from cexec.gate.access.caller import Caller

LONGEST = 2000  # characters (ours)
NOBODY = "-"


def open_audit(path: str) -> int:
    """Opens a file that only its owner may read, to be appended to."""
    try:
        return open_own(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    except OSError as error:
        raise LocalError(f"cannot write the audit {path}: {reason_of(error)}") from None


class Audit:
    """Writes to a descriptor, which stays its owner's; standard error by default."""

    def __init__(self, fd: int = 2, clock: Callable[[], float] = time.time) -> None:
        self._lines = LogLines(fd)
        self._clock = clock

    def flush(self) -> None:
        """Writes what a slow reader has room for by now."""
        self._lines.flush()

    def close(self) -> None:
        self._lines.close()

    def write(
        self, identity: Caller | None, source: str, what: str, status: int | str, changes: Iterable[str] = ()
    ) -> None:
        """`source` is the address of the client, `changes` are words about what became of it."""
        who = NOBODY if identity is None else f"{identity.name}({identity.role.name.lower()},#{identity.token})"
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self._clock()))
        told = "; ".join(changes)
        line = f"{when} audit: who={who} from={source} what={_quoted(what)} status={status} {told}".rstrip()
        line = printable(hide_secrets(line))
        if len(line) > LONGEST:
            line = f"{line[:LONGEST]}..."
        self._lines.write(f"{line}\n")


def source_of(client: tuple[str, int] | None) -> str:
    """Returns the client's address as a line has it."""
    if client is None:
        return NOBODY
    host, port = client[0], client[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
