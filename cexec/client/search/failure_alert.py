"""The alert that a client sends to the loggers, and to the worker, after an attempt or a whole job has failed.

Contract: `send_alert` sends one datagram to where the announcements went, best effort: it raises nothing, waits for
nothing and takes about a millisecond.  Imported only when something has failed.  docs/protocol.md section 5.2.
"""

from __future__ import annotations

from time import time

from cexec.errors import (
    CexecError,
    DisconnectedError,
    LocalError,
    NoWorkerError,
    ProtocolError,
    SilentPeerError,
    VerifyError,
)
from cexec.protocol.base.limits import IDENTITY_SIZE, MAXIMUM_HOPS
from cexec.protocol.datagrams import alert
from cexec.protocol.datagrams.alert import Alert

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cexec.client.search.reception import Winner
    from cexec.net.announcer import Announcer
    from cexec.protocol.base.keys import ClientKey

GAVE_UP = alert.COMPLAINTS.index("gave up")
ANCESTORS_CLUSTER = "[cluster]"  # the name that the ancestor puts where no single worker is meant


def complaint_for(error: CexecError) -> int:
    """Returns the number of the protocol's word for this error."""
    word = "refused"
    if isinstance(error, NoWorkerError):
        word = "no answer"
    elif isinstance(error, LocalError):
        word = "gave up"
    elif isinstance(error, VerifyError):
        word = "signature"
    elif isinstance(error, ProtocolError):
        word = "protocol"
    elif isinstance(error, DisconnectedError):
        word = "timed out" if isinstance(error, SilentPeerError) else "disconnected"
    return alert.COMPLAINTS.index(word)


class FailedAttempt:
    """An attempt that has failed, or the search for a worker: then `winner` is None.  `duration`: in seconds.

    Without `blame` only the loggers are told: the worker is named, but not by its instance, so it does not take it as a
    complaint about itself.
    """

    __slots__ = ("attempt", "blame", "duration", "job_id", "winner")

    def __init__(
        self, job_id: bytes, attempt: int, winner: Winner | None, duration: float, *, blame: bool = True
    ) -> None:
        self.job_id = job_id
        self.attempt = attempt
        self.blame = blame
        self.winner = winner
        self.duration = duration


def send_alert(key: ClientKey, announcer: Announcer, failed: FailedAttempt, error: CexecError, *, final: bool) -> None:
    """Sends the alert to the group of `announcer`, which may be closed.  `final`: the whole job has failed."""
    winner = failed.winner
    certificate = key.identity.certificate
    told = Alert(
        outcome=alert.GAVE_UP if final else alert.COMPLAINT,
        complaint=GAVE_UP if final and winner is not None else complaint_for(error),
        certificate=certificate,
        job_id=failed.job_id,
        attempt=failed.attempt,
        client_name=certificate.name,
        client_address="" if winner is None else winner.local_address,
        worker_name="" if winner is None else winner.hello.name,
        worker_address=ANCESTORS_CLUSTER if winner is None else winner.address,
        instance=bytes(IDENTITY_SIZE) if winner is None or not failed.blame else winner.hello.instance,
        clock=int(time() * 1000),
        duration=round(failed.duration * 1000),
    )
    try:
        announcer.send_parting(alert.encode_alert(key, told, MAXIMUM_HOPS))
    except (OSError, ValueError):
        pass  # an alert is best effort: the exit status is what counts
