"""The client's key, and the text of all key files as far as they are alike; `keys` has the other kinds of key.

Contract: as in `keys`.  `parse_fields` returns the kind of a file and its fields, `client_key_of` the key of those of a
client key; `KeyFileError` lacks the file's name.  `origin` and `identity_of` read what several kinds have.
docs/protocol.md section 1.
"""

from __future__ import annotations

from cexec.common_errors import KeyFileError, ProtocolError
from cexec.protocol.base import sodium
from cexec.protocol.base.certificate import Certificate, Identity

KEY_FILE_VERSION = "1"
CHECKSUM_SIZE = 8  # bytes (protocol) of the line that ends a key file
FINGERPRINT_SIZE = 4  # bytes (protocol): two groups of four digits, to be read aloud; it proves nothing
ALERT_TAG_SIZE = 4  # bytes (protocol)

# The text of a key file

FIELDS = {
    "owner": ("seed",),
    "client": ("worker-public", "psk", "authority", "signing-seed", "certificate"),
    "worker": ("worker-secret", "psk", "authority", "signing-seed", "certificate"),
    "relay": ("mac1", "fingerprint"),
}
ORIGINS = {False: "random", True: "input"}


class SharedKey:
    """The part that client keys and worker keys of one application share."""

    __slots__ = (
        "alert_key",
        "alert_tag",
        "authority_public",
        "fingerprint",
        "from_input",
        "identity",
        "mac1_key",
        "psk",
        "worker_public",
    )

    def __init__(
        self, worker_public: bytes, psk: bytes, authority_public: bytes, identity: Identity, from_input: bool
    ) -> None:
        self.worker_public = worker_public
        self.psk = psk
        self.authority_public = authority_public
        self.identity = identity
        self.from_input = from_input
        self.mac1_key = sodium.keyed_hash(psk, b"cexec 1 mac1")
        self.alert_tag = sodium.keyed_hash(psk, b"cexec 1 alert tag", size=ALERT_TAG_SIZE)
        self.alert_key = sodium.keyed_hash(psk, b"cexec 1 alert")
        digits = sodium.keyed_hash(
            b"", b"cexec 1 fingerprint", worker_public, authority_public, size=FINGERPRINT_SIZE
        ).hex()
        self.fingerprint = f"{digits[:4]}-{digits[4:]}"


class ClientKey(SharedKey):
    """`app.pub`: its holder may run jobs.  `from_input` is True if `ckeygen -stdin` made it."""

    __slots__ = ()

    kind = "client"
    description = "client key"

    def __init__(
        self,
        worker_public: bytes,
        psk: bytes,
        authority_public: bytes,
        identity: Identity,
        from_input: bool = False,
    ) -> None:
        super().__init__(worker_public, psk, authority_public, identity, from_input)


def parse_fields(text: bytes) -> tuple[str, dict[str, str]]:
    """Kind and fields of a file whose checksum is right."""
    lines = [line.strip() for line in text.decode("utf-8", "replace").split("\n")]
    lines = [line for line in lines if line and not line.startswith("#")]
    if not lines or not lines[0].startswith("cexec-key: "):
        raise KeyFileError("is damaged: it does not begin like a cexec key" if lines else "is damaged: it holds no key")
    version, _, kind = lines[0].removeprefix("cexec-key: ").partition(" ")
    if version != KEY_FILE_VERSION:
        raise KeyFileError(f"is damaged, or of a newer cexec: this one reads version {KEY_FILE_VERSION}")
    pairs = [line.partition(": ") for line in lines]
    names = [name for name, _, _ in pairs]
    if kind not in FIELDS or names != ["cexec-key", "origin", *FIELDS[kind], "checksum"]:
        raise KeyFileError("is damaged: a line is missing or does not belong there")
    if lines[-1] != f"checksum: {checksum_of(lines[:-1])}":
        raise KeyFileError("is damaged: its checksum is wrong")
    return kind, {name: value for name, _, value in pairs}


def client_key_of(fields: dict[str, str]) -> ClientKey:
    """Returns the key in the fields of a client key's file."""
    psk, authority, identity = identity_of("client", fields)
    return ClientKey(secret_of(fields, "worker-public"), psk, authority, identity, made_from_input(fields))


def made_from_input(fields: dict[str, str]) -> bool:
    """Returns True if the key was made from standard input."""
    if fields["origin"] not in ORIGINS.values():
        raise KeyFileError("is damaged: its origin is unknown")
    return fields["origin"] == ORIGINS[True]


def identity_of(role: str, fields: dict[str, str]) -> tuple[bytes, bytes, Identity]:
    """Returns psk, the authority's public key and the identity of a client or a worker."""
    try:
        psk, authority, seed = (secret_of(fields, name) for name in ("psk", "authority", "signing-seed"))
        identity = Identity(Certificate.decode(bytes_of(fields, "certificate")), seed)
        if identity.public_key != identity.certificate.public_key:
            raise KeyFileError("is damaged: its certificate is for another signing seed")
        identity.certificate.check_signature(authority, role)
    except ProtocolError as error:
        raise KeyFileError(f"is damaged: {error}") from None
    return psk, authority, identity


def bytes_of(fields: dict[str, str], name: str) -> bytes:
    try:
        return bytes.fromhex(fields[name])
    except ValueError:
        raise KeyFileError(f"is damaged: {name} is not hexadecimal") from None


def secret_of(fields: dict[str, str], name: str) -> bytes:
    value = bytes_of(fields, name)
    if len(value) != sodium.KEY_SIZE:
        raise KeyFileError(f"is damaged: {name} is not {sodium.KEY_SIZE} bytes long")
    return value


def checksum_of(lines: list[str]) -> str:
    data = "".join(f"{line}\n" for line in lines).encode()
    return sodium.keyed_hash(b"", b"cexec 1 key file", data, size=CHECKSUM_SIZE).hex()
