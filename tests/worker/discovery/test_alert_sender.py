"""What a worker makes of alerts: complaints about jobs that it was given, and how the jobs of rivals ended."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from cexec.protocol.base.certificate import ROLE_CLIENT, Certificate, Identity
from cexec.protocol.base.keys import ClientKey, WorkerKey
from cexec.protocol.base.limits import IDENTITY_SIZE
from cexec.protocol.base.sodium import signing_public_key
from cexec.protocol.datagrams import alert, datagram
from cexec.protocol.datagrams.alert import Alert, encode_alert, job_key
from cexec.protocol.decisions.bid import Bidder, Connect, Outcome
from cexec.protocol.decisions.complaints import COMPLAINT_DELAY
from cexec.protocol.decisions.rivals import CLAIM_LIFETIME, YIELDING_TO_HEALTHY
from cexec.system.storage.series import Series
from cexec.worker.discovery.alert_sender import MAXIMUM_GIVEN, PASSING_BURST, AlertedJob, AlertSender, GivenJob
from tests.protocol.wires import APPLICATION, INSTANCE

JOB, OTHER_JOB = b"j" * IDENTITY_SIZE, b"o" * IDENTITY_SIZE
IDENTITY = b"m" * 16
CLIENT = APPLICATION.client.identity.certificate.public_key
RIVAL = b"r" * IDENTITY_SIZE


def alerted(job_id: bytes) -> AlertedJob:
    return AlertedJob(job_id, 1, "c", "10.0.0.6", "10.0.0.3")


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
        self.bidder.consider(identity, 1, 15.0, 0.0, targeted=True)
        assert self.bidder.next_event() is not None and self.bidder.reserved(identity, 0.0)
        self.bidder.started(identity, 0.0)
        self.alerts.given(alerted(job_id), GivenJob(identity, CLIENT))

    def complain(self, job_id: bytes, instance: bytes = INSTANCE, client: ClientKey = APPLICATION.client) -> None:
        self.hear(client, alert.COMPLAINT, job_id, instance)

    def rival_says(self, outcome: int, clock: float, now: float = 0.0) -> None:
        """`clock`: seconds since 1970."""
        self.hear(APPLICATION.worker, outcome, OTHER_JOB, RIVAL, clock, now)

    def hear(
        self,
        key: ClientKey | WorkerKey,
        outcome: int,
        job_id: bytes,
        instance: bytes,
        clock: float = 0.0,
        now: float = 0.0,
    ) -> None:
        told = Alert(
            outcome=outcome,
            certificate=key.identity.certificate,
            job_id=job_id,
            attempt=1,
            client_name=key.identity.certificate.name,
            client_address="10.0.0.6",
            worker_name=key.identity.certificate.name,
            worker_address="10.0.0.3",
            instance=instance,
            clock=int(clock * 1000),
        )
        parsed = datagram.parse(encode_alert(key, told, 8), (APPLICATION.worker.mac1_key,))
        assert parsed is not None
        self.alerts.hear_alert(parsed, now)

    def rest(self) -> float:
        """The seconds that it rests after a complaint about its job."""
        self.run(JOB)
        self.bidder.finished(IDENTITY, Outcome.BROKEN, 0.1, 0.0)
        self.complain(JOB)
        self.bidder.consider(b"n" * 16, 1, 3600.0, 0.0)
        now = 0.0
        while True:
            while (event := self.bidder.next_event()) is not None:
                if isinstance(event, Connect):
                    return now
            due = self.bidder.next_timeout()
            assert due is not None
            now = due
            self.bidder.handle_timeout(now)


@pytest.mark.parametrize("ended", [True, False])
def test_a_complaint_about_a_job_that_was_given_to_it_counts_also_before_it_knows_that_the_job_is_over(
    ended: bool,
) -> None:
    """Regression: a worker whose jobs died before they had started was slowed like one that nobody had given a job."""
    worker = Worker()
    worker.run(JOB)
    if ended:
        worker.bidder.finished(IDENTITY, Outcome.BROKEN, 0.1, 0.0)
    for _ in range(3):  # copies
        worker.complain(JOB)
    assert worker.bidder.penalty == COMPLAINT_DELAY


def test_a_complaint_about_a_job_that_it_never_had_or_about_another_worker_counts_for_nothing() -> None:
    """Regression: one invented complaint in 31 s took an honest worker's whole share."""
    worker = Worker()
    worker.run(JOB)
    worker.complain(JOB, b"another instance")
    worker.complain(OTHER_JOB)
    assert worker.bidder.penalty == 0.0


def test_a_complaint_of_another_client_than_the_one_that_gave_the_job_counts_for_nothing() -> None:
    worker = Worker()
    worker.run(JOB)
    seed, known = b"\x05" * 32, APPLICATION.client
    authority = APPLICATION.owner.authority_seed
    certificate = Certificate.issue(authority, ROLE_CLIENT, "other", 1, signing_public_key(seed))
    other = ClientKey(known.worker_public, known.psk, known.authority_public, Identity(certificate, seed))
    worker.complain(JOB, client=other)
    assert worker.bidder.penalty == 0.0
    worker.complain(JOB)
    assert worker.bidder.penalty == COMPLAINT_DELAY


def test_the_complaint_of_a_revoked_client_does_not_count() -> None:
    worker = Worker(revoked=lambda certificate: certificate.serial == 1)
    worker.run(JOB)
    worker.complain(JOB)
    worker.complain(OTHER_JOB)
    assert worker.bidder.penalty == 0.0


