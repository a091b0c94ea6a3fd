"""The logger's lines: one that closes a job, one for each failed attempt, whoever tells of it and how often."""

from __future__ import annotations

import shlex
import tracemalloc

import pytest

from cexec.logger.allowances import TOO_FAST, LeftAlone
from cexec.logger.reporter import MAXIMUM_ABANDONED, MAXIMUM_ATTEMPTS, MAXIMUM_WORKERS, VANISHED_AFTER, Reporter
from cexec.protocol.base.keys import OwnerKey
from cexec.protocol.datagrams import alert
from cexec.protocol.datagrams.alert import Alert
from cexec.protocol.decisions.ledger import Gap

OWNER = OwnerKey(b"\x05" * 32)
CLIENT = OWNER.client_key().identity.certificate
WORKER = OWNER.worker_key("w1").identity.certificate


def told(
    outcome: int, attempt: int = 1, job: bytes = b"j" * 16, status: int = 0, complaint: int = 0, at: str = "10.0.0.3"
) -> Alert:
    by_worker = outcome in (alert.COMPLETED, alert.ABANDONED)
    return Alert(
        outcome=outcome, certificate=WORKER if by_worker else CLIENT, job_id=job, attempt=attempt, status=status,
        client_name="alice", client_address="10.0.0.6", worker_name="w1", worker_address=at,
        complaint=complaint,
        duration=1500, received=10, sent=20,
    )  # fmt: skip


def texts(journal: Reporter, *alerts: Alert, now: float = 0.0) -> list[str]:
    return [line.text for one in alerts for line in journal.take(one, "foo.pub", "10.9.9.9", now)]


def test_a_completed_job_is_told_in_the_ancestors_words() -> None:
    (line,) = Reporter().take(told(alert.COMPLETED, status=1), "foo.pub", "10.9.9.9", 0.0)
    assert line.text == "10.0.0.6 completed by 10.0.0.3 for foo.pub exit code 1"
    expected = {"job": "6a" * 16, "attempt": 1, "client": "alice", "worker": "w1", "duration": "1.500"}
    assert expected.items() <= line.fields.items()
    assert {"received": 10, "sent": 20, "status": 1}.items() <= line.fields.items()


@pytest.mark.parametrize("outcome", [alert.COMPLETED, alert.ABANDONED, alert.COMPLAINT])
def test_what_a_peer_calls_an_address_cannot_tell_a_line(outcome: int) -> None:
    """Regression: an address of several words put another worker, status and job into the line of its sender."""
    evil = '10.0.0.3 for foo.pub exit code 0 job=00 worker="good" status=0'
    reporter = Reporter()
    one = told(outcome, at=evil)
    one.client_address = evil
    lines = [*reporter.take(one, "foo.pub", "10.9.9.9", 0.0), *reporter.due(VANISHED_AFTER + 1.0)]
    assert lines
    for line in lines:
        words = shlex.split(line.text)
        assert words.count(evil) == 2 and "worker=good" not in words and "10.0.0.3" not in words


def test_a_job_is_closed_once_and_an_attempt_told_once() -> None:
    journal = Reporter()
    assert texts(
        journal,
        told(alert.ABANDONED, 1),
        told(alert.COMPLAINT, 1),
        told(alert.COMPLAINT, 2),
        told(alert.COMPLETED, 3),
        told(alert.COMPLETED, 2),
    ) == [
        "10.0.0.6 rats out 10.0.0.3 for foo.pub",
        "10.0.0.6 rats out 10.0.0.3 for foo.pub",
        "10.0.0.6 completed by 10.0.0.3 for foo.pub exit code 0",
    ]
    assert journal.due(1e9) == []


def test_a_client_that_gives_up_closes_its_job() -> None:
    assert texts(Reporter(), told(alert.COMPLAINT, 1), told(alert.GAVE_UP, 1)) == [
        "10.0.0.6 rats out 10.0.0.3 for foo.pub",
        "10.0.0.6 gave up for foo.pub",
    ]


@pytest.mark.parametrize(
    ("first", "second", "closing"),
    [
        (alert.COMPLETED, alert.GAVE_UP, "10.0.0.6 gave up for foo.pub after 10.0.0.3 completed it with exit code 7"),
        (
            alert.GAVE_UP, alert.COMPLETED,
            "10.0.0.6 completed by 10.0.0.3 for foo.pub exit code 7 after the client gave up",
        ),
    ],
)  # fmt: skip
def test_a_job_whose_exit_frame_was_lost_is_told_with_both_ends(first: int, second: int, closing: str) -> None:
    """Regression: the only closing line said "completed", and nothing that the client had given up."""
    journal = Reporter()
    assert len(texts(journal, told(first, status=7), told(alert.COMPLAINT))) == 2
    (line,) = journal.take(told(second, status=7 if second == alert.COMPLETED else 0), "foo.pub", "10.9.9.9", 0.0)
    assert line.text == closing
    assert (line.fields["job"], line.fields["status"]) == ("6a" * 16, 7)
    assert texts(journal, told(alert.GAVE_UP), told(alert.COMPLETED), told(alert.GAVE_UP)) == []


