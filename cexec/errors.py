"""One class per thing a user can be told.

Contract: `str(error)` is one line in lower case without a period that says what happened and, where something
can be done, what to do.  Whatever text of a peer it quotes, it is printable: a program that shows it, or Python that
shows a traceback, sends nothing to a terminal that acts there.  `exit_status` is what a command that ends with the
error exits with.  Pure: imports nothing.
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


class TooLongError(UsageError):
    """What was given is right, but more than a message of the protocol, or the start of a program, has room for."""


class KeyFileError(CexecError):
    """A key file cannot be used: absent, damaged, of the wrong kind, or open to others."""


class GroupError(UsageError):
    """An entry of CEXEC_GROUP (or GROUP, or a relay's TARGET) cannot be understood; names the entry."""


class ProtocolError(CexecError):
    """The peer's fault: bytes that no correct peer sends.  The only error that hostile bytes can cause."""


class VerifyError(ProtocolError):
    """Bytes of the right shape whose authentication failed: a wrong key, or somebody else's data."""


class CertificateError(ProtocolError):
    """A certificate that is genuine but not valid now, or not for this role; the message says what the clock says."""


class RevokedError(CertificateError):
    """A certificate that its authority has revoked, or that cannot be judged because the list is missing or damaged."""


class NoWorkerError(CexecError):
    """No worker of the application answered in time, or none fits."""


class NobodyAnsweredError(NoWorkerError):
    """No worker has said anything, so the reason is to be looked for: `cexec --explain`."""


class DisconnectedError(CexecError):
    """The connection ended before an authenticated exit frame: never a success."""


class SilentPeerError(DisconnectedError):
    """Nothing was heard of the peer, or of its machine, for too long."""


class StalledError(SilentPeerError):
    """A worker is there, but makes no progress, or does not end a job in time."""


class LocalError(CexecError):
    """A local system call failed: a full disk, no free port, a file that cannot be read."""


class InterruptedByUser(CexecError):
    """A signal that nobody but us can follow: the program does not run, or does not end.  `number`: the protocol's."""

    def __init__(self, number: int) -> None:
        super().__init__("interrupted")
        self.number = number


class LeftByUser(LocalError):
    """The person at the terminal has left the job, by `~.`; the worker ends it."""

    def __init__(self) -> None:
        super().__init__("left by ~. and the job is ended")


class CannotPickleError(CexecError, TypeError):
    """A function, an argument or a result cannot be sent; the message names the object within it."""


class WithdrawnError(CexecError):
    """The worker took its offer back before it was given the job: it stops, or we were late.  Nobody's fault."""


class RefusedError(CexecError):
    """The worker did not start the program; `permanent`: no other would."""

    def __init__(self, reason: str, permanent: bool) -> None:
        super().__init__(reason)
        self.permanent = permanent


class JobCancelledError(CexecError):
    """The caller has ended the job, or the client that it was given to."""


class NoRunError(CexecError):
    """No cmap runs with this journal, or none that can be asked from here."""


class NotAllowedError(CexecError):
    """Another user's cmap was asked for something that only its owner may ask."""


class NotFollowedError(CexecError):
    """A running cmap does not follow a request now; the message says why."""
