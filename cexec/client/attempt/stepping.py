"""One step of an attempt, which all three drivers make between two waits.

Contract: `advance` lets the pump move bytes, waiting for at most `timeout` seconds, and passes its events to the
attempt.  It asks the kernel about the worker's machine when that is due, and judges only by a time after which all that
had come was read: this process may have been stopped meanwhile.  It raises no error for a fault of the worker or of the
connection: these become events of the attempt.
"""

from __future__ import annotations

from time import monotonic

from cexec.errors import CexecError
from cexec.net.liveness import unacknowledged

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cexec.client.attempt.attempt import Attempt
    from cexec.net.pump import Pump


def advance(attempt: Attempt, pump: Pump, timeout: float | None) -> None:
    """Makes one step."""
    now = monotonic()
    try:
        attempt.receive(pump.step(timeout))
    except CexecError as error:
        attempt.connection_failed(error)
    if not attempt.over and pump.read_all and attempt.stepped(now):
        attempt.looked(*unacknowledged(pump.connection), now)
