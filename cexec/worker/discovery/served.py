"""The applications that a worker serves: usually one, and two while its keys are exchanged.

Contract: a `Served` is everything that belongs to one application's key.  Parts that concern all of them know it by its
index, which is that of its mac1 key in `GroupReceiver` and `Known.application`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cexec.protocol.datagrams import datagram

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cexec.net.announcer import Announcer
    from cexec.protocol.base.keys import WorkerKey
    from cexec.worker.discovery.admission import Admission
    from cexec.worker.discovery.alert_sender import AlertSender
    from cexec.worker.discovery.answers import Answers
    from cexec.worker.discovery.presence_sender import PresenceSender


@dataclass(slots=True)
class Served:
    """One application: its key, the clients that it admits, and what the worker says to clients and to the group."""

    key: WorkerKey
    admission: Admission
    answers: Answers
    presences: PresenceSender
    alerts: AlertSender


def hear_loggers(announcer: Announcer, served: Sequence[Served]) -> None:
    """Reads the loggers' answers, which come to the socket that all alerts are sent from."""
    keys = [one.key.mac1_key for one in served]
    for data, _ in announcer.receive():
        parsed = datagram.parse(data, keys)
        if parsed is not None:
            served[parsed.key].alerts.hear_acknowledgement(parsed)
