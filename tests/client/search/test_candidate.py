"""One connection to the client's listener: flights and records in pieces of any size, deadlines, and strangers."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from cexec.client.search.reception import Candidate, Winner
from cexec.errors import CexecError, DisconnectedError, ProtocolError
from cexec.protocol.base import sodium
from cexec.protocol.base.limits import CONNECT_DEADLINE, DEFAULT_IDLE_TIMEOUT
from cexec.protocol.connection import frames
from cexec.protocol.connection.channel import ClientHandshake
from tests.client.search.callers import Caller
from tests.protocol.wires import APPLICATION, INSTANCE, STRANGERS, job

START = 50.0  # seconds, on a clock that only the test moves


Pair = tuple[Candidate, Caller]


@pytest.fixture
def candidate() -> Iterator[Pair]:
    sealed = APPLICATION.announce()
    caller = Caller(sealed, INSTANCE)
    handshake = ClientHandshake(sealed.handshake(), APPLICATION.client.authority_public, sodium.aead_names(), START)
    yield Candidate(caller.connection, ("10.0.0.3", 1234), handshake, START), caller
    caller.close()


def advance(candidate: Candidate) -> bool:
    return candidate.advance(START, DEFAULT_IDLE_TIMEOUT)


def test_a_worker_proves_itself_confirms_and_gets_its_job(candidate: Pair) -> None:
    one, caller = candidate
    caller.prove()
    assert not advance(one)
    assert one.hello is not None and one.hello.instance == INSTANCE
    caller.confirm()
    assert advance(one)
    assert one.session is not None
    one.session.go(job())
    one.flush()
    assert caller.heard() == [frames.GO]
    winner = Winner(one)
    assert (winner.address, winner.local_address) == ("10.0.0.3", "127.0.0.1")
    assert (winner.connection, winner.hello, winner.session) == (caller.connection, one.hello, one.session)


def test_flight_and_confirmation_may_come_byte_by_byte(candidate: Pair) -> None:
    one, caller = candidate
    for byte in caller.flight:
        assert one.hello is None
        caller.send(bytes([byte]))
        assert not advance(one)
    assert one.hello is not None
    confirmation = caller.accept_flight().confirmation()
    confirmed = []
    for byte in confirmation:
        caller.send(bytes([byte]))
        confirmed.append(advance(one))
    assert confirmed == [False] * (len(confirmation) - 1) + [True]


def test_bytes_that_follow_the_confirmation_are_left_to_the_session(candidate: Pair) -> None:
    one, caller = candidate
    caller.prove()
    advance(one)
    caller.accept_flight()
    first = caller.confirmation()
    caller.records.send_frame(frames.frame(frames.PING))
    caller.send(first + b"".join(caller.records.data_to_send()))
    assert advance(one)
    following = one.records.next_event()
    assert following is not None and frames.parse(following)[0] == frames.PING


def test_a_ping_is_no_confirmation_and_any_other_frame_is_refused(candidate: Pair) -> None:
    one, caller = candidate
    caller.prove()
    advance(one)
    caller.accept_flight()
    caller.send_frame(frames.PING)
    assert not advance(one)
    caller.send_frame(frames.WITHDRAW, b"another job has the slot")
    with pytest.raises(ProtocolError, match="a frame that has no place here"):
        advance(one)


def test_bytes_that_follow_the_flight_before_ours_are_no_record(candidate: Pair) -> None:
    one, caller = candidate
    caller.send(caller.flight + bytes(100))
    assert not advance(one)
    assert one.hello is not None
    assert len(caller.connection.recv(1000, socket.MSG_PEEK)) == 100  # no byte behind the flight has been read
    with pytest.raises(ProtocolError, match="impossible length"):
        advance(one)


def test_nothing_to_read_changes_nothing(candidate: Pair) -> None:
    one, caller = candidate
    assert not advance(one)
    caller.prove()
    advance(one)
    assert not advance(one)
    assert one.hello is not None


@pytest.mark.parametrize("proved", [False, True])
def test_there_is_one_deadline_until_the_confirmation(candidate: Pair, proved: bool) -> None:
    one, caller = candidate
    if proved:
        caller.prove()
        advance(one)
    assert one.deadline == START + CONNECT_DEADLINE
    one.handle_timeout(one.deadline - 0.01)
    words = "did not confirm in time" if proved else "could not read signature"
    with pytest.raises(DisconnectedError, match=words):
        one.handle_timeout(one.deadline)


@pytest.mark.parametrize("size", [0, 1, 100, None])
def test_a_worker_that_hangs_up_is_named(candidate: Pair, size: int | None) -> None:
    one, caller = candidate
    caller.send(caller.flight[:size])
    caller.hang_up()
    with pytest.raises(DisconnectedError, match="disconnected unexpectedly"):
        while True:
            caller.arrived()
            advance(one)
    assert (one.hello is not None) == (size is None)


@pytest.mark.parametrize("garbage", [b"GET / HTTP/1.1\r\n\r\n", bytes(2000), b"\xff" * 2000])
def test_garbage_is_refused_at_its_first_bytes(candidate: Pair, garbage: bytes) -> None:
    one, caller = candidate
    caller.send(garbage)
    with pytest.raises(ProtocolError, match="connection is not from a worker"):
        advance(one)
    assert one.hello is None and one.session is None


def test_a_flight_of_another_application_is_refused() -> None:
    sealed = APPLICATION.announce()
    foreign = Caller(STRANGERS.announce(), INSTANCE, application=STRANGERS)
    handshake = ClientHandshake(sealed.handshake(), APPLICATION.client.authority_public, sodium.aead_names(), START)
    one = Candidate(foreign.connection, ("10.0.0.9", 1), handshake, START)
    foreign.prove()
    with pytest.raises(CexecError):
        advance(one)
    assert one.hello is None
    foreign.close()


@pytest.mark.parametrize("offset", [0, 8, 40, 300, -1])
def test_a_flight_with_one_bit_wrong_is_refused(candidate: Pair, offset: int) -> None:
    one, caller = candidate
    damaged = bytearray(caller.flight)
    damaged[offset] ^= 1
    caller.send(bytes(damaged))
    with pytest.raises(ProtocolError):
        advance(one)
    assert one.hello is None
