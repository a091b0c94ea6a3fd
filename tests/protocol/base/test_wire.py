"""The value codecs of docs/protocol.md section 0."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cexec.errors import ProtocolError
from cexec.protocol.base.wire import Reader, Writer

short_text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=60)

# A value of every shape, how it is written and how it is read.
SHAPES: list[tuple[object, Callable[[Writer], Writer], Callable[[Reader], object]]] = [
    (0xAB, lambda w: w.u8(0xAB), Reader.u8),
    (0xABCD, lambda w: w.u16(0xABCD), Reader.u16),
    (0xABCDEF01, lambda w: w.u32(0xABCDEF01), Reader.u32),
    (2**64 - 1, lambda w: w.u64(2**64 - 1), Reader.u64),
    (0x010203, lambda w: w.integer(0x010203, 3), lambda r: r.integer(3)),
    (b"raw", lambda w: w.raw(memoryview(b"raw")), lambda r: r.take(3)),
    (b"s" * 255, lambda w: w.short_bytes(b"s" * 255), Reader.short_bytes),
    (b"l" * 300, lambda w: w.long_bytes(b"l" * 300), Reader.long_bytes),
    ("größe", lambda w: w.text("größe"), Reader.text),
    ("t" * 300, lambda w: w.long_text("t" * 300), Reader.long_text),
    ({"a": "1", "b": "", "ä": "2"}, lambda w: w.mapping({"ä": "2", "b": "", "a": "1"}), Reader.mapping),
]
every_shape = pytest.mark.parametrize(("value", "write", "read"), SHAPES)


@every_shape
def test_a_value_reads_back(value: object, write: Callable[[Writer], Writer], read: Callable[[Reader], object]) -> None:
    reader = Reader(bytearray(bytes(write(Writer()))))
    assert read(reader) == value
    reader.finish()


@every_shape
def test_a_value_cut_anywhere_is_a_protocol_error(
    value: object, write: Callable[[Writer], Writer], read: Callable[[Reader], object]
) -> None:
    data = bytes(write(Writer()))
    for size in range(len(data)):
        with pytest.raises(ProtocolError, match="shorter"):
            read(Reader(data[:size]))


@every_shape
def test_what_is_left_over_is_refused(
    value: object, write: Callable[[Writer], Writer], read: Callable[[Reader], object]
) -> None:
    reader = Reader(bytes(write(Writer())) + b"\0")
    read(reader)
    with pytest.raises(ProtocolError, match="longer"):
        reader.finish()


def test_the_bytes_are_those_of_the_document() -> None:
    writer = Writer().u8(1).u16(2).u32(3).u64(4).text("é").long_bytes(b"x").mapping({"k": "v"})
    assert bytes(writer).hex() == "01000200000003000000000000000402c3a900017801016b0176"


def test_values_follow_one_another_and_the_rest_is_what_is_left() -> None:
    reader = Reader(b"\x01\x00\x02rest")
    assert (reader.u8(), reader.u16(), reader.rest(), reader.rest()) == (1, 2, b"rest", b"")
    reader.finish()


def test_a_failed_read_takes_nothing() -> None:
    reader = Reader(b"\x05abc")
    with pytest.raises(ProtocolError):
        reader.take(5)
    assert reader.rest() == b"\x05abc"


@pytest.mark.parametrize("text", [b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xc0\x80", b"a\0b"])
def test_text_that_is_no_text_is_a_protocol_error(text: bytes) -> None:
    with pytest.raises(ProtocolError, match="text"):
        Reader(bytes([len(text)]) + text).text()
    with pytest.raises(ProtocolError, match="text"):
        Reader(len(text).to_bytes(2, "big") + text).long_text()


@pytest.mark.parametrize("keys", [("b", "a"), ("a", "a"), ("a", "c", "b")])
def test_a_mapping_out_of_order_or_with_a_key_twice_is_a_protocol_error(keys: tuple[str, ...]) -> None:
    writer = Writer().u8(len(keys))
    for key in keys:
        writer.text(key).text("value")
    with pytest.raises(ProtocolError, match="ascending"):
        Reader(bytes(writer)).mapping()


def test_padding_reads_back_and_is_all_zero() -> None:
    data = Writer().u16(7).padded(6)
    assert data == b"\0\x07\0\0\0\0"
    reader = Reader(data)
    assert reader.u16() == 7
    reader.zeros()
    reader.finish()
    for position in range(2, 6):
        reader = Reader(data[:position] + b"\x01" + data[position + 1 :])
        reader.u16()
        with pytest.raises(ProtocolError, match="padding"):
            reader.zeros()


def test_padding_of_any_other_byte_is_refused() -> None:
    for value in range(1, 256):
        with pytest.raises(ProtocolError, match="padding"):
            Reader(bytes([value, 0, value])).zeros()


def test_padding_to_nothing_leaves_the_message_as_it_is() -> None:
    assert Writer().u16(7).padded(0) == b"\0\x07"
    assert Writer().u16(7).padded(2) == b"\0\x07"


def test_a_message_that_is_longer_than_its_padding_is_our_own_fault() -> None:
    with pytest.raises(ValueError, match="does not fit in 1"):
        Writer().u16(7).padded(1)


@pytest.mark.parametrize(
    "write",
    [
        lambda w: w.u8(256),
        lambda w: w.u16(65_536),
        lambda w: w.u32(2**32),
        lambda w: w.u64(2**64),
        lambda w: w.u8(-1),
        lambda w: w.short_bytes(bytes(256)),
        lambda w: w.long_bytes(bytes(65_536)),
        lambda w: w.text("é" * 128),
        lambda w: w.text("a\0"),
        lambda w: w.mapping({str(number): "" for number in range(256)}),
        lambda w: w.u32(1).padded(3),
    ],
)
def test_a_value_that_does_not_fit_is_our_own_fault(write: Callable[[Writer], object]) -> None:
    with pytest.raises(ValueError, match=r"fit|NUL"):
        write(Writer())


@given(st.dictionaries(short_text, short_text, max_size=20))
def test_any_mapping_reads_back_in_one_way_only(pairs: dict[str, str]) -> None:
    data = bytes(Writer().mapping(pairs))
    reader = Reader(data)
    assert reader.mapping() == pairs
    reader.finish()
    assert bytes(Writer().mapping(dict(reversed(pairs.items())))) == data


@given(st.binary(max_size=80), st.lists(st.sampled_from([read for _, _, read in SHAPES]), max_size=8))
def test_hostile_bytes_are_a_protocol_error_and_nothing_else(
    data: bytes, reads: list[Callable[[Reader], object]]
) -> None:
    reader = Reader(data)
    try:
        for read in reads:
            read(reader)
        reader.finish()
    except ProtocolError:
        return
    assert reader.rest() == b""
