"""The list of revoked certificates as text: exactly what was written, signed by the authority, and nothing else."""

from __future__ import annotations

import pytest

from cexec.errors import KeyFileError
from cexec.protocol.base.keys import OwnerKey
from cexec.protocol.base.revocation import (
    LARGEST_SERIAL,
    MAXIMUM_REVOKED,
    UNKNOWN_NAME,
    RevocationList,
    decode_list,
    encode_list,
)

OWNER = OwnerKey(b"s" * 32)
REVOKED = {1: "default", 77: "laptop", LARGEST_SERIAL: UNKNOWN_NAME}


def made(serial: int = 3, revoked: dict[int, str] = REVOKED, owner: OwnerKey = OWNER) -> RevocationList:
    return RevocationList(owner.authority_public, owner.fingerprint, serial, revoked)


TEXT = encode_list(made(), OWNER.authority_seed)


def test_a_list_comes_back_as_it_was_written() -> None:
    found = decode_list(TEXT.encode())
    assert (found.authority_public, found.fingerprint) == (OWNER.authority_public, OWNER.fingerprint)
    assert (found.serial, found.revoked) == (3, REVOKED)
    assert encode_list(found, OWNER.authority_seed) == TEXT


def test_comments_and_white_space_do_not_count() -> None:
    lines = [f"\t {line}\r" for line in TEXT.splitlines()]
    found = decode_list("\n\n".join(["# a comment", *lines]).encode())
    assert found.revoked == REVOKED


def test_every_changed_byte_and_every_missing_end_is_refused() -> None:
    counting = TEXT[TEXT.index("cexec-revoked") :]
    for at in range(len(counting) - 1):
        changed = counting[:at] + chr(ord(counting[at]) ^ 1) + counting[at + 1 :]
        with pytest.raises(KeyFileError):
            decode_list(changed.encode())
        with pytest.raises(KeyFileError):
            decode_list(counting[:at].encode())


@pytest.mark.parametrize("line", ["revoked: 5 x", "serial: 4", "x", "signature: 00"])
def test_a_trailer_is_refused(line: str) -> None:
    with pytest.raises(KeyFileError):
        decode_list(f"{TEXT}{line}\n".encode())


def test_a_list_signed_by_somebody_else_is_refused() -> None:
    forged = encode_list(made(), OwnerKey(b"t" * 32).authority_seed)
    with pytest.raises(KeyFileError, match="signature is wrong"):
        decode_list(forged.encode())


@pytest.mark.parametrize("bad", [{5: "no name"}, {5: ""}, {5: "x" * 65}, {-1: "x"}, {LARGEST_SERIAL + 1: "x"}])
def test_an_impossible_entry_is_refused_although_it_is_signed(bad: dict[int, str]) -> None:
    with pytest.raises(KeyFileError):
        decode_list(encode_list(made(revoked=bad), OWNER.authority_seed).encode())


def test_a_list_has_a_serial_and_a_bounded_number_of_entries() -> None:
    most = dict.fromkeys(range(MAXIMUM_REVOKED), "x")
    assert decode_list(encode_list(made(revoked=most), OWNER.authority_seed).encode()).revoked == most
    for serial, revoked in ((0, REVOKED), (LARGEST_SERIAL + 1, REVOKED), (1, {**most, MAXIMUM_REVOKED: "x"})):
        with pytest.raises(ValueError):
            made(serial, revoked)


@pytest.mark.parametrize("text", [b"", b"# nothing\n", b"cexec-key: 1 owner\n", b"cexec-revoked: 2\n", b"\xff\xfe"])
def test_another_file_is_told_as_such(text: bytes) -> None:
    with pytest.raises(KeyFileError, match="is damaged"):
        decode_list(text)
