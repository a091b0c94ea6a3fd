"""What the holders of key files cannot do, as the table in docs/security.md says: `test_worker_file` has the worker's.

The holder of a client's file, of a relay's file, and a thief who has all files, but later than the job that he has
recorded.
"""

from __future__ import annotations

import pytest

from cexec.errors import ProtocolError, VerifyError
from cexec.protocol.base import sodium
from cexec.protocol.base.noise import Handshake
from cexec.protocol.connection.channel import FIRST_FLIGHT, OPENING
from cexec.protocol.datagrams import alert, datagram, presence
from cexec.protocol.datagrams.announcement import ANSWER_PROLOGUE, PROLOGUE
from cexec.protocol.datagrams.hello import decode_answer, open_hello, seal_hello
from cexec.protocol.datagrams.opened_announcement import Claim, open_announcement
from cexec.protocol.datagrams.proof import Prover, decode_proofs
from tests.protocol.wires import APPLICATION, hello_of, join

CLIENT, WORKER, OWNER = APPLICATION.client, APPLICATION.worker, APPLICATION.owner
SOURCE = ("10.0.0.9", 5000)


def readers(prologue: bytes, psk: bytes, pattern: str, secrets: list[bytes]) -> list[Handshake]:
    """Responders that try each secret."""
    return [Handshake(pattern, initiator=False, prologue=prologue, psk=psk, static=secret) for secret in secrets]


def recorded_job() -> tuple[bytes, bytes]:
    """Inner part of an announcement, and the first flight that answered it, of a job that is over."""
    sealed = APPLICATION.announce()
    wire = join(sealed=sealed, robots=True).flow().raise_errors()
    sealed.erase()
    with pytest.raises(ValueError, match="erased"):
        sealed.handshake()  # the client itself cannot do it again
    return sealed.inner, wire.to_client.carried[:FIRST_FLIGHT]


# A client's file


def test_a_client_cannot_read_what_another_one_announces() -> None:
    inner = APPLICATION.announce().inner
    known = [CLIENT.psk, CLIENT.mac1_key, CLIENT.alert_key, CLIENT.identity.signing_seed, CLIENT.worker_public]
    for reader in readers(PROLOGUE, CLIENT.psk, "Npsk0", known):
        with pytest.raises(VerifyError):
            reader.read_message(inner)
    (worker,) = readers(PROLOGUE, CLIENT.psk, "Npsk0", [WORKER.worker_secret])
    worker.read_message(inner)  # so only the secret was missing


def test_a_client_is_no_worker() -> None:
    sealed = APPLICATION.announce()
    hello = hello_of(WORKER)
    hello.certificate = CLIENT.identity.certificate
    message = seal_hello(APPLICATION.hear(sealed).handshake(), CLIENT.identity, hello)
    with pytest.raises(VerifyError, match="not for a worker"):
        open_hello(sealed.handshake(), message, CLIENT.authority_public)


# A relay's file


def made_by_a_relay(kind: int, inner: bytes) -> datagram.Datagram:
    """A datagram that passes the first check."""
    mac1 = datagram.compute_mac1(OWNER.relay_key().mac1_key, kind, inner)
    parsed = datagram.parse(datagram.encode(kind, mac1, inner, hops=8), [WORKER.mac1_key])
    assert parsed is not None and parsed.kind == kind
    return parsed


def test_nobody_believes_a_datagram_that_a_relay_has_made() -> None:
    sealed = APPLICATION.announce()
    opened = APPLICATION.hear(sealed)
    noise = sodium.random_bytes(300)
    with pytest.raises(ProtocolError):
        open_announcement(WORKER, made_by_a_relay(datagram.ANNOUNCEMENT, noise).inner)
    claim = Claim.decode(made_by_a_relay(datagram.CLAIM, sealed.mac1 + noise[:34]).inner)
    assert not claim.proves(opened.announcement.claim_hash)
    _, message = decode_answer(made_by_a_relay(datagram.ANSWER, sealed.mac1 + noise).inner)
    with pytest.raises(ProtocolError):
        open_hello(sealed.handshake(), message, CLIENT.authority_public)
    sealed_text = CLIENT.alert_tag + noise  # the tag is in the clear
    with pytest.raises(ProtocolError):
        alert.open_alert(CLIENT, made_by_a_relay(datagram.ALERT, sealed_text).inner)
    with pytest.raises(ProtocolError):
        alert.open_acknowledgement(WORKER, made_by_a_relay(datagram.ACKNOWLEDGEMENT, sealed_text).inner)
    with pytest.raises(ProtocolError):
        presence.open_presence(CLIENT, made_by_a_relay(datagram.PRESENCE, noise).inner)
    announced, proofs = decode_proofs(made_by_a_relay(datagram.PROOF, sealed.mac1 + noise[:32]).inner)
    assert not Prover(bytes(32)).proves(proofs, announced, SOURCE, 0.0)


# All files, later


def test_all_files_together_do_not_open_a_job_that_was_recorded_before() -> None:
    """They open the announcement, and the reply key whose secret opens the first flight is in none of them."""
    inner, first_flight = recorded_job()
    opened = open_announcement(WORKER, inner)
    secrets = [
        OWNER.seed, OWNER.authority_seed, OWNER.psk, WORKER.worker_secret, WORKER.identity.signing_seed,
        CLIENT.identity.signing_seed, opened.psk, opened.announcement.reply_key, opened.announcement.claim_hash,
    ]  # fmt: skip
    for reader in readers(ANSWER_PROLOGUE + opened.hash, opened.psk, "NKpsk0", secrets):
        with pytest.raises(VerifyError):
            reader.read_message(first_flight[len(OPENING) :])
