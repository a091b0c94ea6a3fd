"""The keys of an application: the contents of each key file, their derivation from one seed, and the files' text.

Contract: a key is a value; `encode_key` writes it as the text of a file and `decode_key` reads that text back or raises
`KeyFileError`, whose message lacks the file's name ("is damaged: ..."): the caller puts it in front.  A value that our
own code makes wrongly is a `ValueError`.  docs/protocol.md section 1.
"""

from __future__ import annotations

from cexec.common_errors import KeyFileError
from cexec.protocol.base import sodium
from cexec.protocol.base.certificate import (
    ROLE_CLIENT,
    ROLE_WORKER,
    Certificate,
    Identity,
    valid_name,
    verify_signature,
)
from cexec.protocol.base.client_key import (
    ALERT_TAG_SIZE,
    CHECKSUM_SIZE,
    FINGERPRINT_SIZE,
    KEY_FILE_VERSION,
    ORIGINS,
    ClientKey,
    SharedKey,
    checksum_of,
    client_key_of,
    identity_of,
    made_from_input,
    parse_fields,
    secret_of,
)  # fmt: skip
from cexec.protocol.base.limits import MAXIMUM_NAME

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "ALERT_TAG_SIZE", "CHECKSUM_SIZE", "FINGERPRINT_SIZE", "KEY_FILE_VERSION", "ROLE_CLIENT", "ROLE_WORKER",
    "Certificate", "ClientKey", "Identity", "Key", "OwnerKey", "RelayKey", "WorkerKey", "checksum_of", "decode_key",
    "encode_key", "key_of", "valid_name", "verify_signature",
]  # fmt: skip

SERIAL_SIZE = 8  # bytes (protocol)
DEFAULT_CLIENT_NAME = "default"
DEFAULT_CLIENT_SERIAL = 1  # constant and without dates, so that ckeygen run again makes the identical file


class WorkerKey(SharedKey):
    """`app.worker`, also derived by an owner for its own cservice: its holder may serve."""

    __slots__ = ("worker_secret",)

    kind = "worker"
    description = "worker key"

    def __init__(
        self,
        worker_secret: bytes,
        psk: bytes,
        authority_public: bytes,
        identity: Identity,
        from_input: bool = False,
    ) -> None:
        super().__init__(sodium.public_key(worker_secret), psk, authority_public, identity, from_input)
        self.worker_secret = worker_secret


class RelayKey:
    """`app.relay`: its holder can recognise the application's datagrams, and read none."""

    __slots__ = ("fingerprint", "from_input", "mac1_key")

    kind = "relay"
    description = "relay key"

    def __init__(self, mac1_key: bytes, fingerprint: str, from_input: bool = False) -> None:
        self.mac1_key = mac1_key
        self.fingerprint = fingerprint
        self.from_input = from_input


class OwnerKey:
    """`app`: the seed from which all else is derived; its holder may serve and issue every other key."""

    __slots__ = ("authority_public", "authority_seed", "from_input", "psk", "seed", "worker_secret")

    kind = "owner"
    description = "private key"

    def __init__(self, seed: bytes, from_input: bool = False) -> None:
        self.seed = seed
        self.from_input = from_input
        self.worker_secret = sodium.keyed_hash(seed, b"cexec 1 worker")
        self.psk = sodium.keyed_hash(seed, b"cexec 1 psk")
        self.authority_seed = sodium.keyed_hash(seed, b"cexec 1 authority")
        self.authority_public = sodium.signing_public_key(self.authority_seed)

    @classmethod
    def from_standard_input(cls, chunks: Iterable[bytes]) -> OwnerKey:
        """Returns the key for exactly these bytes, which is as secret as they are; `ValueError` if there are none."""
        label = b"cexec 1 input"
        state = sodium.blake2b(len(label).to_bytes(1, "big") + label, digest_size=sodium.KEY_SIZE)
        size = 0
        for chunk in chunks:
            state.update(chunk)
            size += len(chunk)
        if size == 0:
            raise ValueError("standard input is empty, and everybody knows the key of nothing")
        return cls(state.digest(), from_input=True)

    @property
    def fingerprint(self) -> str:
        return self.client_key().fingerprint

    def client_key(self) -> ClientKey:
        """Returns the default client's key, which is the same on every call."""
        seed = sodium.keyed_hash(self.seed, b"cexec 1 default client")
        identity = self._identity(ROLE_CLIENT, DEFAULT_CLIENT_NAME, DEFAULT_CLIENT_SERIAL, seed)
        worker_public = sodium.public_key(self.worker_secret)
        return ClientKey(worker_public, self.psk, self.authority_public, identity, self.from_input)

    def worker_key(self, name: str) -> WorkerKey:
        """A new worker's key with a random serial; what a name cannot contain becomes `-` in `name`."""
        clean = "".join(letter if valid_name(letter) else "-" for letter in name[:MAXIMUM_NAME]) or "worker"
        return self.issue_worker(clean, random_serial())

    def issue_client(self, name: str, serial: int, not_after: int | None = None) -> ClientKey:
        """Returns a new key for one client, which cannot issue any; `not_after`: seconds since 1970."""
        identity = self._identity(ROLE_CLIENT, name, serial, sodium.random_bytes(sodium.KEY_SIZE), not_after)
        worker_public = sodium.public_key(self.worker_secret)
        return ClientKey(worker_public, self.psk, self.authority_public, identity, self.from_input)

    def issue_worker(self, name: str, serial: int, not_after: int | None = None) -> WorkerKey:
        """Returns a new key for one worker, which cannot issue any; `not_after`: seconds since 1970."""
        identity = self._identity(ROLE_WORKER, name, serial, sodium.random_bytes(sodium.KEY_SIZE), not_after)
        return WorkerKey(self.worker_secret, self.psk, self.authority_public, identity, self.from_input)

    def relay_key(self) -> RelayKey:
        client = self.client_key()
        return RelayKey(client.mac1_key, client.fingerprint, self.from_input)

    def _identity(
        self, role: str, name: str, serial: int, signing_seed: bytes, not_after: int | None = None
    ) -> Identity:
        public_key = sodium.signing_public_key(signing_seed)
        certificate = Certificate.issue(self.authority_seed, role, name, serial, public_key, not_after=not_after)
        return Identity(certificate, signing_seed)