def test_a_complaint_about_a_result_that_the_client_has_acknowledged_counts_for_nothing() -> None:
    worker = Worker()
    worker.run(JOB)
    worker.bidder.finished(IDENTITY, Outcome.SUCCEEDED, 1.0, 1.0)
    worker.bidder.acknowledged(IDENTITY, 1.0)
    worker.alerts.acknowledged(alerted(JOB))
    worker.complain(JOB)
    assert worker.bidder.penalty == 0.0


def test_it_rests_for_a_rival_that_completes_jobs_but_not_for_one_that_has_lost_its_last_one() -> None:
    now = time.time()
    worker = Worker()
    worker.rival_says(alert.COMPLETED, now)
    assert worker.rest() == pytest.approx(YIELDING_TO_HEALTHY * COMPLAINT_DELAY, abs=0.1)
    worker = Worker()
    worker.rival_says(alert.COMPLETED, now - 1.0)
    worker.rival_says(alert.ABANDONED, now)
    worker.rival_says(alert.COMPLETED, now - 1.0)  # replayed
    assert worker.rest() == pytest.approx(1.0, abs=0.1)


def test_it_does_not_rest_for_a_rival_of_which_a_client_complains_either() -> None:
    """Regression: of two workers that were complained about, each rested for 5 s and more for the sake of the other."""
    now = time.time()
    worker = Worker()
    worker.rival_says(alert.COMPLETED, now - 1.0)
    worker.hear(APPLICATION.client, alert.COMPLAINT, OTHER_JOB, RIVAL, now)
    assert worker.rest() == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize(("complained", "rest"), [(False, CLAIM_LIFETIME), (True, 1.0)])
def test_it_does_not_rest_for_the_claim_of_a_job_that_it_has_lost_before_it_was_told_to_go(
    complained: bool, rest: float
) -> None:
    """Regression: a client chose this worker, the connection was cut, and it rested for 5 s for the sake of a rival."""
    worker = Worker()
    worker.bidder.competition.rival_won(job_key(OTHER_JOB, 1), 0.0)
    if complained:
        worker.hear(APPLICATION.client, alert.COMPLAINT, OTHER_JOB, INSTANCE, time.time())
    assert worker.rest() == pytest.approx(rest, abs=0.1)


def test_a_recorded_alert_of_a_rival_is_no_sign_of_it() -> None:
    """Regression: two recorded alerts, replayed, slowed a worker."""
    worker = Worker()
    worker.rival_says(alert.COMPLETED, time.time() - 3600.0)
    assert worker.bidder.competition.alone(0.0)
    assert worker.rest() == pytest.approx(0.1, abs=0.01)


def test_no_more_jobs_are_remembered_than_there_is_room_for() -> None:
    worker = Worker()
    worker.run(JOB)
    for number in range(MAXIMUM_GIVEN):
        worker.alerts.given(alerted(number.to_bytes(IDENTITY_SIZE, "big")), GivenJob(bytes(16), CLIENT))
    worker.complain(JOB)
    assert worker.bidder.penalty == 0.0


# What costs CPU time


@pytest.fixture
def proofs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was proved."""
    made: list[str] = []
    prove = alert.Author.prove

    def noting(author: alert.Author, key: ClientKey | WorkerKey) -> None:
        made.append("proof")
        prove(author, key)

    monkeypatch.setattr(alert.Author, "prove", noting)
    return made


def test_alerts_that_change_nothing_are_not_proved(proofs: list[str]) -> None:
    """0.1.0 verified two signatures, 190 microseconds, for each alert that it heard."""
    worker = Worker()
    worker.run(JOB)
    worker.complain(OTHER_JOB)
    worker.complain(JOB, RIVAL)
    worker.rival_says(alert.COMPLETED, time.time() - 3600)
    assert proofs == []
    worker.rival_says(alert.COMPLETED, time.time())
    worker.complain(JOB)
    assert proofs == ["proof"] * 2


def test_acknowledgements_of_others_are_not_proved(proofs: list[str]) -> None:
    worker = Worker()
    for series in (bytes(16), b"x" * 16):
        told = alert.Acknowledgement(certificate=APPLICATION.client.identity.certificate, series=series, sequences=[1])
        parsed = datagram.parse(
            alert.encode_acknowledgement(APPLICATION.client, told, 8), [APPLICATION.client.mac1_key]
        )
        assert parsed is not None
        worker.alerts.hear_acknowledgement(parsed)
    assert proofs == []


def test_clients_alerts_are_passed_on_in_bounds() -> None:
    """Whoever sends a recorded one again and again makes the group hear no more of it than that."""

    class Group:
        sent = 0

        def send(self, data: bytes) -> None:
            self.sent += 1

    group = Group()
    key = APPLICATION.worker
    sender = AlertSender(
        key=key, instance=INSTANCE, series=Series(None, ""), announcer=group,  # type: ignore[arg-type]
        bidder=Bidder(slots=1, random=lambda: 0.5),
    )  # fmt: skip
    certificate = APPLICATION.client.identity.certificate
    for number in range(500):
        told = Alert(
            outcome=alert.GAVE_UP, certificate=certificate, job_id=number.to_bytes(16, "big"), attempt=1,
            client_name=certificate.name, client_address="", worker_name="", worker_address="",
        )  # fmt: skip
        parsed = datagram.parse(encode_alert(APPLICATION.client, told, 8), [key.mac1_key])
        assert parsed is not None
        parsed.unicast = True
        sender.hear_alert(parsed, 0.0)
    assert PASSING_BURST <= group.sent < 500
