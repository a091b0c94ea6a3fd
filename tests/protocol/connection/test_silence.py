"""The silence of a peer, and of one in the middle of a record, docs/protocol.md sections 4.1 and 4.4.

`tests/net/test_liveness.py` tests the silence of a host.  Regression: the receiver of a record whose length was changed
on the way waited for bytes that were never sent, and the job hung for 600 seconds.
"""

from __future__ import annotations

import pytest

from cexec.errors import ProtocolError, SilentPeerError
from cexec.protocol.base.limits import PING_INTERVAL
from cexec.protocol.connection import frames
from cexec.protocol.connection.session import Session
from cexec.protocol.connection.silence import (
    ANSWERS,
    LEAST_INTERVAL,
    LONGEST_SILENCE,
    QUIET,
    HostSilence,
    PeerSilence,
    UnfinishedRecord,
)
from tests.protocol.connection.sessions import told

PONG = 24  # bytes of a record with a PONG
IDLE = 4 * PING_INTERVAL


def asked(rule: UnfinishedRecord, now: float) -> float:
    """The peer is asked when the rule says so; returns the time."""
    due = rule.due
    assert due == now + QUIET
    assert not rule.handle_timeout(due - 0.01)
    assert rule.handle_timeout(due)
    assert rule.due is None  # it is asked once
    return due


def test_answers_that_come_alone_show_a_wrong_length() -> None:
    rule = UnfinishedRecord(PONG)
    rule.received(100, 0.0)
    now = asked(rule, 0.0)
    for _ in range(ANSWERS - 1):
        rule.received(PONG, now + 3.0)
        now = asked(rule, now + 3.0)
    rule.received(PONG, now)
    with pytest.raises(ProtocolError, match="length that was changed"):
        rule.handle_timeout(now + QUIET)


@pytest.mark.parametrize("size", [1, PONG - 1, PONG + 1, 2 * PONG, 100_000])
def test_a_record_that_comes_in_parts_is_no_violation(size: int) -> None:
    rule = UnfinishedRecord(PONG)
    now = 0.0
    for _ in range(20):
        rule.received(size, now)
        now = asked(rule, now)


def test_one_part_may_be_as_long_as_an_answer() -> None:
    rule = UnfinishedRecord(PONG)
    now = 0.0
    for size in (50, PONG, 50, PONG, 50):
        rule.received(size, now)
        now = asked(rule, now)


def test_a_peer_that_does_not_answer_is_asked_once() -> None:
    rule = UnfinishedRecord(PONG)
    rule.received(100, 0.0)
    asked(rule, 0.0)
    assert rule.due is None
    assert not rule.handle_timeout(1000.0)


def test_answers_of_an_earlier_record_do_not_count() -> None:
    rule = PeerSilence(IDLE, 0.0)
    now = 0.0
    for size in (100, *[PONG] * (ANSWERS - 1)):
        rule.part_received(size, PONG, now)
        now += QUIET
        assert rule.next_timeout() == now and rule.handle_timeout(now)
    rule.heard(now)
    for _ in range(ANSWERS):
        rule.part_received(PONG, PONG, now)
        now += QUIET
        assert rule.handle_timeout(now)


def test_a_peer_is_asked_once_and_then_given_up() -> None:
    rule = PeerSilence(IDLE, 0.0)
    times, asked_at = [0.0], []
    with pytest.raises(SilentPeerError, match=f"silent for {IDLE:.0f} seconds"):
        while times[-1] <= IDLE:
            times.append(rule.next_timeout())
            assert times[-1] > times[-2]
            asked_at += [times[-1]] if rule.handle_timeout(times[-1]) else []
    assert (asked_at, times[-1]) == ([PING_INTERVAL], IDLE)


def test_parts_of_a_record_are_no_sign_of_life() -> None:
    """Only a whole record was opened, so that it is known to be the peer's."""
    rule = PeerSilence(IDLE, 0.0)
    with pytest.raises(SilentPeerError):
        for second in range(int(IDLE) + 1):
            rule.part_received(1, PONG, float(second))
            rule.handle_timeout(float(second))
    assert second == IDLE


def test_whoever_was_stopped_gives_the_peer_its_time_again() -> None:
    rule = PeerSilence(IDLE, 0.0)
    assert rule.handle_timeout(PING_INTERVAL)
    woken = 3600.0
    assert not rule.handle_timeout(woken)  # what the peer has sent meanwhile was not read
    assert rule.next_timeout() == woken + PING_INTERVAL
    assert rule.handle_timeout(woken + PING_INTERVAL)


def test_a_peer_is_asked_by_one_ping_for_both_reasons() -> None:
    session = Session(worker=True, now=0.0)
    session.silence.part_received(1, PONG, PING_INTERVAL - QUIET)
    session.handle_timeout(PING_INTERVAL)
    assert session.data_to_send() == [frames.frame(frames.PING)]


@pytest.mark.parametrize("worker", [False, True])
def test_a_session_asks_in_the_middle_of_a_record_and_ends_with_a_wrong_length(worker: bool) -> None:
    session = Session(worker=worker, now=0.0)
    session.silence.part_received(10, PONG, 0.0)
    for now in (QUIET, 2 * QUIET):
        assert session.next_timeout() == now
        session.handle_timeout(now)
        assert session.data_to_send() == [frames.frame(frames.PING)]
        session.silence.part_received(PONG, PONG, now)
    for _ in range(2):  # failure is sticky
        with pytest.raises(ProtocolError, match="length that was changed"):
            session.handle_timeout(3 * QUIET)


def test_a_session_forgets_a_record_that_is_complete() -> None:
    session = Session(worker=False, now=0.0)
    usual = session.next_timeout()
    session.silence.part_received(10, PONG, 0.0)
    assert session.next_timeout() == QUIET
    told(session, frames.PONG, now=0.0)
    assert session.next_timeout() == usual


def test_a_host_is_dead_after_just_the_longest_silence() -> None:
    rule = HostSilence()
    rule.looked(True, 0.0, 100.0)
    rule.looked(True, LONGEST_SILENCE - LEAST_INTERVAL / 2, 100.0 + LONGEST_SILENCE - LEAST_INTERVAL / 2)
    assert rule.next_timeout() == pytest.approx(100.0 + LONGEST_SILENCE + LEAST_INTERVAL / 2)  # no closer look
    with pytest.raises(SilentPeerError, match="has not answered for 15 seconds"):
        rule.looked(True, LONGEST_SILENCE, 100.0 + LONGEST_SILENCE)