def random_serial() -> int:
    """Returns a serial for a certificate: two holders of one private key need not know what the other issues."""
    return int.from_bytes(sodium.random_bytes(SERIAL_SIZE), "big")


Key = OwnerKey | ClientKey | WorkerKey | RelayKey


# The text of a key file

_SECRECY = {
    "owner": "PRIVATE KEY: whoever holds this file may serve the application and make every other key of it.",
    "client": "SECRET, although its name ends in .pub: whoever holds this file may run jobs.",
    "worker": "SECRET: whoever holds this file may serve the application and is sent its jobs.",
    "relay": "For relays: whoever holds this file may tell the application's datagrams from others, and read none.",
}
_INPUT_WARNING = "Made from standard input: exactly as secret as that input was.  Public input makes a public key."


def encode_key(key: Key) -> str:
    """The text of a key file; the same key gives the same text."""
    fields: dict[str, str] = {"cexec-key": f"{KEY_FILE_VERSION} {key.kind}", "origin": ORIGINS[key.from_input]}
    if isinstance(key, OwnerKey):
        fields["seed"] = key.seed.hex()
    elif isinstance(key, RelayKey):
        fields |= {"mac1": key.mac1_key.hex(), "fingerprint": key.fingerprint}
    else:
        if isinstance(key, WorkerKey):
            fields["worker-secret"] = key.worker_secret.hex()
        else:
            fields["worker-public"] = key.worker_public.hex()
        fields |= {"psk": key.psk.hex(), "authority": key.authority_public.hex()}
        identity = key.identity
        fields |= {"signing-seed": identity.signing_seed.hex(), "certificate": identity.certificate.encode().hex()}
    comments = [f"# {_SECRECY[key.kind]}"] + ([f"# {_INPUT_WARNING}"] if key.from_input else [])
    lines = [f"{name}: {value}" for name, value in fields.items()]
    return "\n".join([*comments, *lines, f"checksum: {checksum_of(lines)}"]) + "\n"


def decode_key(text: bytes) -> Key:
    """The key in a file's text: comments, empty lines and white space around a line do not count."""
    return key_of(*parse_fields(text))


def key_of(kind: str, fields: dict[str, str]) -> Key:
    """Returns the key in the fields of a key file."""
    from_input = made_from_input(fields)
    if kind == "client":
        return client_key_of(fields)
    if kind == "owner":
        return OwnerKey(secret_of(fields, "seed"), from_input)
    if kind == "relay":
        if not valid_name(fields["fingerprint"]):
            raise KeyFileError("is damaged: its fingerprint is malformed")
        return RelayKey(secret_of(fields, "mac1"), fields["fingerprint"], from_input)
    psk, authority, identity = identity_of(kind, fields)
    return WorkerKey(secret_of(fields, "worker-secret"), psk, authority, identity, from_input)
