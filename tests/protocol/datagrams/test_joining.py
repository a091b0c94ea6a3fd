"""The datagrams of giving and taking: each parses whole, and neither cut at any byte nor with a trailer."""

from __future__ import annotations

import pytest
from hypothesis import given

from cexec.protocol.base.limits import MAXIMUM_DATAGRAM
from cexec.protocol.datagrams import datagram, relay_datagram
from cexec.protocol.datagrams.forwarded import may_be_wrapped
from cexec.protocol.datagrams.joining import (
    ELEMENT_SIZE,
    HEAD,
    LARGEST_NUMBER,
    MESSAGES,
    MOST_PIECES,
    PIECE_SIZE,
    PROOF_SIZE,
    Ask,
    Done,
    Found,
    GiverProof,
    JoinMessage,
    Piece,
    Seek,
    TakerProof,
    decode_message,
    encode_message,
)
from tests.protocol.wires import cut_anywhere, hostile_bytes, mutations

SESSION = bytes(range(16))
ELEMENT, PROOF = b"A" + bytes(range(32)), bytes(range(32, 64))
assert (len(ELEMENT), len(PROOF)) == (ELEMENT_SIZE, PROOF_SIZE)

EXAMPLES: list[JoinMessage] = [
    Seek(SESSION, 1, ELEMENT),
    Seek(SESSION, LARGEST_NUMBER, ELEMENT),
    Found(SESSION, ELEMENT),
    TakerProof(SESSION, PROOF),
    GiverProof(SESSION, PROOF, 1),
    GiverProof(SESSION, PROOF, MOST_PIECES),
    Ask(SESSION, 0, PROOF),
    Ask(SESSION, MOST_PIECES - 1, PROOF),
    Piece(SESSION, 0, b"x"),
    Piece(SESSION, MOST_PIECES - 1, b"x" * PIECE_SIZE),
    Done(SESSION, PROOF),
]


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda message: type(message).__name__)
def test_a_message_comes_back_whole_and_in_no_other_length(message: JoinMessage) -> None:
    data = encode_message(message)
    assert len(data) <= MAXIMUM_DATAGRAM
    assert decode_message(data) == message
    for cut in cut_anywhere(data):
        shorter = decode_message(cut)
        assert shorter is None or (isinstance(message, Piece) and isinstance(shorter, Piece))
    longer = decode_message(data + b"\0")
    assert longer is None or (isinstance(message, Piece) and len(message.data) < PIECE_SIZE)


def test_the_examples_are_all_messages() -> None:
    assert {type(message) for message in EXAMPLES} == set(MESSAGES)
    assert sorted(kind.step for kind in MESSAGES) == list(range(1, 8))


@pytest.mark.parametrize(
    "message",
    [
        Seek(SESSION, 0, ELEMENT),
        Seek(SESSION, LARGEST_NUMBER + 1, ELEMENT),
        GiverProof(SESSION, PROOF, 0),
        GiverProof(SESSION, PROOF, MOST_PIECES + 1),
        Ask(SESSION, MOST_PIECES, PROOF),
        Piece(SESSION, MOST_PIECES, b"x"),
        Piece(SESSION, 0, b""),
        Piece(SESSION, 0, b"x" * (PIECE_SIZE + 1)),
    ],
    ids=repr,
)
def test_a_value_outside_its_range_is_no_message(message: JoinMessage) -> None:
    assert decode_message(encode_message(message)) is None


def test_padding_that_is_not_zero_is_no_message() -> None:
    data = encode_message(EXAMPLES[0])
    assert decode_message(data[:-1] + b"\1") is None


def test_an_answer_is_never_longer_than_the_question_of_a_stranger() -> None:
    assert len(encode_message(Found(SESSION, ELEMENT))) <= len(encode_message(Seek(SESSION, 1, ELEMENT)))


def test_relays_and_workers_take_none_of_them_for_theirs() -> None:
    for message in EXAMPLES:
        data = encode_message(message)
        assert not may_be_wrapped(data)  # a cservice passes none on to the others of its host
        assert datagram.parse(data, [bytes(32)]) is None
        assert relay_datagram.read(data) is None
    assert datagram.JOINING not in datagram.KINDS


@given(hostile_bytes)
def test_hostile_bytes_are_no_message_or_exactly_one(data: bytes) -> None:
    for one in (data, HEAD + data):
        message = decode_message(one)
        assert message is None or encode_message(message) == one


@given(mutations(encode_message(EXAMPLES[0])))
def test_a_damaged_message_is_none_or_another_one(data: bytes) -> None:
    message = decode_message(data)
    assert message is None or encode_message(message) == data
