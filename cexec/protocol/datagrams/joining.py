"""The datagrams by which one machine gives another one a file after both were told the same short code.

Contract: `decode_message` returns the message in a datagram, or None for everything that is not exactly one; it never
raises.  Each message is a class with the fields of docs/protocol.md section 2.7 and `encode`.  These datagrams have the
magic and the version of section 2.1 but no mac1, because the receiver of a key has no key yet: relays pass none on, and
workers drop them.  What they carry is proved by `cexec.authority`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from cexec.errors import ProtocolError
from cexec.protocol.base.limits import IDENTITY_SIZE, MAXIMUM_DATAGRAM
from cexec.protocol.base.wire import Reader, Writer
from cexec.protocol.datagrams.datagram import JOINING, PREFIX

ELEMENT_SIZE = 33  # bytes (protocol) of a message of SPAKE2: its side, and a point of Ed25519
PROOF_SIZE = 32  # bytes (protocol) of a key's confirmation
SEEK_PADDING = 64  # bytes (protocol): nobody can make a giver send more than he has sent himself
PIECE_SIZE = 1024  # bytes (protocol) of the sealed file in one datagram
MOST_PIECES = 20  # (protocol): a key file of the largest size, sealed
LARGEST_NUMBER = 9999  # (protocol) of a code

HEAD = PREFIX + bytes([JOINING])


@dataclass(frozen=True, slots=True)
class Seek:
    """The taker to the group: who gives under this number?"""

    step: ClassVar = 1
    session: bytes
    number: int
    element: bytes

    def body(self) -> bytes:
        return bytes(Writer().u16(self.number).raw(self.element).raw(bytes(SEEK_PADDING)))

    @classmethod
    def read(cls, session: bytes, reader: Reader) -> Seek:
        seek = cls(session, reader.u16(), reader.take(ELEMENT_SIZE))
        if reader.take(SEEK_PADDING) != bytes(SEEK_PADDING) or not 1 <= seek.number <= LARGEST_NUMBER:
            raise ProtocolError("seek is malformed")
        return seek


@dataclass(frozen=True, slots=True)
class Found:
    """The giver to the taker: I do."""

    step: ClassVar = 2
    session: bytes
    element: bytes

    def body(self) -> bytes:
        return self.element

    @classmethod
    def read(cls, session: bytes, reader: Reader) -> Found:
        return cls(session, reader.take(ELEMENT_SIZE))


@dataclass(frozen=True, slots=True)
class TakerProof:
    """The taker: I know the code."""

    step: ClassVar = 3
    session: bytes
    proof: bytes

    def body(self) -> bytes:
        return self.proof

    @classmethod
    def read(cls, session: bytes, reader: Reader) -> TakerProof:
        return cls(session, reader.take(PROOF_SIZE))


@dataclass(frozen=True, slots=True)
class GiverProof:
    """The giver: so do I, and the sealed file has so many pieces."""

    step: ClassVar = 4
    session: bytes
    proof: bytes
    pieces: int

    def body(self) -> bytes:
        return bytes(Writer().raw(self.proof).u8(self.pieces))

    @classmethod
    def read(cls, session: bytes, reader: Reader) -> GiverProof:
        proof = cls(session, reader.take(PROOF_SIZE), reader.u8())
        if not 1 <= proof.pieces <= MOST_PIECES:
            raise ProtocolError("number of pieces is impossible")
        return proof


@dataclass(frozen=True, slots=True)
class Ask:
    """The taker: send this piece, counted from 0."""

    step: ClassVar = 5
    session: bytes
    index: int
    proof: bytes

    def body(self) -> bytes:
        return bytes(Writer().u8(self.index).raw(self.proof))

    @classmethod
    def read(cls, session: bytes, reader: Reader) -> Ask:
        ask = cls(session, reader.u8(), reader.take(PROOF_SIZE))
        if ask.index >= MOST_PIECES:
            raise ProtocolError("there is no such piece")
        return ask


@dataclass(frozen=True, slots=True)
class Piece:
    """The giver: here it is."""

    step: ClassVar = 6
    session: bytes
    index: int
    data: bytes

    def body(self) -> bytes:
        return bytes(Writer().u8(self.index).raw(self.data))

    @classmethod
    def read(cls, session: bytes, reader: Reader) -> Piece:
        piece = cls(session, reader.u8(), reader.rest())
        if piece.index >= MOST_PIECES or not 1 <= len(piece.data) <= PIECE_SIZE:
            raise ProtocolError("piece is malformed")
        return piece


@dataclass(frozen=True, slots=True)
class Done:
    """The taker: the file is written."""

    step: ClassVar = 7
    session: bytes
    proof: bytes

    def body(self) -> bytes:
        return self.proof

    @classmethod
    def read(cls, session: bytes, reader: Reader) -> Done:
        return cls(session, reader.take(PROOF_SIZE))


JoinMessage: TypeAlias = Seek | Found | TakerProof | GiverProof | Ask | Piece | Done
MESSAGES: tuple[type[JoinMessage], ...] = (Seek, Found, TakerProof, GiverProof, Ask, Piece, Done)
_BY_STEP = {kind.step: kind for kind in MESSAGES}


def encode_message(message: JoinMessage) -> bytes:
    """Returns the datagram."""
    return HEAD + bytes([message.step]) + message.session + message.body()


def decode_message(data: bytes) -> JoinMessage | None:
    """Returns the message in a datagram, if it is one."""
    if not data.startswith(HEAD) or len(data) > MAXIMUM_DATAGRAM:
        return None
    reader = Reader(data[len(HEAD) :])
    try:
        kind = _BY_STEP.get(reader.u8())
        if kind is None:
            return None
        message = kind.read(reader.take(IDENTITY_SIZE), reader)
        reader.finish()
    except ProtocolError:
        return None
    return message
