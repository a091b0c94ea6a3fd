"""Announcements and claims, docs/protocol.md sections 2.2 and 2.3.  The attacks on them are in test_attacks.py."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cexec.errors import CertificateError, ProtocolError, VerifyError
from cexec.protocol.base import bloom, keys, sodium
from cexec.protocol.base.certificate import ROLE_CLIENT, Certificate, Identity
from cexec.protocol.base.limits import MAXIMUM_DATAGRAM
from cexec.protocol.base.noise import Handshake
from cexec.protocol.datagrams import announcement, datagram
from cexec.protocol.datagrams.announcement import Announcement, SealedAnnouncement
from cexec.protocol.datagrams.opened_announcement import Claim, open_announcement
from cexec.protocol.datagrams.requirements import MAXIMUM_ENCODED, Requirements
from tests.protocol.wires import APPLICATION, JOB_ID, STRANGERS, cut_anywhere, hello_of, hostile_bytes, mutations

SEALED = APPLICATION.announce(
    attempt=2,
    kind=announcement.RUN_ALL,
    weight=3,
    wanted_for=20,
    requirements=Requirements({"gpu": ""}, ["one"]),
)
BODY = SEALED.announcement.encode()


def seal_payload(payload: Callable[[bytes], bytes]) -> bytes:
    """An inner part around any payload, as a holder of `app.pub` can make it."""
    key = APPLICATION.client
    handshake = Handshake(
        "Npsk0", initiator=True, prologue=announcement.PROLOGUE, psk=key.psk, remote_static=key.worker_public
    )
    return handshake.write_message(payload)


def client_with(certificate: Certificate, seed: bytes) -> keys.ClientKey:
    known = APPLICATION.client
    return keys.ClientKey(known.worker_public, known.psk, known.authority_public, Identity(certificate, seed))


def announced_by(key: keys.ClientKey) -> bytes:
    return SealedAnnouncement(key, job_id=JOB_ID, attempt=1).inner


# The plain text


def test_an_announcement_reads_back() -> None:
    decoded = Announcement.decode(BODY)
    assert decoded.encode() == BODY
    assert (decoded.job_id, decoded.attempt, decoded.kind) == (JOB_ID, 2, announcement.RUN_ALL)
    assert (decoded.weight, decoded.wanted_for, decoded.requirements.needs) == (3, 20, {"gpu": ""})
    assert decoded.certificate.encode() == APPLICATION.client.identity.certificate.encode()


def test_what_an_announcement_does_not_say() -> None:
    said = APPLICATION.hear(SealedAnnouncement(APPLICATION.client, job_id=JOB_ID, attempt=1)).announcement
    assert (said.kind, said.weight, said.wanted_for, said.known) == (announcement.RUN_ONE, 1, 15, b"\x01" + bytes(12))
    assert said.proves
    assert not said.requirements
    fields = {name: getattr(said, name) for name in Announcement.__slots__ if name != "known"}
    assert Announcement(**fields).known == b""


def test_who_can_prove_itself_and_who_cannot() -> None:
    """A census is no job, and a client of 0.1.0 says nothing in `known`."""
    census = APPLICATION.hear(APPLICATION.announce(kind=announcement.CENSUS)).announcement
    assert (census.known, census.proves) == (b"", False)
    known = APPLICATION.hear(APPLICATION.announce(kind=announcement.CENSUS, known=[b"i" * 16])).announcement
    assert known.known and not known.proves
    old = APPLICATION.hear(APPLICATION.announce()).announcement
    old.known = b""
    read = Announcement.decode(old.encode())
    assert (read.proves, read.clock) == (False, 0)


def test_a_jobs_announcement_says_when_it_was_made() -> None:
    """A later version may say more behind that; a clock may stand before 1970.

    Regression: where it stood in 2106 or later, no client could announce a job.
    """
    for clock, said in ((1_800_000_000_123, 1_800_000_000_123), (0, 0), (-5, 0)):
        assert APPLICATION.hear(APPLICATION.announce(clocks=(clock, 5))).announcement.clock == said
    for boot, said in ((1_799_999_999, 1_799_999_999), (0, 0), (-5, 0), (1 << 32, (1 << 32) - 1)):
        assert APPLICATION.hear(APPLICATION.announce(clocks=(7, boot))).announcement.boot == said
    more = APPLICATION.hear(APPLICATION.announce(clocks=(7, 6))).announcement
    more.known += b"more"
    read = Announcement.decode(more.encode())
    assert (read.proves, read.clock, read.boot) == (True, 7, 6)
    for short in range(1, 13):  # nobody writes these; announcements without a boot were never released
        more.known = (b"\x01" + 12 * b"\xff")[:short]
        read = Announcement.decode(more.encode())
        assert read.clock < 1 << 8 * min(8, short - 1) and read.boot < 1 << 8 * max(0, short - 9)


def test_a_census_says_it_where_a_job_has_the_hash_of_its_claim() -> None:
    sealed = APPLICATION.announce(kind=announcement.CENSUS, clocks=(7, 6))
    asked = Announcement.decode(APPLICATION.hear(sealed).announcement.encode())
    assert (asked.clock, asked.boot, asked.known, asked.proves) == (7, 6, b"", False)
    asked.claim_hash = b"\1" + asked.claim_hash[1:]  # random bytes, from a client of 0.1.0
    read = Announcement.decode(asked.encode())
    assert (read.clock, read.boot) == (0, 0)


def test_an_announcement_that_is_made_anew_says_the_same_under_another_name() -> None:
    first = APPLICATION.announce(kind=announcement.RUN_ONE, weight=7, attempt=3)
    second = first.anew(APPLICATION.client, (5, 4))
    assert second.mac1 != first.mac1
    said = [APPLICATION.hear(sealed).announcement for sealed in (first, second)]
    assert [(one.job_id, one.attempt, one.kind, one.weight, one.wanted_for) for one in said] == [
        (JOB_ID, 3, 1, 7, 15)
    ] * 2
    assert said[0].reply_key != said[1].reply_key and said[0].claim_hash != said[1].claim_hash


def test_an_announcement_cut_anywhere_or_with_a_trailer_is_refused() -> None:
    for bad in [*cut_anywhere(BODY), BODY + b"\0"]:
        with pytest.raises(ProtocolError):
            Announcement.decode(bad)


@pytest.mark.parametrize("offset_and_value", [(18, b"\0"), (18, b"\4"), (19, b"\0\0")])
def test_an_unknown_kind_and_no_weight_are_refused(offset_and_value: tuple[int, bytes]) -> None:
    offset, value = offset_and_value
    weight_is_three = BODY[19:21] == b"\0\3"
    assert weight_is_three
    with pytest.raises(ProtocolError, match="unknown kind or has no weight"):
        Announcement.decode(BODY[:offset] + value + BODY[offset + len(value) :])


@given(hostile_bytes | mutations(BODY))
def test_hostile_plain_text_is_a_protocol_error(data: bytes) -> None:
    try:
        decoded = Announcement.decode(data)
    except ProtocolError:
        return
    assert decoded.encode() == data


# Sealed


def test_a_worker_opens_what_a_client_sealed() -> None:
    opened = APPLICATION.hear(SEALED)
    assert opened.announcement.encode() == BODY


def test_sent_again_only_counter_port_and_hops_differ() -> None:
    first, second = SEALED.datagram(0, 4000, 8), SEALED.datagram(1, 4001, 7)
    assert first[:6] == second[:6] and first[12:] == second[12:]
    assert first[6:12] == bytes([8, 0, 0, 0, 4000 >> 8, 4000 & 255])
    assert second[6:12] == bytes([7, 0, 0, 1, 4001 >> 8, 4001 & 255])


def test_each_attempt_has_fresh_keys() -> None:
    first, second = APPLICATION.announce(attempt=1), APPLICATION.announce(attempt=2)
    assert first.announcement.reply_key != second.announcement.reply_key
    assert first.announcement.claim_hash != second.announcement.claim_hash
    assert first.inner[:32] != second.inner[:32]  # the ephemeral
    assert first.mac1 != second.mac1


def test_the_longest_announcement_fits_in_a_datagram() -> None:
    seed = sodium.random_bytes(32)
    certificate = Certificate.issue(
        APPLICATION.owner.authority_seed, ROLE_CLIENT, "n" * 64, 1, sodium.signing_public_key(seed), 1, 2
    )
    requirements = Requirements(wanted=["w" * 238, "w" * (MAXIMUM_ENCODED - 3 - 239 - 1)])
    assert len(requirements.encode()) == MAXIMUM_ENCODED
    sealed = SealedAnnouncement(
        client_with(certificate, seed), job_id=JOB_ID, attempt=65535, weight=65535, requirements=requirements
    )
    assert len(sealed.datagram(0, 4000, 8)) <= MAXIMUM_DATAGRAM
    assert APPLICATION.hear(sealed).announcement.requirements.wanted == requirements.wanted


def test_a_census_names_as_many_known_workers_as_there_is_room_for() -> None:
    known = [bytes([number]) * 16 for number in range(1, 200)]
    requirements = Requirements(wanted=["w" * 200])
    said = APPLICATION.announce(kind=announcement.CENSUS, known=known, requirements=requirements)
    heard = APPLICATION.hear(said).announcement
    assert len(heard.known) == min(announcement.MAXIMUM_ASKED - len(requirements.encode()), (199 * bloom.BITS + 7) // 8)
    assert all(bloom.contains(heard.known, heard.reply_key, one) for one in known)
    assert len(said.datagram(0, 4000, 8)) <= MAXIMUM_DATAGRAM
    assert APPLICATION.announce(kind=announcement.CENSUS).announcement.known == b""


def test_nothing_of_the_announcement_is_in_the_clear() -> None:
    data = SEALED.datagram(0, 4000, 8)
    for secret in (JOB_ID, b"one", b"default", APPLICATION.client.psk, SEALED.announcement.reply_key):
        assert secret not in data


def test_a_flipped_bit_anywhere_is_a_protocol_error() -> None:
    for offset in range(len(SEALED.inner)):
        changed = SEALED.inner[:offset] + bytes([SEALED.inner[offset] ^ 0x80]) + SEALED.inner[offset + 1 :]
        with pytest.raises(ProtocolError):
            open_announcement(APPLICATION.worker, changed)


def test_a_sealed_announcement_cut_anywhere_or_with_a_trailer_is_refused() -> None:
    for bad in [*cut_anywhere(SEALED.inner), SEALED.inner + b"\0"]:
        with pytest.raises(ProtocolError):
            open_announcement(APPLICATION.worker, bad)


@given(hostile_bytes | mutations(SEALED.inner))
def test_hostile_inner_parts_are_protocol_errors(data: bytes) -> None:
    if data != SEALED.inner:
        with pytest.raises(ProtocolError):
            open_announcement(APPLICATION.worker, data)


@given(hostile_bytes | mutations(BODY))
def test_hostile_payloads_of_a_key_holder_are_protocol_errors(payload: bytes) -> None:
    with pytest.raises(ProtocolError):
        open_announcement(APPLICATION.worker, seal_payload(lambda h: payload))


# Who may announce


def test_another_application_cannot_open_it() -> None:
    with pytest.raises(VerifyError):
        open_announcement(STRANGERS.worker, SEALED.inner)


def test_a_workers_certificate_does_not_let_announce() -> None:
    identity = APPLICATION.worker.identity
    with pytest.raises(VerifyError, match="is for a worker, not for a client"):
        open_announcement(APPLICATION.worker, announced_by(client_with(identity.certificate, identity.signing_seed)))


def test_a_certificate_of_another_authority_is_refused() -> None:
    identity = STRANGERS.client.identity
    with pytest.raises(VerifyError, match="signature"):
        open_announcement(APPLICATION.worker, announced_by(client_with(identity.certificate, identity.signing_seed)))


def test_a_stolen_certificate_without_its_signing_key_is_refused() -> None:
    certificate = APPLICATION.client.identity.certificate
    with pytest.raises(VerifyError, match="signature"):
        open_announcement(APPLICATION.worker, announced_by(client_with(certificate, b"\x05" * 32)))


def test_dates_are_for_the_caller_to_check() -> None:
    seed = sodium.random_bytes(32)
    expired = Certificate.issue(
        APPLICATION.owner.authority_seed, ROLE_CLIENT, "late", 1, sodium.signing_public_key(seed), None, 1000
    )
    opened = open_announcement(APPLICATION.worker, announced_by(client_with(expired, seed)))
    with pytest.raises(CertificateError, match="expired"):
        opened.announcement.certificate.check_dates(2000.0)


def test_a_reply_key_of_low_order_is_a_protocol_error_when_it_is_answered() -> None:
    key = APPLICATION.client
    hostile = Announcement.decode(BODY)
    hostile.reply_key = bytes(32)
    body = hostile.encode()
    inner = seal_payload(lambda h: body + key.identity.sign(announcement.SIGNATURE_LABEL, h, body))
    opened = open_announcement(APPLICATION.worker, inner)
    hello = hello_of(APPLICATION.worker).encode()
    with pytest.raises(ProtocolError, match="low order"):
        opened.handshake().write_message(lambda h: hello)


def test_an_erased_attempt_can_be_answered_no_more() -> None:
    sealed = APPLICATION.announce()
    sealed.erase()
    with pytest.raises(ValueError, match="erased"):
        sealed.handshake()
    assert datagram.parse(sealed.claim(1, 8), [APPLICATION.client.mac1_key]) is not None  # which comes after


# Claims


def test_a_claim_reads_back_and_proves_itself() -> None:
    parsed = datagram.parse(SEALED.claim(5, 8), [APPLICATION.client.mac1_key])
    assert parsed is not None and parsed.kind == datagram.CLAIM
    assert len(parsed.inner) == announcement.CLAIM_SIZE
    claim = Claim.decode(parsed.inner)
    assert (claim.announced, claim.connected) == (SEALED.mac1, 5)
    assert claim.proves(SEALED.announcement.claim_hash)


@pytest.mark.parametrize(("connected", "told"), [(0, 0), (4096, 4096), (4097, 4096), (10**6, 4096)])
def test_the_number_of_connections_in_a_claim_is_clamped(connected: int, told: int) -> None:
    parsed = datagram.parse(SEALED.claim(connected, 8), [APPLICATION.client.mac1_key])
    assert parsed is not None and Claim.decode(parsed.inner).connected == told
    assert Claim.decode(parsed.inner[:-2] + b"\xff\xff").connected == 4096


def test_a_claim_cut_anywhere_or_with_a_trailer_is_refused() -> None:
    whole = SEALED.claim(5, 8)[datagram.INNER_START :]
    Claim.decode(whole)
    for bad in [*cut_anywhere(whole), whole + b"\0"]:
        with pytest.raises(ProtocolError):
            Claim.decode(bad)


def test_the_claim_of_one_attempt_does_not_end_another() -> None:
    claim = Claim.decode(APPLICATION.announce(attempt=1).claim(5, 8)[datagram.INNER_START :])
    assert not claim.proves(APPLICATION.announce(attempt=2).announcement.claim_hash)


@given(st.binary(min_size=announcement.CLAIM_SIZE, max_size=announcement.CLAIM_SIZE))
def test_a_made_up_claim_proves_nothing(inner: bytes) -> None:
    assert not Claim.decode(inner).proves(SEALED.announcement.claim_hash)
