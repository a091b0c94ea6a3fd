"""The alerts of a client after a failure: docs/protocol.md section 5.2."""

from __future__ import annotations

import pytest

from cexec.client.search.failure_alert import FailedAttempt, complaint_for, send_alert
from cexec.errors import (
    CexecError,
    DisconnectedError,
    LocalError,
    NoWorkerError,
    ProtocolError,
    RefusedError,
    SilentPeerError,
    VerifyError,
)
from cexec.protocol.base.limits import IDENTITY_SIZE
from cexec.protocol.datagrams import datagram
from cexec.protocol.datagrams.alert import COMPLAINT, COMPLAINTS, GAVE_UP, Alert, open_alert
from tests.protocol.wires import APPLICATION, hello_of

JOB_ID = b"j" * IDENTITY_SIZE


class Sent:
    """The part of an `Announcer` that is used."""

    def __init__(self, failure: OSError | None = None) -> None:
        self.datagrams: list[bytes] = []
        self._failure = failure

    def send_parting(self, data: bytes) -> None:
        self.datagrams.append(data)
        if self._failure is not None:
            raise self._failure


class Won:
    """The part of a `Winner` that is used."""

    hello = hello_of(APPLICATION.worker)
    address, local_address = "10.0.0.3", "10.0.0.6"


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (NoWorkerError("no worker answered"), "no answer"),
        (DisconnectedError("disconnected unexpectedly"), "disconnected"),
        (ProtocolError("frame is too long"), "protocol"),
        (VerifyError("record didn't verify"), "signature"),
        (SilentPeerError("peer has been silent for 600 seconds"), "timed out"),
        (LocalError("no free port"), "gave up"),
        (RefusedError("no such program", permanent=False), "refused"),
    ],
)
def test_every_failure_of_a_worker_has_its_word(error: CexecError, word: str) -> None:
    assert COMPLAINTS[complaint_for(error)] == word


def sent_alert(failed: FailedAttempt, *, final: bool) -> Alert:
    sent = Sent()
    send_alert(APPLICATION.client, sent, failed, DisconnectedError("gone"), final=final)  # type: ignore[arg-type]
    (data,) = sent.datagrams
    parsed = datagram.parse(data, (APPLICATION.client.mac1_key,))
    assert parsed is not None
    return open_alert(APPLICATION.client, parsed.inner)


@pytest.mark.parametrize(("final", "outcome", "word"), [(False, COMPLAINT, "disconnected"), (True, GAVE_UP, "gave up")])
def test_an_alert_names_the_worker_and_what_it_did(final: bool, outcome: int, word: str) -> None:
    told = sent_alert(FailedAttempt(JOB_ID, 2, Won(), 1.5), final=final)  # type: ignore[arg-type]
    assert (told.outcome, COMPLAINTS[told.complaint], told.attempt, told.duration) == (outcome, word, 2, 1500)
    assert (told.client_address, told.worker_address, told.instance) == ("10.0.0.6", "10.0.0.3", Won.hello.instance)


def test_a_worker_that_is_not_blamed_is_named_to_the_loggers_only() -> None:
    told = sent_alert(FailedAttempt(JOB_ID, 2, Won(), 1.5, blame=False), final=False)  # type: ignore[arg-type]
    assert (told.worker_name, told.worker_address) == (Won.hello.name, "10.0.0.3")
    assert told.instance == bytes(IDENTITY_SIZE)  # no worker finds itself here


def test_an_alert_that_cannot_be_sent_changes_nothing() -> None:
    sent = Sent(OSError(1, "operation not permitted"))
    failed = FailedAttempt(JOB_ID, 1, None, 0.0)
    send_alert(APPLICATION.client, sent, failed, LocalError("full disk"), final=True)  # type: ignore[arg-type]
    assert len(sent.datagrams) == 1
