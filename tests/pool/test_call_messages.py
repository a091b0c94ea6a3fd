"""Messages are read whole, byte by byte, and with something behind them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from cexec.errors import ProtocolError
from cexec.pool import call_messages as m
from cexec.pool.interpreter import Interpreter

SIZES = some.sampled_from([0, 1, 7, 100, m.SMALL - 1, m.SMALL, m.SMALL + 1])
PARTS = some.lists(SIZES.map(lambda size: bytes(range(251)) * (size // 251) + bytes(size % 251)), max_size=4)


def with_enough_parts(kind: int, id: int, about: int, parts: list[bytes | bytearray]) -> m.CallMessage:
    return m.CallMessage(kind, id, about, parts + [b""] * (m.LEAST_PARTS.get(kind, 0) - len(parts)))


MESSAGES = some.builds(
    with_enough_parts,
    some.sampled_from(sorted(m.KINDS)),
    some.integers(0, m.NOBODY),
    some.integers(0, m.NOBODY),
    PARTS,
)


def joined(message: m.CallMessage) -> bytes:
    return b"".join(m.encode(*message))


def plain(messages: list[m.CallMessage]) -> list[tuple[object, ...]]:
    return [(one.kind, one.id, one.about, [bytes(part) for part in one.parts]) for one in messages]


@settings(max_examples=50)
@given(some.lists(MESSAGES, max_size=3), some.sampled_from([1000, 7777, 65_536, 100_000]))
def test_messages_are_the_same_in_any_pieces(sent: list[m.CallMessage], size: int) -> None:
    data = b"".join(map(joined, sent))
    decoder, received = m.Decoder(), []
    for start in range(0, len(data), size):
        received += decoder.feed(data[start : start + size])
    assert plain(received) == plain(sent)
    assert decoder.idle


def test_a_message_comes_byte_by_byte() -> None:
    sent = [m.CallMessage(m.CALL, 5, 6, [b"ab", b"", b"c"]), m.CallMessage(m.READY, 5, 1, [])]
    decoder, received = m.Decoder(), []
    for byte in b"".join(map(joined, sent)):
        received += decoder.feed(bytes((byte,)))
    assert plain(received) == plain(sent)


def test_a_beginning_is_kept_for_what_follows() -> None:
    data = joined(m.CallMessage(m.CALL, 1, 2, [b"x"]))
    decoder = m.Decoder()
    assert len(decoder.feed(data + data[:30])) == 1
    assert not decoder.idle
    assert plain(decoder.feed(data[30:])) == [(m.CALL, 1, 2, [b"x"])]


def test_a_large_part_is_read_into_its_place() -> None:
    part = bytes(range(256)) * 4096
    data = joined(m.CallMessage(m.RESULT, 1, 2, [b"p", part]))
    decoder = m.Decoder()
    at = 100
    assert decoder.feed(data[:at]) == []
    received: list[m.CallMessage] = []
    while not received:
        room = decoder.room()
        if room is None:
            received = decoder.feed(data[at:])
            break
        size = min(len(room), 300_000)
        room[:size] = data[at : at + size]
        received = decoder.filled(size)
        at += size
    assert plain(received) == [(m.RESULT, 1, 2, [b"p", part])]
    assert isinstance(received[0].parts[1], bytearray)  # so that an array in it can be written to
    assert decoder.idle


def test_large_buffers_are_not_copied_when_a_message_is_encoded() -> None:
    large = bytearray(m.SMALL)
    assert m.encode(m.CALL, 1, 1, [b"p", large])[2] is large
    assert len(m.encode(m.CALL, 1, 1, [b"p", b"q"])) == 1


def test_the_pieces_of_a_part_follow_one_another() -> None:
    assert plain(m.Decoder().feed(joined(m.CallMessage(m.FORGET, 1, 1, [])))) == [(m.FORGET, 1, 1, [])]
    pieces = b"".join(m.encode(m.CALL, 1, 1, [[b"ab", b"cd"], b"e"]))
    assert plain(m.Decoder().feed(pieces)) == [(m.CALL, 1, 1, [b"abcd", b"e"])]


@pytest.mark.parametrize("data", [b"\xff" * 40, bytes(40), b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError, match="expected"):
        m.Decoder().feed(data)
    with pytest.raises(ProtocolError, match="expected"):
        m.Cutter().feed(data)


def test_too_many_parts_are_refused() -> None:
    with pytest.raises(ValueError, match="at most"):
        m.encode(m.CALL, 1, 1, [b""] * (m.MOST_PARTS + 1))


@settings(max_examples=50)
@given(some.lists(MESSAGES, max_size=3), some.sampled_from([1000, 7777, 65_536, 100_000]))
def test_pieces_are_the_messages_again(sent: list[m.CallMessage], size: int) -> None:
    data = b"".join(map(joined, sent))
    cutter, pieces = m.Cutter(), []
    for start in range(0, len(data), size):
        pieces += cutter.feed(data[start : start + size])
    assert b"".join(piece.data for piece in pieces) == data
    assert [(piece.kind, piece.id) for piece in pieces if piece.first] == [(one.kind, one.id) for one in sent]
    assert sum(1 for piece in pieces if not piece.missing) == len(sent)
    assert not cutter.missing
    for piece in pieces:
        short = piece.first and not piece.missing
        assert short or len(piece.data) + piece.missing > 0


def test_a_short_message_is_one_piece() -> None:
    cutter = m.Cutter()
    data = joined(m.CallMessage(m.RESULT, 9, 0, [bytes(1000)]))
    assert cutter.feed(data[:500]) == []
    assert cutter.feed(data[500:]) == [m.MessagePiece(m.RESULT, 9, data, True, 0)]


@pytest.mark.parametrize("status", [0, 1, 255, -1, -9, -64])
def test_a_status_comes_back(status: int) -> None:
    assert m.decode_status(m.encode_status(status)) == status


def test_an_outcome_is_short_if_it_was_one_buffer() -> None:
    for size in (0, m.SMALL - m.HEADER_SIZE - m.LENGTH_SIZE, m.SMALL - m.HEADER_SIZE, m.SMALL):
        message = m.CallMessage(m.RESULT, 1, 0, [bytes(size)])
        assert m.is_short(message) is (len(m.encode(*message)) == 1)


@pytest.mark.parametrize("kind", m.LEAST_PARTS)
@pytest.mark.parametrize("reader", [m.Decoder, m.Cutter])
def test_a_message_has_the_parts_of_its_kind(kind: int, reader: type[m.Decoder] | type[m.Cutter]) -> None:
    data = joined(m.CallMessage(kind, 1, 2, [b"x"] * (m.LEAST_PARTS[kind] - 1)))
    with pytest.raises(ProtocolError, match="has only"):
        reader().feed(data)


@pytest.mark.parametrize("size", [1001, 1 << 62, m.NOBODY])
def test_no_room_is_made_for_more_than_the_limit(size: int) -> None:
    head = m.HEADER.pack(m.RESULT, 1, 1, 2) + size.to_bytes(m.LENGTH_SIZE, "big")
    with pytest.raises(ProtocolError, match="no memory"):
        m.Decoder(1000).feed(head)


@pytest.mark.parametrize("size", [1 << 62, m.NOBODY])
def test_a_message_for_which_there_is_no_memory_is_the_peers_fault(size: int) -> None:
    head = m.HEADER.pack(m.RESULT, 2, 1, 2) + 2 * size.to_bytes(m.LENGTH_SIZE, "big")
    with pytest.raises(ProtocolError, match="no memory"):
        m.Decoder().feed(head)


def test_a_hello_is_short() -> None:
    Interpreter.decode(Interpreter("3" * 255, "3", "little", "0", 7).encode())
    with pytest.raises(ProtocolError):
        Interpreter.decode(Interpreter("3" * 256, "3", "little", "0", 7).encode())


@pytest.mark.parametrize(
    "text",
    [
        b"[" * 100_000,
        b'{"python": 1}',
        b"[]",
        b"\xff",
        b'{"python": "3", "cloudpickle": "3", "byteorder": "little", "cexec": "0", "pid": Infinity}',
    ],
    ids=lambda text: text[:9],
)
def test_a_damaged_hello_is_the_peers_fault(text: bytes) -> None:
    with pytest.raises(ProtocolError):
        Interpreter.decode(text)
