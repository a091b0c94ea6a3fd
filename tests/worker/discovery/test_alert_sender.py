"""What a worker makes of alerts: complaints about itself and about jobs that it was given."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cexec.protocol.base.certificate import Certificate
from cexec.protocol.base.limits import IDENTITY_SIZE
from cexec.protocol.datagrams import alert, datagram
from cexec.protocol.datagrams.alert import Alert, encode_alert
from cexec.protocol.decisions.bid import Bidder, Outcome
from cexec.protocol.decisions.reputation import COMPLAINT_DELAY, PROVED_COMPLAINTS
from cexec.system.storage.series import Series
from cexec.worker.discovery.alert_sender import MAXIMUM_GIVEN, AlertSender
from tests.protocol.wires import APPLICATION, INSTANCE

JOB, OTHER_JOB = b"j" * IDENTITY_SIZE, b"o" * IDENTITY_SIZE
IDENTITY = b"m" * 16


class Silent:
    """What is needed of an `Announcer`."""

    def send(self, data: bytes) -> None:
        raise AssertionError("nothing is to be sent")


class Worker:
    def __init__(self, revoked: Callable[[Certificate], bool] = lambda certificate: False) -> None:
        self.bidder = Bidder(slots=1, random=lambda: 0.5)
        self.alerts = AlertSender(
            key=APPLICATION.worker,
            instance=INSTANCE,
            series=Series(None, ""),
            announcer=Silent(),  # type: ignore[arg-type]
            bidder=self.bidder,
            revoked=revoked,
        )

    def run(self, job_id: bytes, identity: bytes = IDENTITY) -> None:
        """Up to GO."""
        self.bidder.consider(identity, 1, 15.0, 0.0)
        assert self.bidder.next_event() is not None and self.bidder.reserved(identity, 0.0)
        self.bidder.started(identity, 0.0)
        self.alerts.given(job_id, 1, identity)

    def complain(self, job_id: bytes, instance: bytes = INSTANCE) -> None:
        told = Alert(
            outcome=alert.COMPLAINT,
            certificate=APPLICATION.client.identity.certificate,
            job_id=job_id,
            attempt=1,
            client_name="c",
            client_address="10.0.0.6",
            worker_name="w",
            worker_address="10.0.0.3",
            instance=instance,
        )
        parsed = datagram.parse(encode_alert(APPLICATION.client, told, 8), (APPLICATION.worker.mac1_key,))
        assert parsed is not None
        self.alerts.hear_alert(parsed, 0.0)


@pytest.mark.parametrize("ended", [True, False])
def test_a_complaint_about_a_job_that_was_given_to_it_counts_for_more_also_before_it_knows_that_the_job_is_over(
    ended: bool,
) -> None:
    """Regression: a worker whose jobs died before they had started was slowed like one that nobody had given a job."""
    worker = Worker()
    worker.run(JOB)
    if ended:
        worker.bidder.finished(IDENTITY, Outcome.BROKEN, 0.1, 0.0)
    for _ in range(3):  # copies
        worker.complain(JOB)
    assert worker.bidder.penalty == COMPLAINT_DELAY * PROVED_COMPLAINTS


def test_a_complaint_about_a_job_that_it_never_had_is_an_ordinary_one_and_one_about_another_worker_none() -> None:
    worker = Worker()
    worker.run(JOB)
    worker.complain(JOB, b"another instance")
    assert worker.bidder.penalty == 0.0
    worker.complain(OTHER_JOB)
    assert worker.bidder.penalty == COMPLAINT_DELAY


def test_the_complaint_of_a_revoked_client_does_not_count() -> None:
    worker = Worker(revoked=lambda certificate: certificate.serial == 1)
    worker.run(JOB)
    worker.complain(JOB)
    worker.complain(OTHER_JOB)
    assert worker.bidder.penalty == 0.0


def test_no_more_jobs_are_remembered_than_there_is_room_for() -> None:
    worker = Worker()
    worker.run(JOB)
    for number in range(MAXIMUM_GIVEN):
        worker.alerts.given(number.to_bytes(IDENTITY_SIZE, "big"), 1, bytes(16))
    worker.complain(JOB)
    assert worker.bidder.penalty == COMPLAINT_DELAY
