"""What the holder of a worker's key can make of it: no client key, no other worker's, no list, and no authority."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cexec.errors import CexecError, KeyFileError, VerifyError
from cexec.protocol.base import sodium
from cexec.protocol.base.certificate import ROLE_CLIENT, ROLE_WORKER, Certificate, Identity
from cexec.protocol.base.keys import ClientKey, WorkerKey, decode_key, encode_key
from cexec.protocol.base.revocation import RevocationList, decode_list, encode_list
from cexec.protocol.datagrams.hello import open_hello, seal_hello
from tests.protocol.wires import APPLICATION, hello_of

OWNER = APPLICATION.owner
STOLEN = OWNER.issue_worker("box", 7)  # all that the attacker has, besides what is public
LABELS = ("worker", "psk", "authority", "default client", "mac1")


def seeds() -> Iterator[bytes]:
    """Every 32 bytes that the file has, and what the derivations of section 1.1 make of each."""
    own = (STOLEN.worker_secret, STOLEN.psk, STOLEN.identity.signing_seed, STOLEN.authority_public, STOLEN.mac1_key)
    for secret in own:
        yield secret
        for label in LABELS:
            yield sodium.keyed_hash(secret, f"cexec 1 {label}".encode())


def forged(role: str) -> Iterator[Identity]:
    """Certificates that the attacker can sign, and its own with the other role."""
    signing_seed = bytes(range(32))
    public_key = sodium.signing_public_key(signing_seed)
    for seed in seeds():
        yield Identity(Certificate.issue(seed, role, "mallory", 99, public_key), signing_seed)
    own = STOLEN.identity.certificate
    lifted = Certificate(role, own.name, own.serial, None, None, own.public_key, own.signature)
    yield Identity(lifted, STOLEN.identity.signing_seed)


def test_no_announcement_is_accepted_with_what_a_worker_has() -> None:
    attempts = [*forged(ROLE_CLIENT), STOLEN.identity]
    assert len(attempts) > 30
    for identity in attempts:
        mallory = ClientKey(STOLEN.worker_public, STOLEN.psk, STOLEN.authority_public, identity)
        sealed = type(APPLICATION.announce())(mallory, job_id=bytes(16), attempt=1)
        with pytest.raises(VerifyError):
            APPLICATION.hear(sealed)
    assert APPLICATION.hear(APPLICATION.announce())  # the same way is open to a client


def test_no_other_worker_is_believed_with_what_a_worker_has() -> None:
    for identity in forged(ROLE_WORKER):
        if identity.certificate.name == "box":
            continue  # that is itself
        mallory = WorkerKey(STOLEN.worker_secret, STOLEN.psk, STOLEN.authority_public, identity)
        sealed = APPLICATION.announce()
        message = seal_hello(APPLICATION.hear(sealed).handshake(), identity, hello_of(mallory))
        with pytest.raises(VerifyError):
            open_hello(sealed.handshake(), message, OWNER.authority_public)


def test_no_key_file_is_accepted_that_a_worker_has_made() -> None:
    for identity in forged(ROLE_CLIENT):
        client = ClientKey(STOLEN.worker_public, STOLEN.psk, STOLEN.authority_public, identity)
        with pytest.raises(KeyFileError):
            decode_key(encode_key(client).encode())


def test_no_list_is_accepted_that_a_worker_has_signed() -> None:
    listed = RevocationList(OWNER.authority_public, OWNER.fingerprint, 1, {1: "default"})
    for seed in seeds():
        with pytest.raises(CexecError):
            decode_list(encode_list(listed, seed).encode())
    assert decode_list(encode_list(listed, OWNER.authority_seed).encode()).revoked == {1: "default"}
