"""Sealed records, docs/protocol.md section 4.1."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cexec.errors import ProtocolError, VerifyError
from cexec.protocol.base import sodium
from cexec.protocol.base.limits import FRAME_HEADER, MAXIMUM_DATA, MAXIMUM_FRAME, RECORD_HEADER
from cexec.protocol.connection import frames
from cexec.protocol.connection.records import FIRST_BUFFER, MAXIMUM_WAITING, SEND_BUFFERS, Records
from tests.protocol.wires import each_cipher, record_pair, sent_bytes

CONFIRM = frames.frame(frames.CONFIRM)
ANY = sodium.aead_names()[0]


def filled(records: Records, data: bytes, stream: int = 1) -> None:
    """Sends `data` in place."""
    buffer = records.data_buffer()
    assert buffer is not None
    buffer[: len(data)] = data
    records.send_data(frames.head(frames.DATA, stream), len(data))


def sealed(*bodies: bytes, cipher: str = ANY) -> list[bytes]:
    """Records of these frames, from the one side of a fresh pair."""
    sender, _ = record_pair(cipher)
    result = []
    for body in bodies:
        sender.send_frame(body)
        result.append(sent_bytes(sender))
    return result


def in_place(receiver: Records, data: bytes, size: Callable[[int], int]) -> list[bytes]:
    """Receives as a driver does: into the buffer, in reads of `size(room)` bytes."""
    found = []
    while data:
        room = receiver.receive_buffer()
        assert len(room)
        read = min(size(len(room)), len(room), len(data))
        room[:read] = data[:read]
        receiver.received(read)
        data = data[read:]
        while (frame := receiver.next_event()) is not None:
            found.append(bytes(frame))
    return found


# As it should be


@each_cipher
@pytest.mark.parametrize("packed", [False, True])
def test_the_smallest_record_is_as_long_as_it_says(cipher: str, packed: bool) -> None:
    """By that a receiver knows that what came in the middle of a record is a PONG."""
    sender, _ = record_pair(cipher, packed=packed)
    sender.send_frame(frames.frame(frames.PONG))
    assert len(sent_bytes(sender)) == sender.empty_size


@each_cipher
def test_the_layout_is_that_of_the_document(cipher: str) -> None:
    (record,) = sealed(CONFIRM, cipher=cipher)
    aead = sodium.aead(cipher)
    assert record[:4] == (len(CONFIRM) + aead.tag_size).to_bytes(4, "big")
    box = bytearray(record[4:])
    assert aead.open(b"\x11" * 32, 0, memoryview(box), record[:4]) == len(CONFIRM)
    assert bytes(box[: len(CONFIRM)]) == CONFIRM


@each_cipher
@pytest.mark.parametrize("seed", range(3))
def test_records_arrive_whole_in_reads_of_any_size(cipher: str, seed: int) -> None:
    chance = random.Random(seed)
    sender, receiver = record_pair(cipher)
    sizes = [1, 2, 65_535, 65_536, MAXIMUM_DATA, *[chance.randrange(1, MAXIMUM_DATA) for _ in range(6)], 1, 3]
    expected, data = [], b""
    for size in sizes:
        body = chance.randbytes(size)
        filled(sender, body)
        expected.append(frames.frame(frames.DATA, body, 1))
        data += sent_bytes(sender)
    assert in_place(receiver, data, lambda room: chance.choice((1, 3, 100, 5000, room))) == expected
    assert receiver.at_record_boundary


@each_cipher
def test_reads_of_one_byte(cipher: str) -> None:
    data = b"".join(sealed(CONFIRM, frames.frame(frames.DATA, b"x" * 300, 1), cipher=cipher))
    _, receiver = record_pair(cipher)
    assert len(in_place(receiver, data, lambda room: 1)) == 2


def test_reads_of_all_the_room_there_is() -> None:
    sender, receiver = record_pair(ANY)
    data = b""
    for _ in range(20):
        filled(sender, bytes(MAXIMUM_DATA))
        data += sent_bytes(sender)
    assert len(in_place(receiver, data, lambda room: room)) == 20


def test_a_short_job_takes_no_large_buffer() -> None:
    """To find room for it took longer than all else that such a job does with its records."""
    sender, receiver = record_pair(ANY)
    filled(sender, bytes(3000))
    assert len(receiver.receive_data(sent_bytes(sender), 0.0)) == 1
    assert len(receiver.receive_buffer()) <= FIRST_BUFFER
    filled(sender, bytes(5000))
    assert len(receiver.receive_data(sent_bytes(sender), 0.0)) == 1
    assert len(receiver.receive_buffer()) > MAXIMUM_FRAME


def test_a_large_record_is_read_where_it_lies() -> None:
    sender, receiver = record_pair(ANY)
    filled(sender, bytes(MAXIMUM_DATA))
    receiver.receive_data(sent_bytes(sender), 0.0)  # which makes room
    filled(sender, bytes(MAXIMUM_DATA))
    record = sent_bytes(sender)
    room = receiver.receive_buffer()
    room[:4] = record[:4]
    receiver.received(4)
    rest = receiver.receive_buffer()
    assert len(rest) == len(record) - 4 + RECORD_HEADER  # one read takes the rest, and the next record's length
    rest[: len(record) - 4] = record[4:]
    receiver.received(len(record) - 4)
    frame = receiver.next_event()
    assert frame is not None and frame.obj is room.obj


@each_cipher
def test_the_largest_frame_and_one_byte_more(cipher: str) -> None:
    sender, receiver = record_pair(cipher)
    filled(sender, b"\xff" * MAXIMUM_DATA)
    record = sent_bytes(sender)
    assert len(record) == RECORD_HEADER + MAXIMUM_FRAME + sender.cipher.tag_size
    assert len(receiver.receive_data(record, 0.0)[0]) == MAXIMUM_FRAME
    longer = (len(record) - RECORD_HEADER + 1).to_bytes(4, "big")
    with pytest.raises(ProtocolError, match="impossible length"):
        receiver.receive_data(longer, 0.0)


@each_cipher
def test_an_empty_frame_is_the_smallest(cipher: str) -> None:
    _, receiver = record_pair(cipher)
    (record,) = sealed(CONFIRM, cipher=cipher)
    assert receiver.receive_data(record, 0.0) == [CONFIRM]


@pytest.mark.parametrize("packed", [False, True])
def test_another_process_can_go_on_with_the_keys(packed: bool) -> None:
    for made, sending, receiving in zip(
        record_pair(ANY, packed=packed), (b"\x11", b"\x22"), (b"\x22", b"\x11"), strict=True
    ):
        assert made.keys == (ANY, packed, sending * 32, receiving * 32)


# Sending


def test_at_most_two_buffers_are_under_way_and_are_used_again() -> None:
    sender, receiver = record_pair(ANY)
    seen = set()
    for _ in range(5):
        for _ in range(SEND_BUFFERS):
            buffer = sender.data_buffer()
            assert buffer is not None and len(buffer) == MAXIMUM_DATA
            seen.add(id(buffer.obj))
            filled(sender, b"data")
        assert sender.data_buffer() is None
        assert len(receiver.receive_data(sent_bytes(sender), 0.0)) == SEND_BUFFERS
    assert len(seen) == SEND_BUFFERS


def test_the_kernel_may_take_any_part() -> None:
    sender, receiver = record_pair(ANY)
    filled(sender, b"first")
    sender.send_frame(frames.frame(frames.PING))
    filled(sender, b"second")
    carried, sizes = b"", (1, 3, 20, 45, 2, 1000)
    for size in sizes:
        taken = b"".join(sender.data_to_send())[:size]
        sender.data_sent(len(taken))
        carried += taken
    assert not sender.data_to_send() and sender.data_buffer() is not None
    received = receiver.receive_data(carried, 0.0)
    assert [frame[0] for frame in received] == [frames.DATA, frames.PING, frames.DATA]
    assert received[2] == frames.frame(frames.DATA, b"second", 1)


def test_a_buffer_is_not_used_again_before_all_of_it_is_sent() -> None:
    sender, _ = record_pair(ANY)
    for _ in range(SEND_BUFFERS):
        filled(sender, bytes(100))
    first = len(sender.data_to_send()[0])
    sender.data_sent(first - 1)
    assert sender.data_buffer() is None
    sender.data_sent(1)
    assert sender.data_buffer() is not None


@each_cipher
@pytest.mark.parametrize("packed", [False, True])
def test_a_record_that_is_sent_at_once_is_that_of_send_data(cipher: str, packed: bool) -> None:
    """Its buffer stays free; what the kernel does not take waits before all that comes later."""
    sender, receiver = record_pair(cipher, packed=packed)
    head = frames.head(frames.DATA, 1)
    for data in (b"first", b"x" * MAXIMUM_DATA, b"last"):
        buffer = sender.data_buffer()
        assert buffer is not None
        buffer[: len(data)] = data
        record = sender.seal_data(head, len(data))
        assert sender.all_sent and sender.data_buffer() is not None
        assert receiver.receive_data(bytes(record), 0.0) == [head + data]
    buffer = sender.data_buffer()
    assert buffer is not None
    buffer[:4] = b"rest"
    record = sender.seal_data(head, 4)
    begun = bytes(record[:10])
    sender.keep(record[10:])
    assert not sender.all_sent
    filled(sender, b"y" * MAXIMUM_DATA)
    assert sender.data_buffer() is None
    found = receiver.receive_data(begun + sent_bytes(sender), 0.0)
    assert found == [head + b"rest", head + b"y" * MAXIMUM_DATA]
    assert sender.all_sent and sender.data_buffer() is not None


def test_a_peer_that_takes_nothing_is_given_no_more() -> None:
    sender, receiver = record_pair(ANY)
    for _ in range(MAXIMUM_WAITING - 1):
        sender.send_frame(frames.frame(frames.PONG))
    assert not sender.congested and sender.data_buffer() is not None
    sender.send_frame(frames.frame(frames.PONG))
    assert sender.congested and sender.data_buffer() is None
    receiver.receive_data(sent_bytes(sender), 0.0)
    assert not sender.congested


def test_sending_allocates_nothing_for_each_record() -> None:
    sender, _ = record_pair(ANY)
    for _ in range(SEND_BUFFERS):
        filled(sender, b"warm")
    sender.data_sent(sum(map(len, sender.data_to_send())))
    tracemalloc.start()
    for _ in range(20):
        assert sender.data_buffer() is not None
        sender.send_data(frames.head(frames.DATA, 1), MAXIMUM_DATA)
        sender.data_sent(len(sender.data_to_send()[0]))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20_000


# Damage and hostile peers


@pytest.mark.parametrize("length", [0, 1, FRAME_HEADER + 15, 0x80000000, 0xFFFFFFFF, MAXIMUM_FRAME + 33])
def test_an_impossible_length_is_refused_before_anything_is_allocated(length: int) -> None:
    _, receiver = record_pair(sodium.CHACHA)
    header = length.to_bytes(4, "big")
    tracemalloc.start()
    with pytest.raises(ProtocolError, match="impossible length"):
        receiver.receive_data(header, 0.0)
    receiver.receive_buffer()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10_000


def test_a_possible_length_allocates_nothing_either() -> None:
    _, receiver = record_pair(ANY)
    tracemalloc.start()
    receiver.receive_data((MAXIMUM_FRAME).to_bytes(4, "big") + bytes(1000), 0.0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10_000
    assert not receiver.at_record_boundary


def test_the_first_record_of_a_peer_that_has_proved_nothing_is_small() -> None:
    _, receiver = record_pair(ANY, proved=False)
    tracemalloc.start()
    with pytest.raises(ProtocolError, match="impossible length"):
        receiver.receive_data((FIRST_BUFFER).to_bytes(4, "big"), 0.0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 * FIRST_BUFFER


@each_cipher
@pytest.mark.parametrize("chunk", [1, 4096, 1 << 20])
def test_after_its_first_record_a_peer_may_send_large_ones(cipher: str, chunk: int) -> None:
    sender, receiver = record_pair(cipher, proved=False)
    sender.send_frame(CONFIRM)
    data = sent_bytes(sender)
    for size in (10, 3000, 5000 if chunk == 1 else MAXIMUM_DATA):
        filled(sender, b"z" * size)
        data += sent_bytes(sender)
    found = in_place(receiver, data, lambda room: min(room, chunk))
    assert [len(frame) - FRAME_HEADER for frame in found] == [0, 10, 3000, 5000 if chunk == 1 else MAXIMUM_DATA]


@each_cipher
def test_a_flipped_bit_anywhere_gives_no_frame(cipher: str) -> None:
    (record,) = sealed(frames.frame(frames.DATA, b"some data", 1), cipher=cipher)
    for offset in range(len(record)):
        _, receiver = record_pair(cipher)
        changed = bytearray(record)
        changed[offset] ^= 1
        try:
            assert receiver.receive_data(bytes(changed), 0.0) == []  # its length is longer: more bytes are awaited
        except ProtocolError:
            pass
        assert not receiver.at_record_boundary


@each_cipher
def test_a_record_cut_anywhere_gives_no_frame(cipher: str) -> None:
    (record,) = sealed(frames.frame(frames.DATA, b"some data", 1), cipher=cipher)
    for size in range(1, len(record)):
        _, receiver = record_pair(cipher)
        assert receiver.receive_data(record[:size], 0.0) == []
        assert not receiver.at_record_boundary


@pytest.mark.parametrize("order", [[1, 0], [0, 0], [1], [0, 2]])
def test_records_out_of_order_twice_or_missing_do_not_verify(order: list[int]) -> None:
    records = sealed(CONFIRM, CONFIRM, CONFIRM)
    _, receiver = record_pair(ANY)
    with pytest.raises(VerifyError):
        receiver.receive_data(b"".join(records[index] for index in order), 0.0)


def test_a_record_sent_back_does_not_verify() -> None:
    sender, _ = record_pair(ANY)
    sender.send_frame(CONFIRM)
    with pytest.raises(VerifyError):
        sender.receive_data(sent_bytes(sender), 0.0)


def test_failure_is_sticky() -> None:
    records = sealed(CONFIRM, CONFIRM)
    _, receiver = record_pair(ANY)
    with pytest.raises(VerifyError) as first:
        receiver.receive_data(records[1], 0.0)
    for _ in range(2):
        with pytest.raises(VerifyError) as later:
            receiver.receive_data(records[0], 0.0)
        assert later.value is first.value


@each_cipher
def test_a_kept_failure_keeps_no_view_of_libsodiums(cipher: str) -> None:
    """Python crashed when it collected the cycle of a connection, its failure, and in its traceback cffi's view."""
    box = memoryview(bytearray(50))
    with pytest.raises(VerifyError) as failure:
        sodium.aead(cipher).open(b"k" * 32, 0, box, b"")
    assert failure.value.__traceback__ is not None
    box.release()  # a BufferError if anything in the traceback has a view of it


@given(st.binary(max_size=3000), st.booleans(), st.integers(1, 500))
def test_hostile_bytes_are_protocol_errors_or_not_finished(data: bytes, proved: bool, chunk: int) -> None:
    _, receiver = record_pair(ANY, proved=proved)
    try:
        assert in_place(receiver, data, lambda room: chunk) == []
    except ProtocolError as failure:
        with pytest.raises(ProtocolError) as later:
            receiver.next_event()
        assert later.value is failure


@given(st.integers(0, 200), st.binary(max_size=4))
def test_mutated_records_are_protocol_errors_or_not_finished(offset: int, noise: bytes) -> None:
    good = b"".join(sealed(CONFIRM, frames.frame(frames.DATA, b"x" * 100, 1)))
    bad = good[:offset] + noise + good[offset + len(noise) :]
    _, receiver = record_pair(ANY)
    try:
        found = receiver.receive_data(bad, 0.0)
    except ProtocolError:
        return
    assert bad == good or len(found) < 2 or bad.startswith(good)
