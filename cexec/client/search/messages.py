"""What a client says of workers: to the person who waits, and in the ancestor's words to programs.

Contract: texts, no input and no output.
"""

from __future__ import annotations

from cexec.errors import CexecError, DisconnectedError, ProtocolError, VerifyError
from cexec.protocol.datagrams.hello import UNREACHABLE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cexec.protocol.datagrams.hello import Hello


def ancestors_words(error: CexecError) -> str:
    """What CEXEC_FD_FOR_ERRORS gets for what a peer did."""
    if isinstance(error, VerifyError):
        return "signature didn't verify"
    if isinstance(error, ProtocolError):
        return "violated protocol"
    if isinstance(error, DisconnectedError):
        return "disconnected unexpectedly"
    return str(error)


def complaint(answer: Hello) -> str:
    """Why a worker that has answered does not take the job."""
    if answer.purpose == UNREACHABLE:
        what = f"heard you, but cannot connect to {answer.detail}; does a firewall on this machine block it?"
    else:
        what = f"refuses: {answer.detail}"
    return f"worker {answer.name} {what}"


def count(number: int, noun: str) -> str:
    """`1 worker`, `2 workers`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