def test_a_job_that_was_repeated_because_its_exit_frame_was_lost_is_told_with_both_workers() -> None:
    journal = Reporter()
    assert texts(
        journal, told(alert.COMPLETED, 1), told(alert.COMPLAINT, 1), told(alert.COMPLETED, 2, status=1, at="10.0.0.4")
    ) == [
        "10.0.0.6 completed by 10.0.0.3 for foo.pub exit code 0",
        "10.0.0.6 rats out 10.0.0.3 for foo.pub",
        "10.0.0.6 completed by 10.0.0.4 for foo.pub exit code 1 after 10.0.0.3 completed it with exit code 0",
    ]  # fmt: skip
    assert texts(journal, told(alert.COMPLETED, 1), told(alert.COMPLETED, 2)) == []


def test_a_client_that_comes_back_after_it_has_vanished_is_told() -> None:
    journal = Reporter()
    assert texts(journal, told(alert.ABANDONED)) == ["10.0.0.6 rats out 10.0.0.3 for foo.pub"]
    assert len(journal.due(VANISHED_AFTER)) == 1
    assert texts(journal, told(alert.COMPLETED, 2)) == [
        "10.0.0.6 completed by 10.0.0.3 for foo.pub exit code 0 after the client vanished"
    ]
    assert texts(journal, told(alert.ABANDONED, 3)) == ["10.0.0.6 rats out 10.0.0.3 for foo.pub"]
    assert journal.next_timeout() is None


def test_a_client_that_vanishes_closes_its_job_after_a_while() -> None:
    journal = Reporter()
    assert texts(journal, told(alert.ABANDONED)) == ["10.0.0.6 rats out 10.0.0.3 for foo.pub"]
    assert journal.next_timeout() == VANISHED_AFTER
    assert journal.due(VANISHED_AFTER - 1) == []
    assert [line.text for line in journal.due(VANISHED_AFTER)] == ["10.0.0.6 vanished from 10.0.0.3 for foo.pub"]
    assert journal.due(1e9) == [] and journal.next_timeout() is None


def test_a_complaint_has_its_word() -> None:
    number = alert.COMPLAINTS.index("timed out")
    (line,) = Reporter().take(told(alert.COMPLAINT, complaint=number), "foo.pub", "10.9.9.9", 0.0)
    assert line.fields["complaint"] == "timed out"


def test_a_gap_and_an_unknown_key() -> None:
    assert Reporter().gap(Gap(b"s" * 16, "w1", 4, 6)).text == "gap: 3 alerts of w1 did not arrive"
    assert Reporter().unknown("98dd82a7", "10.0.0.9").text == "10.0.0.9 alerts for unknown key (0x98dd82a7)"


def test_the_table_adds_up() -> None:
    journal = Reporter()
    for number in range(3):
        texts(journal, told(alert.COMPLETED, job=bytes([number]) * 16, status=number))
    texts(journal, told(alert.COMPLAINT, job=b"x" * 16))
    head, row = journal.table()
    assert dict(zip(head, row, strict=True)) == {
        "worker": "w1@10.0.0.3", "jobs": "3", "failed": "2", "abandoned": "0", "complaints": "1", "seconds": "4.5",
        "mean": "1.500", "received": "30", "sent": "60",
    }  # fmt: skip


def job_id(number: int) -> bytes:
    return number.to_bytes(16, "big")


def test_made_up_jobs_workers_and_attempts_cost_little_memory() -> None:
    """A holder of a key can invent as many as he likes.  0.1.0 kept all workers, and whole alerts of 100,000 jobs."""
    journal, workers = Reporter(), MAXIMUM_ABANDONED + 500
    assert workers > MAXIMUM_WORKERS
    tracemalloc.start()
    try:
        for number in range(workers):
            texts(journal, told(alert.COMPLETED, job=job_id(number), at=str(number)))
            texts(journal, told(alert.ABANDONED, job=job_id(10**6 + number)))
        before, _ = tracemalloc.get_traced_memory()
        for number in range(5000):
            texts(journal, told(alert.COMPLAINT, attempt=number))
        after, _ = tracemalloc.get_traced_memory()
        assert before < 15_000_000 and after - before < 100_000
    finally:
        tracemalloc.stop()
    assert len(journal.table()) == 1 + MAXIMUM_WORKERS + 1
    assert sum(int(row[1]) for row in journal.table()[1:]) == workers


def test_attempts_of_one_job_beyond_a_bound_have_no_line() -> None:
    journal = Reporter()
    assert len(texts(journal, *(told(alert.COMPLAINT, attempt=number) for number in range(1000)))) == MAXIMUM_ATTEMPTS


def test_of_too_many_abandoned_jobs_the_oldest_is_closed_early() -> None:
    journal = Reporter()
    for number in range(MAXIMUM_ABANDONED):
        texts(journal, told(alert.ABANDONED, job=job_id(number)))
    assert journal.due(0.0) == []
    texts(journal, told(alert.ABANDONED, job=job_id(MAXIMUM_ABANDONED)))
    (line,) = journal.due(0.0)
    assert "vanished" in line.text and line.fields["job"] == job_id(0).hex()
    assert len(journal.due(VANISHED_AFTER)) == MAXIMUM_ABANDONED


def test_what_was_left_alone_is_a_gap() -> None:
    line = Reporter().left_alone(LeftAlone(3, "w1", TOO_FAST))
    assert line.text == "gap: alerts, 3 of w1 were not written: they come too fast"
    assert Reporter().left_alone(LeftAlone(1, "", TOO_FAST)).text == "gap: alerts, 1 were not read: they come too fast"
