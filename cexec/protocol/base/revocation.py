"""The list of the certificates that an application's authority has revoked, as the text of the file APP.revoked.

Contract: a list is a value.  `encode_list` writes and signs the file's text, `decode_list` reads it and checks the
signature, or raises `KeyFileError` whose message lacks the file's name, as `keys.decode_key` does.  The list is whole:
a later one has all entries of the earlier ones and a higher serial.  docs/protocol.md section 1.6.
"""

from __future__ import annotations

from cexec.errors import KeyFileError, ProtocolError
from cexec.protocol.base import sodium
from cexec.protocol.base.certificate import sign_statement, valid_name, verify_signature

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

LIST_VERSION = "1"
LIST_HEAD = "cexec-revoked: "
LIST_LABEL = b"cexec 1 revocation list"
MAXIMUM_REVOKED = 5000  # (protocol) certificates in one list: more are a reason to make a new key
LARGEST_SERIAL = (1 << 64) - 1  # (protocol)
UNKNOWN_NAME = "?"  # of a certificate that was revoked by its serial and is in no record; no name can be so

_COMMENT = "# Revoked certificates: copy this file to every worker and every client, beside its key file."


class RevocationList:
    """`serial` grows with each list of one authority.  `revoked` has the names, which only people read, by serial."""

    __slots__ = ("authority_public", "fingerprint", "revoked", "serial")

    def __init__(self, authority_public: bytes, fingerprint: str, serial: int, revoked: Mapping[int, str]) -> None:
        if not 0 < serial <= LARGEST_SERIAL or len(revoked) > MAXIMUM_REVOKED:
            raise ValueError(f"a list of revoked certificates has at most {MAXIMUM_REVOKED} entries")
        self.authority_public = authority_public
        self.fingerprint = fingerprint
        self.serial = serial
        self.revoked = dict(revoked)


def encode_list(revocations: RevocationList, authority_seed: bytes) -> str:
    """Returns the text of the file, signed; the same list gives the same text."""
    lines = [
        f"{LIST_HEAD}{LIST_VERSION}",
        f"authority: {revocations.authority_public.hex()}",
        f"fingerprint: {revocations.fingerprint}",
        f"serial: {revocations.serial}",
        *(f"revoked: {serial} {name}" for serial, name in sorted(revocations.revoked.items())),
    ]
    signature = sign_statement(authority_seed, LIST_LABEL, _signed(lines))
    return "\n".join([_COMMENT, *lines, f"signature: {signature.hex()}"]) + "\n"


def decode_list(text: bytes) -> RevocationList:
    """Returns the list in a file's text; the caller checks that its authority is the right one."""
    lines = [line.strip() for line in text.decode("utf-8", "replace").split("\n")]
    lines = [line for line in lines if line and not line.startswith("#")]
    if not lines or not lines[0].startswith(LIST_HEAD):
        raise KeyFileError("is damaged: it does not begin like a list of revoked certificates")
    if lines[0] != f"{LIST_HEAD}{LIST_VERSION}":
        raise KeyFileError(f"is damaged, or of a newer cexec: this one reads version {LIST_VERSION}")
    if len(lines) < 5 or len(lines) - 5 > MAXIMUM_REVOKED:
        raise KeyFileError("is damaged: lines are missing, or there are too many")
    authority = _hexadecimal(_value(lines[1], "authority"), sodium.KEY_SIZE)
    fingerprint = _value(lines[2], "fingerprint")
    serial = _number(_value(lines[3], "serial"))
    revoked: dict[int, str] = {}
    last = -1
    for line in lines[4:-1]:
        digits, _, name = _value(line, "revoked").partition(" ")
        number = _number(digits)
        if number <= last or not (valid_name(name) or name == UNKNOWN_NAME):
            raise KeyFileError("is damaged: an entry is malformed")
        revoked[number], last = name, number
    signature = _hexadecimal(_value(lines[-1], "signature"), sodium.SIGNATURE_SIZE)
    try:
        verify_signature(authority, signature, LIST_LABEL, _signed(lines[:-1]))
    except ProtocolError:
        raise KeyFileError("is damaged: its signature is wrong") from None
    if not valid_name(fingerprint) or serial < 1:
        raise KeyFileError("is damaged: its fingerprint or its serial is malformed")
    return RevocationList(authority, fingerprint, serial, revoked)


def _signed(lines: list[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


def _value(line: str, name: str) -> str:
    found, _, value = line.partition(": ")
    if found != name:
        raise KeyFileError("is damaged: a line is missing or does not belong there")
    return value


def _number(digits: str) -> int:
    """Accepts a number only as `encode_list` writes it."""
    if not (digits.isascii() and digits.isdigit()) or len(digits) > 20 or str(int(digits)) != digits:
        raise KeyFileError("is damaged: a number is malformed")
    if int(digits) > LARGEST_SERIAL:
        raise KeyFileError("is damaged: a number is too large")
    return int(digits)


def _hexadecimal(digits: str, size: int) -> bytes:
    try:
        value = bytes.fromhex(digits)
    except ValueError:
        value = b""
    if len(value) != size or value.hex() != digits:
        raise KeyFileError("is damaged: a line is not hexadecimal, or too short")
    return value
