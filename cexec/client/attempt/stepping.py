"""One step of an attempt, which all three drivers make between two waits.

Contract: `advance` lets the pump move bytes, waiting for at most `timeout` seconds, and passes its events to the
attempt.  When that is due, it asks the kernel about the worker's machine, `watch` if the worker has been revoked, and
the attempt's patience if the worker gets on.
It judges only by a time after which all that had come was read: this process may have been stopped meanwhile.
`take_turn` judges nothing by the time and waits for nothing; its caller knows if the connection is readable.  Both
raise no error for a fault of the worker or of the connection: these become events of the attempt.
`next_timeout(attempt, watch)` says when `advance` is due although nothing has come.
"""

from __future__ import annotations

from time import monotonic

from cexec.common_errors import CexecError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cexec.client.attempt.attempt import Attempt
    from cexec.client.attempt.in_turn import AttemptsInTurn
    from cexec.client.search.trust import RevocationWatch
    from cexec.net.pump import Pump


def next_timeout(attempt: Attempt, watch: RevocationWatch | None) -> float | None:
    """Returns the earlier of the two times, if there is one."""
    due = attempt.next_timeout()
    if watch is None or attempt.over:
        return due
    return watch.next_timeout() if due is None else min(due, watch.next_timeout())


def take_turn(attempt: AttemptsInTurn, pump: Pump, readable: bool) -> None:
    """Makes one step that judges nothing by the time."""
    now = monotonic()
    try:
        attempt.receive(pump.turn(readable))
    except CexecError as error:
        attempt.connection_failed(error)
    attempt.stepped(now)


def advance(
    attempt: Attempt | AttemptsInTurn,
    pump: Pump,
    timeout: float | None,
    watch: RevocationWatch | None = None,
    *,
    carries: bool = False,
) -> None:
    """Makes one step.  `carries`: it may last while bytes come and go, because the driver does nothing with them."""
    now = monotonic()
    try:
        if carries and attempt.patience is None:
            from cexec.net.carrying import carry  # most jobs are over before

            attempt.receive(carry(pump, timeout))
        else:
            attempt.receive(pump.step(timeout))
    except CexecError as error:
        attempt.connection_failed(error)
    if not attempt.over and pump.read_all and attempt.stepped(now):
        from cexec.net.liveness import unacknowledged  # most jobs are over before a look is due

        attempt.looked(*unacknowledged(pump.connection), now)
    if attempt.patience is not None and not attempt.over and pump.read_all:
        try:
            attempt.patience.looked(pump.moved, now, monotonic(), ours=pump.waits_here)
        except CexecError as error:
            attempt.connection_failed(error)
    if watch is not None and not attempt.over:
        try:
            watch.look(monotonic())
        except CexecError as error:
            attempt.connection_failed(error)
