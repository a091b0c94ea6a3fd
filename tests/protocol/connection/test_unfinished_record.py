"""A record whose length was changed on the way, docs/protocol.md section 4.1.

Regression: the receiver waited for bytes that were never sent, and the job hung for 600 seconds.
"""

from __future__ import annotations

import pytest

from cexec.errors import ProtocolError
from cexec.protocol.connection import frames
from cexec.protocol.connection.session import Session
from cexec.protocol.connection.unfinished_record import ANSWERS, QUIET, UnfinishedRecord
from tests.protocol.connection.sessions import told

PONG = 24  # bytes of a record with a PONG


def asked(rule: UnfinishedRecord, now: float) -> float:
    """The peer is asked when the rule says so; returns the time."""
    due = rule.next_timeout()
    assert due == now + QUIET
    assert not rule.handle_timeout(due - 0.01)
    assert rule.handle_timeout(due)
    assert rule.next_timeout() is None  # it is asked once
    return due


def test_answers_that_come_alone_show_a_wrong_length() -> None:
    rule = UnfinishedRecord()
    rule.received(100, PONG, 0.0)
    now = asked(rule, 0.0)
    for _ in range(ANSWERS - 1):
        rule.received(PONG, PONG, now + 3.0)
        now = asked(rule, now + 3.0)
    rule.received(PONG, PONG, now)
    with pytest.raises(ProtocolError, match="length that was changed"):
        rule.handle_timeout(now + QUIET)


@pytest.mark.parametrize("size", [1, PONG - 1, PONG + 1, 2 * PONG, 100_000])
def test_a_record_that_comes_in_parts_is_no_violation(size: int) -> None:
    rule = UnfinishedRecord()
    now = 0.0
    for _ in range(20):
        rule.received(size, PONG, now)
        now = asked(rule, now)
    rule.ended()
    assert rule.next_timeout() is None


def test_one_part_may_be_as_long_as_an_answer() -> None:
    rule = UnfinishedRecord()
    now = 0.0
    for size in (50, PONG, 50, PONG, 50):
        rule.received(size, PONG, now)
        now = asked(rule, now)


def test_a_peer_that_does_not_answer_is_asked_once() -> None:
    rule = UnfinishedRecord()
    rule.received(100, PONG, 0.0)
    asked(rule, 0.0)
    assert rule.next_timeout() is None
    assert not rule.handle_timeout(1000.0)


def test_answers_of_an_earlier_record_do_not_count() -> None:
    rule = UnfinishedRecord()
    rule.received(100, PONG, 0.0)
    now = asked(rule, 0.0)
    rule.received(PONG, PONG, now)
    now = asked(rule, now)
    rule.ended()
    rule.received(PONG, PONG, now)
    assert asked(rule, now)


@pytest.mark.parametrize("worker", [False, True])
def test_a_session_asks_in_the_middle_of_a_record_and_ends_with_a_wrong_length(worker: bool) -> None:
    session = Session(worker=worker, now=0.0)
    session.part_received(10, PONG, 0.0)
    for now in (QUIET, 2 * QUIET):
        assert session.next_timeout() == now
        session.handle_timeout(now)
        assert session.data_to_send() == [frames.frame(frames.PING)]
        session.part_received(PONG, PONG, now)
    for _ in range(2):  # failure is sticky
        with pytest.raises(ProtocolError, match="length that was changed"):
            session.handle_timeout(3 * QUIET)


def test_a_session_forgets_a_record_that_is_complete() -> None:
    session = Session(worker=False, now=0.0)
    usual = session.next_timeout()
    session.part_received(10, PONG, 0.0)
    assert session.next_timeout() == QUIET
    told(session, frames.PONG, now=0.0)
    assert session.next_timeout() == usual
