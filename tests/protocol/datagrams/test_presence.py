"""HELLO and BYE, docs/protocol.md section 5.1."""

from __future__ import annotations

import pytest
from hypothesis import given

from cexec.errors import ProtocolError, VerifyError
from cexec.protocol.base import sodium
from cexec.protocol.base.certificate import Identity
from cexec.protocol.base.keys import WorkerKey
from cexec.protocol.base.limits import MAXIMUM_DATAGRAM
from cexec.protocol.datagrams import datagram, presence
from cexec.protocol.datagrams.presence import BYE, HELLO, Followed, Presence, encode_presence, open_presence, seal
from tests.protocol.wires import APPLICATION, INSTANCE, STRANGERS, cut_anywhere, hostile_bytes, mutations

WORKER = APPLICATION.worker


def make(**fields: object) -> Presence:
    known = {"purpose": HELLO, "instance": INSTANCE, "sequence": 1, "clock": 1_800_000_000_123, "host": "host-1"}
    return Presence(**{**known, "certificate": WORKER.identity.certificate, **fields})  # type: ignore[arg-type]


BODY = make().encode()
SEALED = seal(WORKER, make())


def fields(value: Presence) -> dict[str, object]:
    return {**{name: getattr(value, name) for name in Presence.__slots__}, "certificate": value.certificate.encode()}


def sealed_body(body: bytes, identity: Identity = WORKER.identity) -> bytes:
    """Any body, as a worker can seal and sign it."""
    signature = identity.sign(presence.SIGNATURE_LABEL, body)
    return sodium.seal_message(WORKER.alert_key, body + signature, presence.SEALING_LABEL)


@pytest.mark.parametrize("purpose", [HELLO, BYE])
def test_a_presence_reads_back_for_workers_and_clients(purpose: int) -> None:
    value = make(purpose=purpose, sequence=2**32 - 1)
    for key in (APPLICATION.other_worker, APPLICATION.client):
        assert fields(open_presence(key, seal(WORKER, value))) == fields(value)
    assert Presence.decode(value.encode()).encode() == value.encode()


def test_it_fits_in_a_datagram_which_has_the_keys_mac1() -> None:
    data = encode_presence(WORKER.mac1_key, seal(WORKER, make(host="h" * 100)), hops=8)
    assert len(data) <= MAXIMUM_DATAGRAM
    parsed = datagram.parse(data, [APPLICATION.client.mac1_key])
    assert parsed is not None and parsed.kind == datagram.PRESENCE
    assert open_presence(APPLICATION.client, parsed.inner).host == "h" * 64
    assert datagram.parse(data, [STRANGERS.client.mac1_key]) is None


def test_nothing_of_it_is_in_the_clear() -> None:
    for secret in (INSTANCE, b"host-1", b"honest"):
        assert secret not in SEALED


def test_a_presence_cut_anywhere_or_with_a_trailer_is_refused() -> None:
    for bad in [*cut_anywhere(BODY), BODY + b"\0"]:
        with pytest.raises(ProtocolError):
            Presence.decode(bad)
    for bad in [*cut_anywhere(SEALED), SEALED + b"\0"]:
        with pytest.raises(ProtocolError):
            open_presence(WORKER, bad)


@given(hostile_bytes | mutations(BODY))
def test_hostile_bodies_of_a_worker_are_protocol_errors(body: bytes) -> None:
    try:
        read = open_presence(WORKER, sealed_body(body))
    except ProtocolError:
        return
    assert read.encode() == body


@given(hostile_bytes | mutations(SEALED))
def test_hostile_bytes_are_protocol_errors(data: bytes) -> None:
    if data != SEALED:
        with pytest.raises(ProtocolError):
            open_presence(WORKER, data)


@pytest.mark.parametrize("purpose", [0, 3, 255])
def test_an_unknown_purpose_is_refused(purpose: int) -> None:
    with pytest.raises(ProtocolError, match="purpose"):
        Presence.decode(bytes([purpose]) + BODY[1:])


@pytest.mark.parametrize("identity", [APPLICATION.client.identity, STRANGERS.worker.identity])
def test_only_a_worker_of_the_application_can_say_it(identity: Identity) -> None:
    with pytest.raises(VerifyError):
        open_presence(WORKER, sealed_body(make(certificate=identity.certificate).encode(), identity))


def test_nobody_can_speak_for_another_worker() -> None:
    with pytest.raises(VerifyError):
        open_presence(WORKER, sealed_body(BODY, APPLICATION.other_worker.identity))


def test_another_key_cannot_open_it() -> None:
    strangers: WorkerKey = STRANGERS.worker
    with pytest.raises(VerifyError):
        open_presence(strangers, SEALED)


# Copies and replays


def test_only_the_first_copy_of_a_statement_is_news() -> None:
    followed = Followed()
    assert followed.news(make(sequence=1))
    assert not followed.news(make(sequence=1))
    assert followed.news(make(sequence=3))
    assert not followed.news(make(sequence=2))


def test_an_instance_that_has_gone_is_gone_for_good() -> None:
    followed = Followed()
    assert followed.news(make(purpose=BYE, sequence=2))
    assert not followed.news(make(sequence=1))
    assert not followed.news(make(sequence=9))
    assert followed.news(make(sequence=1, instance=b"j" * 16))  # cservice again, on the same host


def test_the_instance_heard_longest_ago_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "MAXIMUM_FOLLOWED", 2)
    followed = Followed()
    for instance in (b"1", b"2", b"1", b"3"):
        followed.news(make(instance=instance, sequence=1))
    assert not followed.news(make(instance=b"1", sequence=1))
    assert followed.news(make(instance=b"2", sequence=1))
