"""The errors that every command has at hand; `errors` has these and all others.

Contract: as in `errors`.  A module that a plain call of `cexec` loads takes what it needs from here, because each class
costs the call as much as a hundred lines of code; it imports an error of `errors` where it raises or judges it.
Pure: imports nothing.
"""

from __future__ import annotations

EXIT_USAGE = 100  # wrong use, permanent; as in the ancestor
EXIT_TEMPORARY = 111  # our own failure, may work when tried again; as in the ancestor


class CexecError(Exception):
    """Anything that a command tells its user before it ends."""

    exit_status = EXIT_TEMPORARY

    def __str__(self) -> str:
        return printable(super().__str__())


def printable(text: str) -> str:
    """Returns the text on one line, without characters that act on a terminal; see `cexec.system.printable`."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


class UsageError(CexecError):
    """The command line or the environment is wrong; trying again does not help."""

    exit_status = EXIT_USAGE


class KeyFileError(CexecError):
    """A key file cannot be used: absent, damaged, of the wrong kind, or open to others."""


class ProtocolError(CexecError):
    """The peer's fault: bytes that no correct peer sends.  The only error that hostile bytes can cause."""


class VerifyError(ProtocolError):
    """Bytes of the right shape whose authentication failed: a wrong key, or somebody else's data."""


class NoWorkerError(CexecError):
    """No worker of the application answered in time, or none fits."""


class DisconnectedError(CexecError):
    """The connection ended before an authenticated exit frame: never a success."""


class LocalError(CexecError):
    """A local system call failed: a full disk, no free port, a file that cannot be read."""
