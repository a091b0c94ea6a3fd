"""Alerts and acknowledgements: round trips, who may say what, hostile bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cexec.errors import ProtocolError, VerifyError
from cexec.protocol.base import sodium
from cexec.protocol.base.keys import ClientKey, OwnerKey, WorkerKey
from cexec.protocol.base.limits import MAXIMUM_DATAGRAM
from cexec.protocol.datagrams import alert, datagram
from cexec.protocol.datagrams.alert import Acknowledgement, Alert

OWNER = OwnerKey(b"\x05" * 32)
CLIENT = OWNER.client_key()
WORKER = OWNER.worker_key("w1")


def told(**changes: object) -> Alert:
    values: dict[str, object] = {
        "outcome": alert.COMPLETED, "certificate": WORKER.identity.certificate, "job_id": b"j" * 16, "attempt": 2,
        "client_name": "alice", "client_address": "10.0.0.6", "worker_name": "w1", "worker_address": "10.0.0.3",
        "instance": b"i" * 16, "series": b"s" * 16, "sequence": 9, "running": [7, 8], "status": 3, "clock": 1_000,
        "duration": 1500, "received": 10, "sent": 20,
    }  # fmt: skip
    return Alert(**{**values, **changes})  # type: ignore[arg-type]


def inner_of(data: bytes, kind: int, key: ClientKey | WorkerKey = CLIENT) -> bytes:
    parsed = datagram.parse(data, (key.mac1_key,))
    assert parsed is not None and parsed.kind == kind
    return parsed.inner


def test_an_alert_arrives_as_it_was_sent() -> None:
    sent = told()
    heard = alert.open_alert(CLIENT, inner_of(alert.encode_alert(WORKER, sent, 8), datagram.ALERT))
    assert heard.encode() == sent.encode()
    assert (heard.running, heard.status, heard.worker_name) == ([7, 8], 3, "w1")


@pytest.mark.parametrize("outcome", alert.OUTCOMES)
def test_nobody_calls_itself_by_another_name_than_its_certificate(outcome: int) -> None:
    """Regression: the holder of one key could write lines in the name of every other worker or client."""
    key: ClientKey | WorkerKey = WORKER if outcome in (alert.COMPLETED, alert.ABANDONED) else CLIENT
    own, other = ("worker_name", "client_name") if key is WORKER else ("client_name", "worker_name")
    name = key.identity.certificate.name
    honest = told(outcome=outcome, certificate=key.identity.certificate, **{own: name, other: "anybody"})
    assert alert.open_alert(CLIENT, inner_of(alert.encode_alert(key, honest, 8), datagram.ALERT)).outcome == outcome
    lie = told(outcome=outcome, certificate=key.identity.certificate, **{own: "somebody", other: name})
    with pytest.raises(ProtocolError, match="another name"):
        alert.open_alert(CLIENT, inner_of(alert.encode_alert(key, lie, 8), datagram.ALERT))


def test_too_many_running_jobs_are_told_as_unknown() -> None:
    heard = Alert.decode(told(running=range(alert.MAXIMUM_RUNNING + 1)).encode())
    assert heard.running is None
    assert Alert.decode(told(running=range(alert.MAXIMUM_RUNNING)).encode()).running == list(range(48))


def test_the_longest_alert_and_acknowledgement_fit_in_a_datagram() -> None:
    names = dict.fromkeys(("client_name", "client_address", "worker_name", "worker_address"), "x" * 64)
    longest = told(
        **names, running=range(alert.MAXIMUM_RUNNING), certificate=OWNER.worker_key("w" * 64).identity.certificate
    )
    assert len(alert.encode_alert(WORKER, longest, 8)) <= MAXIMUM_DATAGRAM
    full = Acknowledgement(certificate=CLIENT.identity.certificate, series=b"s" * 16, sequences=range(64))
    assert len(alert.encode_acknowledgement(CLIENT, full, 8)) <= MAXIMUM_DATAGRAM


def test_every_shorter_or_longer_body_is_refused() -> None:
    body = told().encode()
    for size in range(len(body)):
        with pytest.raises(ProtocolError):
            Alert.decode(body[:size])
    with pytest.raises(ProtocolError):
        Alert.decode(body + b"\0")


def test_an_acknowledgement_arrives_and_its_damage_is_refused() -> None:
    sent = Acknowledgement(certificate=CLIENT.identity.certificate, series=b"s" * 16, sequences=[1, 5, 1 << 63])
    inner = inner_of(alert.encode_acknowledgement(CLIENT, sent, 8), datagram.ACKNOWLEDGEMENT)
    assert alert.open_acknowledgement(WORKER, inner).sequences == [1, 5, 1 << 63]
    body = sent.encode()
    for size in range(len(body)):
        with pytest.raises(ProtocolError):
            Acknowledgement.decode(body[:size])


def test_a_client_cannot_speak_for_a_worker() -> None:
    with pytest.raises(ProtocolError, match="not the sender's"):
        Alert.decode(told(certificate=CLIENT.identity.certificate).encode())
    with pytest.raises(ProtocolError, match="not the sender's"):
        Alert.decode(told(outcome=alert.COMPLAINT).encode())


def test_another_identity_cannot_sign_an_alert() -> None:
    other = OWNER.worker_key("w2")
    inner = inner_of(alert.encode_alert(other, told(), 8), datagram.ALERT)
    with pytest.raises(VerifyError):
        alert.open_alert(CLIENT, inner)


def test_another_application_is_known_by_its_tag() -> None:
    stranger = OwnerKey(b"\x06" * 32).worker_key("w1")
    data = alert.encode_alert(stranger, told(certificate=stranger.identity.certificate), 8)
    inner = data[datagram.INNER_START :]
    assert alert.tag_of(inner) == stranger.alert_tag.hex() != CLIENT.alert_tag.hex()
    with pytest.raises(VerifyError):
        alert.open_alert(CLIENT, inner)


def test_every_flipped_bit_is_refused() -> None:
    inner = inner_of(alert.encode_alert(WORKER, told(), 8), datagram.ALERT)
    for position in range(len(inner)):
        damaged = bytearray(inner)
        damaged[position] ^= 1 << position % 8
        with pytest.raises(ProtocolError):
            alert.open_alert(CLIENT, bytes(damaged))


@given(st.binary(max_size=400))
def test_hostile_bodies_are_protocol_errors(data: bytes) -> None:
    for decode in (Alert.decode, Acknowledgement.decode):
        try:
            parsed = decode(data)
        except ProtocolError:
            continue
        assert parsed.encode() == data


@given(st.binary(max_size=200))
def test_hostile_but_sealed_bytes_are_protocol_errors(data: bytes) -> None:
    """Everyone who holds the psk can seal anything."""
    for label, open_it in (
        (alert.ALERT_LABEL, alert.open_alert),
        (alert.ACKNOWLEDGEMENT_LABEL, alert.open_acknowledgement),
    ):
        inner = CLIENT.alert_tag + sodium.seal_message(CLIENT.alert_key, data, label + CLIENT.alert_tag)
        with pytest.raises(ProtocolError):
            open_it(WORKER, inner)
