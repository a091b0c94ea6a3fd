"""What a relay reads of a datagram, and what of it can be changed, docs/protocol.md section 6."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cexec.protocol.datagrams import datagram, forwarded
from cexec.protocol.datagrams.alert import Acknowledgement, Alert, encode_acknowledgement, encode_alert
from cexec.protocol.datagrams.hello import QUEUED, encode_answer, seal_hello
from cexec.protocol.datagrams.presence import HELLO, Presence, encode_presence, seal
from cexec.protocol.datagrams.proof import MAXIMUM_PROOFS, PROOF_SIZE, encode_proofs
from cexec.protocol.datagrams.relay_datagram import LEAST_INNER, read, rewrite
from tests.protocol.wires import APPLICATION, INSTANCE, JOB_ID, STRANGERS, hello_of, hostile_bytes

KEY = APPLICATION.client.mac1_key
SEALED = APPLICATION.announce()
CERTIFICATE = APPLICATION.worker.identity.certificate


def one_of_each_kind() -> dict[int, bytes]:
    opened = APPLICATION.hear(SEALED)
    hello = seal_hello(opened.handshake(), APPLICATION.worker.identity, hello_of(APPLICATION.worker, purpose=QUEUED))
    said = Presence(purpose=HELLO, instance=INSTANCE, sequence=1, clock=0, host="host", certificate=CERTIFICATE)
    told = Alert(
        outcome=1, certificate=CERTIFICATE, job_id=JOB_ID, attempt=1, client_name="default", client_address="10.0.0.1",
        worker_name="honest", worker_address="10.0.0.2", series=INSTANCE, sequence=1,
    )  # fmt: skip
    heard = Acknowledgement(certificate=APPLICATION.client.identity.certificate, series=INSTANCE, sequences=[1])
    return {
        datagram.ANNOUNCEMENT: SEALED.datagram(3, 4000, 8),
        datagram.CLAIM: SEALED.claim(2, 8),
        datagram.ANSWER: encode_answer(KEY, SEALED.mac1, hello, 8),
        datagram.ALERT: encode_alert(APPLICATION.worker, told, 8),
        datagram.ACKNOWLEDGEMENT: encode_acknowledgement(APPLICATION.client, heard, 8),
        datagram.PRESENCE: encode_presence(KEY, seal(APPLICATION.worker, said), 8),
        datagram.PROOF: encode_proofs(KEY, SEALED.mac1, [bytes(PROOF_SIZE)], 8),
    }


EACH = one_of_each_kind()
WHOLE = EACH[datagram.ANNOUNCEMENT]


@pytest.mark.parametrize("kind", EACH)
def test_every_kind_but_forwarded_is_read_with_and_without_a_key(kind: int) -> None:
    assert set(EACH) == set(datagram.KINDS) - {datagram.FORWARDED} == LEAST_INNER.keys()
    for keys in ((), (KEY,), (STRANGERS.client.mac1_key, KEY)):
        header = read(EACH[kind], keys)
        assert header is not None
        assert (header.kind, header.hops, header.mac1) == (kind, 8, EACH[kind][12:28])


def test_claims_proofs_and_answers_name_their_announcement() -> None:
    about = {kind: header.about for kind, data in EACH.items() if (header := read(data)) is not None}
    assert about == {
        **dict.fromkeys(EACH, b""), datagram.CLAIM: SEALED.mac1, datagram.ANSWER: SEALED.mac1,
        datagram.PROOF: SEALED.mac1,
    }  # fmt: skip


@pytest.mark.parametrize("size", [0, 1, 15, 17, 16 * MAXIMUM_PROOFS + 1, 16 * (MAXIMUM_PROOFS + 1)])
def test_proofs_that_are_cut_or_too_many_are_not_passed_on(size: int) -> None:
    whole = encode_proofs(KEY, SEALED.mac1, [bytes(PROOF_SIZE)] * MAXIMUM_PROOFS, 8)
    assert read(whole) is not None
    assert read((whole + bytes(100))[: 28 + 16 + size]) is None


def test_the_outer_part_is_read() -> None:
    header = read(WHOLE)
    assert header is not None
    assert (header.counter, header.reply_port) == (3, 4000)


def test_more_hops_than_there_may_be_count_as_the_maximum() -> None:
    header = read(rewrite(WHOLE, hops=255))
    assert header is not None and header.hops == 8


def test_what_was_forwarded_is_never_passed_on() -> None:
    wrapped = forwarded.wrap(WHOLE, ("10.0.0.1", 4000))
    assert forwarded.unwrap(wrapped) is not None
    assert read(wrapped) is None


@pytest.mark.parametrize("kind", EACH)
def test_with_a_key_only_the_application_passes(kind: int) -> None:
    assert read(EACH[kind], (STRANGERS.client.mac1_key,)) is None
    assert read(EACH[kind][:-1] + bytes([EACH[kind][-1] ^ 1]), (KEY,)) is None


@pytest.mark.parametrize("kind", EACH)
def test_what_is_cut_has_not_the_shape_or_not_the_key(kind: int) -> None:
    data = EACH[kind]
    least = datagram.INNER_START + LEAST_INNER[kind]
    assert all(read(data[:size]) is None for size in range(least))
    assert all(read(data[:size], (KEY,)) is None for size in range(len(data)))


def test_a_claim_has_one_size() -> None:
    assert read(EACH[datagram.CLAIM] + b"\0") is None
    assert read(EACH[datagram.CLAIM][:-1]) is None


def test_what_is_too_long_or_of_another_version_or_kind_is_dropped() -> None:
    longest = WHOLE + bytes(1232 - len(WHOLE))
    assert read(longest) is not None and read(longest + b"\0") is None
    for offset, value in ((0, 0), (4, 2), (5, 0), (5, 4), (5, 8), (5, 255)):
        assert read(WHOLE[:offset] + bytes([value]) + WHOLE[offset + 1 :]) is None


@given(hostile_bytes)
def test_anything_else_is_dropped_and_nothing_raises(data: bytes) -> None:
    assert read(data) is None
    read(datagram.PREFIX + data)
    read(datagram.PREFIX + data, (KEY,))


@given(st.integers(0, 8), st.integers(0, 65535))
def test_rewriting_changes_hops_and_port_and_what_holds_the_key_accepts_it(hops: int, port: int) -> None:
    changed = rewrite(WHOLE, hops=hops, reply_port=port)
    parsed = datagram.parse(changed, (KEY,))
    assert parsed is not None
    assert (parsed.hops, parsed.reply_port, parsed.counter) == (hops, port, 3)
    assert changed[:6] + changed[7:10] + changed[12:] == WHOLE[:6] + WHOLE[7:10] + WHOLE[12:]
    assert rewrite(changed, hops=8, reply_port=4000) == WHOLE == rewrite(WHOLE)


def test_nothing_that_is_sealed_is_visible() -> None:
    assert all(b"default" not in data and b"10.0.0.1" not in data for data in EACH.values())
