"""What a client tells the loggers, and the worker, when an attempt or a whole job has failed.

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
    from cexec.client.search.candidate import Winner
    from cexec.net.announcer import Announcer
    from cexec.protocol.base.keys import ClientKey

GAVE_UP = alert.COMPLAINTS.index("gave up")
ANCESTORS_CLUSTER = "[cluster]"  # nobody in particular


def complaint_for(error: CexecError) -> int:
    """The number of the word that says what went wrong with a worker."""
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


def send_alert(
    *,
    key: ClientKey,
    announcer: Announcer,
    job_id: bytes,
    attempt: int,
    error: CexecError,
    final: bool,
    winner: Winner | None,
    duration: float,
) -> None:
    """`announcer` knows the group, and may be closed.  `winner`: the worker that failed, None when there was none.

    `final`: so did the job.  `duration` in seconds.
    """
    certificate = key.identity.certificate
    told = Alert(
        outcome=alert.GAVE_UP if final else alert.COMPLAINT,
        complaint=GAVE_UP if final and winner is not None else complaint_for(error),
        certificate=certificate,
        job_id=job_id,
        attempt=attempt,
        client_name=certificate.name,
        client_address="" if winner is None else winner.local_address,
        worker_name="" if winner is None else winner.hello.name,
        worker_address=ANCESTORS_CLUSTER if winner is None else winner.address,
        instance=bytes(IDENTITY_SIZE) if winner is None else winner.hello.instance,
        clock=int(time() * 1000),
        duration=round(duration * 1000),
    )
    try:
        announcer.send_parting(alert.encode_alert(key, told, MAXIMUM_HOPS))
    except (OSError, ValueError):
        pass  # nobody hears of it: the exit status is what counts
