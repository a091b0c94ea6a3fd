"""The Noise handshakes against public vectors, against another implementation, and against misuse."""

from __future__ import annotations

import copy
import json
import pickle

import pytest

from cexec.errors import ProtocolError, VerifyError
from cexec.protocol.base import noise, sodium
from tests.needs import require_vectors

PATTERNS = ("Npsk0", "NKpsk0")


def pair(pattern: str, **changes: bytes) -> tuple[noise.Handshake, noise.Handshake]:
    secret = b"\x07" * 32
    initiator = noise.Handshake(
        pattern,
        initiator=True,
        prologue=changes.get("prologue", b"p"),
        psk=changes.get("psk", b"\x01" * 32),
        remote_static=changes.get("remote_static", sodium.public_key(secret)),
    )
    return initiator, noise.Handshake(pattern, initiator=False, prologue=b"p", psk=b"\x01" * 32, static=secret)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_public_vectors(pattern: str) -> None:
    path = require_vectors("noise.json")
    name = f"Noise_{pattern}_25519_ChaChaPoly_BLAKE2b"
    vectors = [vector for vector in json.loads(path.read_text())["vectors"] if vector["protocol_name"] == name]
    assert vectors, f"no vector for {name}"
    for vector in vectors:
        texts = {key: text for key, text in vector.items() if isinstance(text, str) and key != "protocol_name"}
        value = {key: bytes.fromhex(text) for key, text in texts.items()}
        initiator = noise.Handshake(
            pattern,
            initiator=True,
            prologue=value["init_prologue"],
            psk=bytes.fromhex(vector["init_psks"][0]),
            remote_static=value["init_remote_static"],
            ephemeral_for_tests=value["init_ephemeral"],
        )
        responder = noise.Handshake(
            pattern,
            initiator=False,
            prologue=value["resp_prologue"],
            psk=bytes.fromhex(vector["resp_psks"][0]),
            static=value["resp_static"],
            ephemeral_for_tests=value.get("resp_ephemeral"),
        )
        messages = [(bytes.fromhex(m["payload"]), bytes.fromhex(m["ciphertext"])) for m in vector["messages"]]
        count = len(noise.PATTERNS[pattern])
        sides = [initiator, responder]
        for index, (payload, ciphertext) in enumerate(messages[:count]):
            writer, reader = sides[index % 2], sides[1 - index % 2]
            assert writer.write_message(lambda h: payload) == ciphertext  # noqa: B023
            assert reader.read_message(ciphertext)[0] == payload
        assert initiator.hash == responder.hash == value["handshake_hash"]
        keys = initiator.split()
        assert keys == responder.split()
        counters = [0, 0]
        for index, (payload, ciphertext) in enumerate(messages[count:], start=count):
            way = 0 if pattern == "Npsk0" else index % 2
            assert sodium.chacha_seal(keys[way], counters[way], payload, b"") == ciphertext
            assert sodium.chacha_open(keys[way], counters[way], ciphertext, b"") == payload
            counters[way] += 1


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("we_initiate", [True, False])
def test_talks_to_noiseprotocol(pattern: str, we_initiate: bool) -> None:
    connection = pytest.importorskip("noise.connection")
    secret = sodium.random_bytes(32)
    other = connection.NoiseConnection.from_name(f"Noise_{pattern}_25519_ChaChaPoly_BLAKE2b".encode())
    other.set_psks(psk=b"\x09" * 32)
    other.set_prologue(b"prologue")
    if we_initiate:
        other.set_as_responder()
        other.set_keypair_from_private_bytes(connection.Keypair.STATIC, secret)
    else:
        other.set_as_initiator()
        other.set_keypair_from_public_bytes(connection.Keypair.REMOTE_STATIC, sodium.public_key(secret))
    other.start_handshake()
    ours = noise.Handshake(
        pattern,
        initiator=we_initiate,
        prologue=b"prologue",
        psk=b"\x09" * 32,
        remote_static=sodium.public_key(secret) if we_initiate else None,
        static=None if we_initiate else secret,
    )
    for index in range(len(noise.PATTERNS[pattern])):
        if (index % 2 == 0) == we_initiate:
            assert other.read_message(ours.write_message(lambda h: b"from us")) == b"from us"
        else:
            assert ours.read_message(bytes(other.write_message(b"from them")))[0] == b"from them"
    assert ours.hash == other.get_handshake_hash()
    first, second = ours.split()
    sending, receiving = (first, second) if we_initiate else (second, first)
    if pattern == "NKpsk0" or we_initiate:
        assert other.decrypt(sodium.chacha_seal(sending, 0, b"text", b"")) == b"text"
    if pattern == "NKpsk0" or not we_initiate:
        assert sodium.chacha_open(receiving, 0, bytes(other.encrypt(b"text")), b"") == b"text"


@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_flipped_bit_is_refused_and_changes_nothing(pattern: str) -> None:
    initiator, responder = pair(pattern)
    message = initiator.write_message(lambda h: b"hello")
    before = responder.hash
    for position in range(len(message)):
        damaged = bytearray(message)
        damaged[position] ^= 1 << position % 8
        with pytest.raises(ProtocolError):
            responder.read_message(bytes(damaged))
        assert responder.hash == before
    assert responder.read_message(message)[0] == b"hello"


@pytest.mark.parametrize("size", range(48))
def test_short_message_is_refused(size: int) -> None:
    initiator, responder = pair("Npsk0")
    with pytest.raises(ProtocolError):
        responder.read_message(initiator.write_message(lambda h: b"")[:size])


@pytest.mark.parametrize("change", ["prologue", "psk", "remote_static"])
def test_different_secrets_do_not_meet(change: str) -> None:
    initiator, responder = pair("NKpsk0", **{change: sodium.public_key(b"\x33" * 32)})
    with pytest.raises(VerifyError):
        responder.read_message(initiator.write_message(lambda h: b"hello"))


def test_low_order_public_key_is_refused() -> None:
    _, responder = pair("Npsk0")
    with pytest.raises(ProtocolError):
        responder.read_message(bytes(100))


def test_writer_signs_the_hash_that_the_reader_sees() -> None:
    initiator, responder = pair("NKpsk0")
    seen: list[bytes] = []

    def sign(so_far: bytes) -> bytes:
        seen.append(so_far)
        return b"x"

    message = initiator.write_message(sign)
    assert responder.read_message(message) == (b"x", seen[0])


def test_out_of_turn_and_after_the_end_is_refused() -> None:
    initiator, responder = pair("Npsk0")
    with pytest.raises(ValueError, match="turn"):
        responder.write_message(lambda h: b"")
    with pytest.raises(ValueError, match="not finished"):
        initiator.split()
    responder.read_message(initiator.write_message(lambda h: b""))
    assert initiator.split() == responder.split()
    for call in (initiator.split, lambda: initiator.write_message(lambda h: b"")):
        with pytest.raises(ValueError, match="handshake"):
            call()


def test_cannot_be_copied() -> None:
    initiator, _ = pair("NKpsk0")
    for attempt in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="cannot be copied"):
            attempt(initiator)
