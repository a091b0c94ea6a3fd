"""What a worker says of itself, docs/protocol.md sections 2.4 and 3.1."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cexec.errors import ProtocolError, VerifyError
from cexec.protocol.base import sodium
from cexec.protocol.base.certificate import ROLE_WORKER, Certificate, Identity
from cexec.protocol.base.limits import FIRST_FLIGHT_PAYLOAD, MAXIMUM_DATAGRAM, SECOND_REVISION
from cexec.protocol.base.wire import Writer
from cexec.protocol.datagrams import datagram, hello
from cexec.protocol.datagrams.hello import Hello, decode_answer, encode_answer, open_hello, seal_hello
from tests.protocol.wires import (
    APPLICATION,
    INSTANCE,
    STRANGERS,
    cut_anywhere,
    each_revision,
    hello_of,
    hostile_bytes,
    mutations,
    texts,
)

FULL = hello_of(
    APPLICATION.worker,
    purpose=hello.QUEUED,
    version="1.2",
    load=0.75,
    speed=2.5,
    slots=8,
    running=7,
    waiting=300,
    uptime=86_400,
    clock=1_800_000_000,
    detail="10.0.0.6:41234: timed out",
    attributes={"arch": "x86_64", "gpu": "a100"},
)
BODY = FULL.encode()
SEALED = APPLICATION.announce()
OPENED = APPLICATION.hear(SEALED)
AUTHORITY = APPLICATION.client.authority_public


def fields(value: Hello) -> dict[str, object]:
    known = {name: getattr(value, name) for name in Hello.__slots__}
    return {**known, "certificate": value.certificate.encode(), "ciphers": set(value.ciphers)}


def opened(message: bytes) -> Hello:
    return open_hello(SEALED.handshake(), message, AUTHORITY)


def always(payload: bytes) -> Callable[[bytes], bytes]:
    return lambda h: payload


def seal_payload(payload: Callable[[bytes], bytes]) -> bytes:
    """A first message around any payload, as a worker can make it."""
    return OPENED.handshake().write_message(payload)


# The plain text


def test_a_hello_reads_back() -> None:
    decoded = Hello.decode(BODY)
    assert fields(decoded) == fields(FULL)
    assert decoded.encode() == BODY
    assert decoded.name == "honest"


@given(
    st.sampled_from(hello.PURPOSES),
    st.lists(st.integers(0, 0xFFFF), min_size=5, max_size=5),
    texts,
    st.dictionaries(texts, texts, max_size=3),
)
def test_any_hello_reads_back(purpose: int, numbers: list[int], detail: str, attributes: dict[str, str]) -> None:
    load, speed, slots, running, waiting = numbers
    value = hello_of(
        APPLICATION.worker, purpose=purpose, load=load / 1000, speed=speed / 1000, slots=slots, running=running,
        waiting=waiting, detail=detail, attributes=attributes,
    )  # fmt: skip
    decoded = Hello.decode(value.encode())
    assert fields(decoded) == fields(value)
    assert decoded.encode() == value.encode()


def test_what_a_hello_does_not_say_is_that_of_an_idle_worker_with_one_slot() -> None:
    said = Hello.decode(
        Hello(
            purpose=hello.CENSUS, instance=INSTANCE, certificate=FULL.certificate, host="h", ciphers=[]
        ).encode()
    )  # fmt: skip
    assert (said.load, said.speed, said.slots, said.running, said.waiting) == (0.0, 1.0, 1, 0, 0)
    assert (said.uptime, said.clock, said.version, said.detail, said.attributes) == (0, 0, "", "", {})


@pytest.mark.parametrize("attributes", [{}, {"once": ""}, {"os": "linux"}])
def test_a_worker_says_by_an_attribute_that_no_job_may_be_repeated(attributes: dict[str, str]) -> None:
    said = Hello.decode(hello_of(APPLICATION.worker, attributes=attributes).encode())
    assert (said.once, said.attributes) == ("once" in attributes, attributes)


def test_a_hello_cut_anywhere_or_with_a_trailer_is_refused() -> None:
    for bad in [*cut_anywhere(BODY), BODY + b"\0"]:
        with pytest.raises(ProtocolError):
            Hello.decode(bad)


@pytest.mark.parametrize("purpose", [0, 7, 255])
def test_an_unknown_purpose_is_refused(purpose: int) -> None:
    with pytest.raises(ProtocolError, match="purpose"):
        Hello.decode(bytes([purpose]) + BODY[1:])


def test_numbers_that_do_not_fit_are_clamped() -> None:
    decoded = Hello.decode(hello_of(APPLICATION.worker, load=1e9, speed=-1.0, slots=10**6).encode())
    assert (decoded.load, decoded.speed, decoded.slots) == (65.535, 0.0, 65_535)


def test_a_cipher_that_is_not_known_here_is_passed_over() -> None:
    host = "host-of-this-test"
    data = hello_of(APPLICATION.worker, ciphers=list(hello.CIPHERS), host=host).encode()
    offer = data.index(host.encode()) + len(host)
    assert data[offer] == hello.REVISION_BIT | hello.WANTED_BIT | 0b11
    newer = data[:offer] + b"\xff" + data[offer + 1 :]
    assert Hello.decode(newer).ciphers == list(hello.CIPHERS)


@each_revision
def test_the_offer_tells_the_revision_of_connections(revision: int) -> None:
    """Version 0.1.0 sets no such bit, and passes over it."""
    told = Hello.decode(hello_of(APPLICATION.worker, ciphers=[sodium.CHACHA], revision=revision).encode())
    assert (told.revision, told.ciphers) == (revision, [sodium.CHACHA])


@pytest.mark.parametrize("tells", [False, True])
def test_the_offer_tells_if_a_job_may_ask_to_hear_that_its_slot_is_wanted(tells: bool) -> None:
    told = Hello.decode(hello_of(APPLICATION.worker, ciphers=hello.CIPHERS[1:], tells_wanted=tells).encode())
    assert (told.tells_wanted, told.revision, told.ciphers) == (tells, SECOND_REVISION, list(hello.CIPHERS[1:]))


@pytest.mark.parametrize("gives", [False, True])
@pytest.mark.parametrize("suggests", [False, True])
def test_the_offer_tells_if_a_job_may_have_a_terminal(gives: bool, suggests: bool) -> None:
    value = hello_of(APPLICATION.worker, ciphers=hello.CIPHERS[1:], gives_terminal=gives, suggests_terminal=suggests)
    told = Hello.decode(value.encode())
    assert (told.gives_terminal, told.suggests_terminal) == (gives, suggests)
    assert (told.ciphers, told.revision, told.tells_wanted) == (list(hello.CIPHERS[1:]), SECOND_REVISION, True)


def test_a_long_host_name_is_cut_by_its_worker_and_refused_by_a_client() -> None:
    value = hello_of(APPLICATION.worker, host="h" * 100)
    assert Hello.decode(value.encode()).host == "h" * 64
    value.host = "h" * 65
    with pytest.raises(ProtocolError, match="host name"):
        Hello.decode(value.encode())


@given(hostile_bytes | mutations(BODY))
def test_hostile_plain_text_is_a_protocol_error(data: bytes) -> None:
    try:
        parsed = Hello.decode(data)
    except ProtocolError:
        return
    encoded = parsed.encode()  # other bytes than `data` if it offers unknown ciphers
    assert Hello.decode(encoded).encode() == encoded


# Sealed


@pytest.mark.parametrize("padded_to", [0, 1000])
def test_the_asking_client_opens_it(padded_to: int) -> None:
    message = seal_hello(OPENED.handshake(), APPLICATION.worker.identity, FULL, padded_to)
    assert fields(opened(message)) == fields(FULL)
    assert not padded_to or len(message) == padded_to + 48


def test_every_hello_for_a_connection_fits_in_the_first_flight() -> None:
    seed = sodium.random_bytes(32)
    longest = Certificate.issue(
        APPLICATION.owner.authority_seed, ROLE_WORKER, "n" * 64, 1, sodium.signing_public_key(seed), 1, 2
    )
    value = Hello(
        purpose=hello.CONNECT, instance=INSTANCE, certificate=longest, host="h" * 64, ciphers=list(hello.CIPHERS),
        version="v" * 32, slots=65535, running=65535, waiting=65535, uptime=2**32 - 1, clock=2**64 - 1,
    )  # fmt: skip
    message = seal_hello(OPENED.handshake(), Identity(longest, seed), value, FIRST_FLIGHT_PAYLOAD)
    assert len(message) == FIRST_FLIGHT_PAYLOAD + 48
    assert fields(opened(message)) == fields(value)


def test_padding_that_is_not_zero_is_refused() -> None:
    identity = APPLICATION.worker.identity

    def payload(h: bytes) -> bytes:
        return bytes(Writer().long_bytes(BODY).raw(identity.sign(hello.SIGNATURE_LABEL, h, BODY)).raw(b"\0\0\1"))

    with pytest.raises(ProtocolError, match="padding"):
        opened(seal_payload(payload))


def test_a_flipped_bit_anywhere_is_a_protocol_error() -> None:
    message = seal_hello(OPENED.handshake(), APPLICATION.worker.identity, FULL)
    for offset in range(len(message)):
        with pytest.raises(ProtocolError):
            opened(message[:offset] + bytes([message[offset] ^ 0x80]) + message[offset + 1 :])


def test_a_sealed_hello_cut_anywhere_or_with_a_trailer_is_refused() -> None:
    message = seal_hello(OPENED.handshake(), APPLICATION.worker.identity, FULL)
    for bad in [*cut_anywhere(message), message + b"\0"]:
        with pytest.raises(ProtocolError):
            opened(bad)


@given(hostile_bytes | mutations(BODY))
def test_hostile_payloads_of_a_key_holder_are_protocol_errors(payload: bytes) -> None:
    with pytest.raises(ProtocolError):
        opened(seal_payload(lambda h: payload))


# Who may offer


def refused(identity: Identity, value: Hello) -> None:
    with pytest.raises(VerifyError):
        opened(seal_hello(OPENED.handshake(), identity, value))


def test_a_clients_certificate_does_not_let_serve() -> None:
    value = hello_of(APPLICATION.worker)
    value.certificate = APPLICATION.client.identity.certificate
    refused(APPLICATION.client.identity, value)


def test_a_certificate_of_another_authority_is_refused() -> None:
    refused(STRANGERS.worker.identity, hello_of(STRANGERS.worker))


def test_another_workers_name_is_refused() -> None:
    refused(APPLICATION.other_worker.identity, hello_of(APPLICATION.worker))


@pytest.mark.parametrize("purpose", hello.PURPOSES)
def test_whatever_a_hello_is_for_its_signature_and_its_certificate_are_proved(purpose: int) -> None:
    """Mutants survived that believed a QUEUED, an UNREACHABLE or an answer to a census without its signature."""
    honest, other = APPLICATION.worker.identity, APPLICATION.other_worker.identity
    value = hello_of(APPLICATION.worker, purpose=purpose)
    assert opened(seal_hello(OPENED.handshake(), honest, value)).purpose == purpose
    refused(other, value)
    refused(Identity(honest.certificate, sodium.random_bytes(32)), value)
    value.certificate = STRANGERS.worker.identity.certificate
    refused(STRANGERS.worker.identity, value)
    value.certificate = APPLICATION.client.identity.certificate
    refused(APPLICATION.client.identity, value)


@pytest.mark.parametrize("purpose", hello.PURPOSES)
def test_a_signature_of_another_hello_proves_nothing(purpose: int) -> None:
    """A worker cannot lend what it has signed once, neither from another conversation nor with other words."""
    identity, body = APPLICATION.worker.identity, hello_of(APPLICATION.worker, purpose=purpose).encode()
    signed_elsewhere = identity.sign(hello.SIGNATURE_LABEL, bytes(64), body)
    for signature in (signed_elsewhere, identity.sign(hello.SIGNATURE_LABEL, bytes(64), b""), bytes(64)):
        with pytest.raises(VerifyError):
            opened(seal_payload(always(bytes(Writer().long_bytes(body).raw(signature)))))


# As a datagram


def answer() -> bytes:
    message = seal_hello(OPENED.handshake(), APPLICATION.worker.identity, FULL)
    return encode_answer(APPLICATION.worker.mac1_key, SEALED.mac1, message, hops=8)


def test_an_answer_reads_back() -> None:
    parsed = datagram.parse(answer(), [APPLICATION.client.mac1_key])
    assert parsed is not None and parsed.kind == datagram.ANSWER
    announced, message = decode_answer(parsed.inner)
    assert announced == SEALED.mac1
    assert fields(opened(message)) == fields(FULL)


@pytest.mark.parametrize("size", range(16))
def test_an_answer_too_short_for_the_announcements_mac1_is_refused(size: int) -> None:
    with pytest.raises(ProtocolError):
        decode_answer(bytes(size))


def test_each_answer_is_another_datagram() -> None:
    first, second = (datagram.parse(answer(), [APPLICATION.client.mac1_key]) for _ in range(2))
    assert first is not None and second is not None and first.mac1 != second.mac1


def test_a_long_reason_fits_in_a_datagram() -> None:
    value = hello_of(APPLICATION.worker, purpose=hello.UNREACHABLE, detail="d" * 500)
    message = seal_hello(OPENED.handshake(), APPLICATION.worker.identity, value)
    assert len(encode_answer(APPLICATION.worker.mac1_key, SEALED.mac1, message, hops=8)) <= MAXIMUM_DATAGRAM


def test_a_hello_has_one_of_these_purposes() -> None:
    named = {hello.CONNECT, hello.QUEUED, hello.UNREACHABLE, hello.REFUSED, hello.CENSUS, hello.PROVE}
    assert set(hello.PURPOSES) == named and len(named) == 6
