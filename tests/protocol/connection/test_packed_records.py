"""Records that hold several frames, from the second revision on: docs/protocol.md section 4.1."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cexec.errors import ProtocolError
from cexec.protocol.base import sodium
from cexec.protocol.base.limits import (
    FIRST_REVISION,
    FRAME_HEADER,
    FRAME_LENGTH,
    MAXIMUM_DATA,
    MAXIMUM_FRAME,
    RECORD_HEADER,
    SECOND_FLIGHT_PAYLOAD,
    SECOND_REVISION,
)
from cexec.protocol.base.wire import Writer
from cexec.protocol.connection import frames
from cexec.protocol.connection.records import MAXIMUM_WAITING, SEND_BUFFERS, SHORT_DATA, Records
from tests.protocol.wires import APPLICATION, connected, each_cipher, each_revision, join, record_pair, sent_bytes

ANY = sodium.aead_names()[0]
CONFIRM = frames.frame(frames.CONFIRM)
PING = frames.frame(frames.PING)


def pair(cipher: str = ANY, *, proved: bool = True) -> tuple[Records, Records]:
    return record_pair(cipher, proved=proved, packed=True)


def send(records: Records, size: int, stream: int = 1) -> bytes:
    """Sends random data as a driver does, and returns the frame."""
    buffer = records.data_buffer()
    assert buffer is not None
    data = random.Random(size).randbytes(size)
    buffer[:size] = data
    head = frames.head(frames.DATA, stream)
    records.send_data(head, size)
    return head + data


def lengths(data: bytes) -> list[int]:
    """The lengths of the boxes in the bytes of a connection."""
    found = []
    while data:
        found.append(int.from_bytes(data[:RECORD_HEADER], "big"))
        data = data[RECORD_HEADER + found[-1] :]
    return found


def sealed_by_hand(inside: bytes) -> bytes:
    """A record that an honest peer would not make."""
    cipher = sodium.aead(ANY)
    header = (len(inside) + cipher.tag_size).to_bytes(RECORD_HEADER, "big")
    buffer = memoryview(bytearray(len(inside) + cipher.tag_size))
    buffer[: len(inside)] = inside
    cipher.seal(b"\x11" * 32, 0, buffer, len(inside), header)
    return header + bytes(buffer)


def packed(*bodies: bytes) -> bytes:
    return b"".join(len(body).to_bytes(FRAME_LENGTH, "big") + body for body in bodies)


# As it should be


@each_cipher
def test_frames_that_wait_together_are_one_record(cipher: str) -> None:
    sender, receiver = pair(cipher)
    bodies = [frames.frame(frames.STARTED, b"\0"), send(sender, 5), frames.frame(frames.END, bytes(8), 1), CONFIRM]
    sender, receiver = pair(cipher)
    sender.send_frame(bodies[0])
    send(sender, 5)
    sender.send_frame(bodies[2])
    sender.send_frame(bodies[3])
    data = sent_bytes(sender)
    assert lengths(data) == [sum(FRAME_LENGTH + len(body) for body in bodies) + sender.cipher.tag_size]
    assert receiver.receive_data(data, 0.0) == bodies


@pytest.mark.parametrize("chunk", [1, 7, 4096, 1 << 20])
@each_cipher
def test_order_is_kept_whatever_the_sizes(cipher: str, chunk: int) -> None:
    sender, receiver = pair(cipher)
    chance, sent, data = random.Random(5), [], b""
    sizes = [1, SHORT_DATA, SHORT_DATA + 1, 65_536, MAXIMUM_DATA, 2, 3] if chunk > 1 else [1, SHORT_DATA, 2000, 2, 3]
    for size in sizes:
        for _ in range(chance.randrange(3)):
            sender.send_frame(PING)
            sent.append(PING)
        sent.append(send(sender, size))
        data += sent_bytes(sender) if chance.random() < 0.6 else b""
    data += sent_bytes(sender)
    found = []
    for start in range(0, len(data), chunk):
        found += receiver.receive_data(data[start : start + chunk], 0.0)
    assert found == sent
    assert receiver.at_record_boundary


def test_the_longest_frame_fits_and_two_long_ones_are_two_records() -> None:
    sender, receiver = pair()
    long = frames.frame(frames.GO, b"x" * (MAXIMUM_FRAME - FRAME_HEADER))
    for body in (PING, long, long, PING):
        sender.send_frame(body)
    data = sent_bytes(sender)
    assert len(lengths(data)) == 4
    assert max(lengths(data)) == FRAME_LENGTH + MAXIMUM_FRAME + sender.cipher.tag_size
    assert receiver.receive_data(data, 0.0) == [PING, long, long, PING]


def test_short_data_needs_no_buffer_of_its_own_and_is_bounded_all_the_same() -> None:
    sender, _ = pair()
    for _ in range(MAXIMUM_WAITING):
        assert sender.has_room and not sender.congested
        send(sender, 10)
    assert sender.congested and not sender.has_room and sender.data_buffer() is None
    assert len(lengths(sent_bytes(sender))) == 1
    assert sender.has_room and sender.all_sent


def test_long_data_still_waits_in_few_buffers() -> None:
    sender, _ = pair()
    for _ in range(SEND_BUFFERS):
        send(sender, SHORT_DATA + 1)
    assert not sender.has_room and not sender.congested
    sent_bytes(sender)
    assert sender.has_room


def test_a_frame_stays_readable_while_the_rest_of_its_record_is_taken() -> None:
    sender, receiver = pair()
    for body in (PING, CONFIRM):
        sender.send_frame(body)
    data = sent_bytes(sender)
    room = receiver.receive_buffer()
    room[: len(data)] = data
    receiver.received(len(data))
    first = receiver.next_event()
    assert not receiver.at_record_boundary
    second = receiver.next_event()
    assert first is not None and second is not None and receiver.next_event() is None
    assert (bytes(first), bytes(second)) == (PING, CONFIRM)


# What a peer may send


@pytest.mark.parametrize(
    "inside",
    [
        packed(CONFIRM)[:-1],
        packed(b"\1\0\0"),
        packed(b""),
        (5).to_bytes(FRAME_LENGTH, "big") + CONFIRM,
        b"\xff\xff\xff\xff" + CONFIRM,
        CONFIRM + CONFIRM,  # as the first revision has it
    ],
)
def test_a_record_that_does_not_consist_of_whole_frames_is_refused_for_good(inside: bytes) -> None:
    _, receiver = pair()
    with pytest.raises(ProtocolError, match=r"whole frames|impossible length"):
        receiver.receive_data(sealed_by_hand(inside), 0.0)
    with pytest.raises(ProtocolError, match=r"whole frames|impossible length"):
        receiver.next_event()


@pytest.mark.parametrize("trailer", [b"\0", bytes(FRAME_LENGTH), packed(b"")])
def test_frames_before_the_fault_of_their_record_count(trailer: bytes) -> None:
    _, receiver = pair()
    data = sealed_by_hand(packed(PING, CONFIRM) + trailer)
    room = receiver.receive_buffer()
    room[: len(data)] = data
    receiver.received(len(data))
    for body in (PING, CONFIRM):
        frame = receiver.next_event()
        assert frame is not None and bytes(frame) == body
    with pytest.raises(ProtocolError, match="whole frames"):
        receiver.next_event()


@given(st.binary(max_size=64))
def test_any_inside_is_frames_or_refused(inside: bytes) -> None:
    _, receiver = pair()
    try:
        found = receiver.receive_data(sealed_by_hand(inside), 0.0)
    except ProtocolError:
        return
    assert packed(*found) == inside


# Which revision


@each_revision
def test_a_connection_has_the_revision_that_the_worker_offers(revision: int) -> None:
    wire = connected(revision=revision)
    assert wire.worker.records.packed is wire.client.records.packed is (revision == SECOND_REVISION)


@pytest.mark.parametrize(
    ("offered", "told", "taken"),
    [
        (FIRST_REVISION, 0, True),
        (SECOND_REVISION, 0, True),  # a client of version 0.1.0
        (SECOND_REVISION, SECOND_REVISION, True),
        (SECOND_REVISION, FIRST_REVISION, False),
        (SECOND_REVISION, 3, False),
        (FIRST_REVISION, SECOND_REVISION, False),
        (FIRST_REVISION, FIRST_REVISION, False),
    ],
)
def test_a_client_may_only_choose_what_was_offered(offered: int, told: int, taken: bool) -> None:
    sealed = APPLICATION.announce()
    wire = join(sealed=sealed, revision=offered)
    handshake = sealed.handshake()
    handshake.read_message(wire.worker.bytes_to_send()[8:])
    flight = handshake.write_message(lambda h: Writer().u8(0).u8(told).padded(SECOND_FLIGHT_PAYLOAD))
    wire.worker.receive(flight, 0.0)
    if taken:
        assert wire.worker.error is None and wire.worker.records.packed is (told == SECOND_REVISION)
    else:
        assert isinstance(wire.worker.error, ProtocolError) and "revision" in str(wire.worker.error)
