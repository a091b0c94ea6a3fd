"""`cexec --all`: the roll is called on while jobs run, and each worker that answers is waited for, or named."""

from __future__ import annotations

from collections.abc import Iterable
from types import SimpleNamespace

from cexec.client.everywhere.gathering import Gathering
from cexec.client.everywhere.open_roll import OpenRoll
from cexec.errors import CertificateError
from cexec.protocol.base.certificate import Certificate
from cexec.protocol.decisions.census import Answer
from tests.client.everywhere.calling import START, Calling
from tests.protocol.census_workers import EXPIRED, FakeWorker, key_with
from tests.protocol.wires import APPLICATION, hello_of, job

PATIENCE = 10.0  # seconds


class FakeReport:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.missed: list[tuple[str, str]] = []  # addresses and reasons
        self.roll: list[str] = []  # addresses, when the roll is closed

    def gave_up(self, instance: bytes, address: str, reason: str) -> None:
        self.missed.append((address, reason))

    def roll_closed(self, answers: Iterable[Answer]) -> None:
        assert not self.roll, "it is closed once"
        self.roll = [answer.address for answer in answers]


class FakeTrust:
    """Trusts nobody of this name."""

    def __init__(self, distrusted: str) -> None:
        self.distrusted = distrusted

    def check(self, certificate: Certificate) -> None:
        if certificate.name == self.distrusted:
            raise CertificateError(f"certificate of {certificate.name} is revoked")


class Opened:
    """A roll that was opened with the first answer of these workers."""

    def __init__(self, *workers: FakeWorker, distrusted: str = "") -> None:
        self.calling = Calling(workers)
        self.calling.until(1.0, lambda: self.calling.call.demands_met)
        now = self.calling.now
        self.gathering = Gathering(job(), PATIENCE, now)
        self.report = FakeReport()
        trust = FakeTrust(distrusted)
        self.roll = OpenRoll(self.calling.call, self.gathering, self.report, lambda: trust, now)  # type: ignore[arg-type, return-value]
        self.calling.hear = self.roll.hear
        self.calling.advance = self.roll.advance

    def take(self, worker: FakeWorker) -> None:
        """Lets a worker have the job."""
        hello = hello_of(APPLICATION.worker, instance=worker.instance)
        self.gathering.took(SimpleNamespace(hello=hello))  # type: ignore[arg-type]

    def close(self) -> None:
        self.calling.until(2.0, lambda: self.calling.call.closed)


def test_the_first_worker_has_the_job_before_the_others_have_answered_and_all_are_waited_for() -> None:
    workers = [FakeWorker(number) for number in range(4)]
    opened = Opened(*workers)
    (first,) = opened.gathering.race.until
    opened.take(workers[first[-1]])
    assert not opened.gathering.complete and opened.report.roll == []
    assert opened.roll.next_timeout() == opened.calling.call.next_timeout() < START + 0.1
    opened.close()
    assert len(opened.report.roll) == 4 and len(opened.gathering.race.until) == 3
    assert not opened.gathering.complete
    for worker in workers:
        opened.take(worker)
    assert opened.gathering.complete and opened.roll.next_timeout() == float("inf")


def test_a_worker_that_connects_before_its_answer_comes_is_in_the_roll_once() -> None:
    workers = [FakeWorker(0), FakeWorker(1, slow=0.04)]
    opened = Opened(*workers)
    opened.take(workers[1])
    opened.take(workers[0])
    opened.close()
    assert opened.report.roll == [worker.address for worker in workers]
    assert opened.gathering.complete and opened.report.missed == []


def test_workers_that_cannot_be_trusted_are_given_up_once_and_nobody_waits_for_them() -> None:
    good, revoked, expired = FakeWorker(0), FakeWorker(1, key_with("box", None), slow=0.03), FakeWorker(2, EXPIRED)
    opened = Opened(good, revoked, expired, distrusted="box")
    opened.take(good)
    opened.close()
    assert dict(opened.report.missed).keys() == {revoked.address, expired.address}
    assert len(opened.report.missed) == 2
    assert dict(opened.report.missed)[revoked.address] == "certificate of box is revoked"
    assert "expired" in dict(opened.report.missed)[expired.address]
    assert len(opened.report.roll) == 3 and opened.gathering.complete


def test_a_worker_that_was_started_after_the_announcement_is_not_in_the_roll() -> None:
    old, young = FakeWorker(0, uptime=60), FakeWorker(1, slow=1.5)
    opened = Opened(old, young)
    opened.calling.now = START + 1.6
    opened.close()
    assert opened.report.roll == [old.address] and young.instance not in opened.gathering.race.until


def test_a_worker_that_has_the_job_is_not_judged_again_when_its_answer_comes() -> None:
    box = FakeWorker(1, key_with("box", None), slow=0.03)
    opened = Opened(FakeWorker(0), box, distrusted="box")
    opened.take(box)
    opened.close()
    assert opened.report.missed == []


def test_a_worker_is_given_up_when_its_time_is_over_also_while_the_roll_is_open() -> None:
    late = FakeWorker(1, slow=0.04)
    opened = Opened(FakeWorker(0), late)
    opened.gathering.race.until = dict.fromkeys(opened.gathering.race.until, opened.calling.now + 0.001)
    opened.calling.now += 0.001
    opened.calling.turn()
    assert opened.report.missed == [("10.0.0.1", "did not connect")] and opened.report.roll == []
    opened.close()
    opened.roll.advance(START + 5.0 + PATIENCE)
    assert opened.report.missed == [("10.0.0.1", "did not connect"), (late.address, "did not connect")]
