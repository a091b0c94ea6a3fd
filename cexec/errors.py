"""One class per thing a user can be told.

Contract: `str(error)` is one line in lower case without a period that says what happened and, where something
can be done, what to do.  Whatever text of a peer it quotes, it is printable: a program that shows it, or Python that
shows a traceback, sends nothing to a terminal that acts there.  `exit_status` is what a command that ends with the
error exits with.  Pure: imports nothing but the errors of `common_errors`, which are a part of this module.
"""

from __future__ import annotations

from cexec.common_errors import (
    EXIT_TEMPORARY,
    EXIT_USAGE,
    CexecError,
    DisconnectedError,
    KeyFileError,
    LocalError,
    NoWorkerError,
    ProtocolError,
    UsageError,
    VerifyError,
    printable,
)

__all__ = [
    "EXIT_TEMPORARY",
    "EXIT_USAGE",
    "CannotPickleError",
    "CertificateError",
    "CexecError",
    "DisconnectedError",
    "GroupError",
    "InterruptedByUser",
    "JobCancelledError",
    "KeyFileError",
    "LeftByUser",
    "LocalError",
    "NoWorkerError",
    "NobodyAnsweredError",
    "ProtocolError",
    "RefusedError",
    "RevokedError",
    "SilentPeerError",
    "StalledError",
    "TooLongError",
    "UsageError",
    "VerifyError",
    "WithdrawnError",
    "printable",
]


class TooLongError(UsageError):
    """What was given is right, but more than a message of the protocol, or the start of a program, has room for."""


class GroupError(UsageError):
    """An entry of CEXEC_GROUP (or GROUP, or a relay's TARGET) cannot be understood; names the entry."""


class CertificateError(ProtocolError):
    """A certificate that is genuine but not valid now, or not for this role; the message says what the clock says."""


class RevokedError(CertificateError):
    """A certificate that its authority has revoked, or that cannot be judged because the list is missing or damaged."""


class NobodyAnsweredError(NoWorkerError):
    """No worker has said anything, so the reason is to be looked for: `cexec --explain`."""


class SilentPeerError(DisconnectedError):
    """Nothing was heard of the peer, or of its machine, for too long."""


class StalledError(SilentPeerError):
    """A worker is there, but makes no progress, or does not end a job in time."""


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
