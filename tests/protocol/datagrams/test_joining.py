"""The datagrams of giving and taking: each parses whole, and neither cut at any byte nor with a trailer."""

from __future__ import annotations

import pytest
from hypothesis import given

from cexec.protocol.base.limits import MAXIMUM_DATAGRAM
from cexec.protocol.datagrams import datagram, joining, relay_datagram
from cexec.protocol.datagrams.forwarded import may_be_wrapped
from tests.protocol.wires import cut_anywhere, hostile_bytes, mutations

SESSION = bytes(range(16))
ELEMENT, PROOF = b"A" + bytes(range(32)), bytes(range(32, 64))
assert (len(ELEMENT), len(PROOF)) == (joining.ELEMENT_SIZE, joining.PROOF_SIZE)

EXAMPLES: list[joining.JoinMessage] = [
    joining.Seek(SESSION, 1, ELEMENT),
    joining.Seek(SESSION, joining.LARGEST_NUMBER, ELEMENT),
    joining.Found(SESSION, ELEMENT),
    joining.TakerProof(SESSION, PROOF),
    joining.GiverProof(SESSION, PROOF, 1),
    joining.GiverProof(SESSION, PROOF, joining.MOST_PIECES),
    joining.Ask(SESSION, 0, PROOF),
    joining.Ask(SESSION, joining.MOST_PIECES - 1, PROOF),
    joining.Piece(SESSION, 0, b"x"),
    joining.Piece(SESSION, joining.MOST_PIECES - 1, b"x" * joining.PIECE_SIZE),
    joining.Done(SESSION, PROOF),
]


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda message: type(message).__name__)
def test_a_message_comes_back_whole_and_in_no_other_length(message: joining.JoinMessage) -> None:
    data = joining.encode_message(message)
    assert len(data) <= MAXIMUM_DATAGRAM
    assert joining.decode_message(data) == message
    for cut in cut_anywhere(data):
        shorter = joining.decode_message(cut)
        assert shorter is None or (isinstance(message, joining.Piece) and isinstance(shorter, joining.Piece))
    longer = joining.decode_message(data + b"\0")
    assert longer is None or (isinstance(message, joining.Piece) and len(message.data) < joining.PIECE_SIZE)


def test_the_examples_are_all_messages() -> None:
    assert {type(message) for message in EXAMPLES} == set(joining.MESSAGES)
    assert sorted(kind.step for kind in joining.MESSAGES) == list(range(1, 8))


@pytest.mark.parametrize(
    "message",
    [
        joining.Seek(SESSION, 0, ELEMENT),
        joining.Seek(SESSION, joining.LARGEST_NUMBER + 1, ELEMENT),
        joining.GiverProof(SESSION, PROOF, 0),
        joining.GiverProof(SESSION, PROOF, joining.MOST_PIECES + 1),
        joining.Ask(SESSION, joining.MOST_PIECES, PROOF),
        joining.Piece(SESSION, joining.MOST_PIECES, b"x"),
        joining.Piece(SESSION, 0, b""),
        joining.Piece(SESSION, 0, b"x" * (joining.PIECE_SIZE + 1)),
    ],
    ids=repr,
)
def test_a_value_outside_its_range_is_no_message(message: joining.JoinMessage) -> None:
    assert joining.decode_message(joining.encode_message(message)) is None


def test_padding_that_is_not_zero_is_no_message() -> None:
    data = joining.encode_message(EXAMPLES[0])
    assert joining.decode_message(data[:-1] + b"\1") is None


def test_an_answer_is_never_longer_than_the_question_of_a_stranger() -> None:
    assert len(joining.encode_message(joining.Found(SESSION, ELEMENT))) <= len(
        joining.encode_message(joining.Seek(SESSION, 1, ELEMENT))
    )


def test_relays_and_workers_take_none_of_them_for_theirs() -> None:
    for message in EXAMPLES:
        data = joining.encode_message(message)
        assert not may_be_wrapped(data)  # a cservice passes none on to the others of its host
        assert datagram.parse(data, [bytes(32)]) is None
        assert relay_datagram.read(data) is None
    assert datagram.JOINING not in datagram.KINDS


@given(hostile_bytes)
def test_hostile_bytes_are_no_message_or_exactly_one(data: bytes) -> None:
    for one in (data, joining.HEAD + data):
        message = joining.decode_message(one)
        assert message is None or joining.encode_message(message) == one


@given(mutations(joining.encode_message(EXAMPLES[0])))
def test_a_damaged_message_is_none_or_another_one(data: bytes) -> None:
    message = joining.decode_message(data)
    assert message is None or joining.encode_message(message) == data
