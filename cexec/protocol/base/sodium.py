"""The one place that owns libsodium's handle.

Contract: thin, total functions over PyNaCl; sizes are checked here because libsodium does not.  PyNaCl's compiled
module is used directly (`nacl.bindings` costs the client 15 ms at start and copies every record once more); where a
future PyNaCl moves it, its public bindings' own handle is the fallback.  Failed authentication is `VerifyError`.
"""

from __future__ import annotations

from _operator import _compare_digest as equal  # hmac.compare_digest without the 3 ms of hmac; constant time

try:
    from _blake2 import blake2b  # hashlib's own, without OpenSSL's 5 ms
except ImportError:  # pragma: no cover - a Python without the C module
    from hashlib import blake2b

from cexec.common_errors import ProtocolError, VerifyError

try:
    from nacl._sodium import ffi as ffi
    from nacl._sodium import lib as lib
except ImportError:  # pragma: no cover - a PyNaCl that has moved its compiled module
    from nacl.bindings import crypto_scalarmult as _public_binding

    ffi, lib = _public_binding.__globals__["ffi"], _public_binding.__globals__["lib"]

if lib.sodium_init() < 0:  # pragma: no cover
    raise RuntimeError("libsodium could not be initialised")

KEY_SIZE = 32  # bytes of every key, public or secret, except Ed25519's expanded secret
SIGNING_KEY_SIZE = 64  # bytes of that
SIGNATURE_SIZE = 64
HEADER = 4  # bytes before each box in a `BoxMemory`, which are authenticated with it
SEALED_OVERHEAD = 24 + 16  # bytes that `seal_message` adds: random nonce and tag

_NOTHING = ffi.NULL

__all__ = [
    "KEY_SIZE", "SEALED_OVERHEAD", "SIGNATURE_SIZE", "Aead", "BoxMaker", "BoxMemory", "aead", "aead_names", "blake2b",
    "chacha_open", "chacha_seal", "diffie_hellman", "equal", "keyed_hash", "open_message", "public_key", "random_bytes",
    "seal_message", "sign", "signing_public_key", "verify",
]  # fmt: skip


def random_bytes(size: int) -> bytes:
    """`size` bytes from the operating system's generator, through libsodium."""
    buffer = ffi.new("unsigned char[]", size)
    lib.randombytes(buffer, size)
    return bytes(ffi.buffer(buffer, size))


def keyed_hash(key: bytes, label: bytes, *parts: bytes, size: int = 32) -> bytes:
    """BLAKE2b of `label` (its length before it) and `parts`, keyed; at most 64 bytes.  docs/protocol.md section 0."""
    state = blake2b(key=key, digest_size=size)
    state.update(len(label).to_bytes(1, "big") + label)
    for part in parts:
        state.update(part)
    return state.digest()


# X25519


def public_key(secret: bytes) -> bytes:
    """The X25519 public key of a 32-byte secret."""
    _check(secret, KEY_SIZE)
    result = ffi.new("unsigned char[]", KEY_SIZE)
    lib.crypto_scalarmult_base(result, secret)
    return bytes(ffi.buffer(result, KEY_SIZE))


def diffie_hellman(secret: bytes, public: bytes) -> bytes:
    """X25519; a public key of low order (all-zero result) is a `ProtocolError`."""
    _check(secret, KEY_SIZE)
    _check(public, KEY_SIZE)
    result = ffi.new("unsigned char[]", KEY_SIZE)
    if lib.crypto_scalarmult(result, secret, public) != 0:
        raise ProtocolError("peer sent a public key of low order")
    return bytes(ffi.buffer(result, KEY_SIZE))


# Ed25519


def signing_public_key(seed: bytes) -> bytes:
    """The Ed25519 public key of a 32-byte signing seed."""
    return signing_key(seed)[32:]


def signing_key(seed: bytes) -> bytes:
    """Returns the 64 bytes that `sign` needs; their derivation from the seed takes as long as a signature."""
    _check(seed, KEY_SIZE)
    public = ffi.new("unsigned char[]", KEY_SIZE)
    secret = ffi.new("unsigned char[]", SIGNING_KEY_SIZE)
    lib.crypto_sign_seed_keypair(public, secret, seed)
    return bytes(ffi.buffer(secret, SIGNING_KEY_SIZE))


def sign(key: bytes, message: bytes) -> bytes:
    """The 64-byte Ed25519 signature of `message` with a `signing_key`."""
    _check(key, SIGNING_KEY_SIZE)
    signed = ffi.new("unsigned char[]", len(message) + SIGNATURE_SIZE)
    length = ffi.new("unsigned long long *")
    lib.crypto_sign(signed, length, message, len(message), key)
    return bytes(ffi.buffer(signed, SIGNATURE_SIZE))


def verify(public: bytes, message: bytes, signature: bytes) -> None:
    """Raises `VerifyError` unless `signature` is `public`'s over `message`."""
    _check(public, KEY_SIZE)
    _check(signature, SIGNATURE_SIZE)
    signed = signature + message
    opened = ffi.new("unsigned char[]", len(signed))
    length = ffi.new("unsigned long long *")
    if lib.crypto_sign_open(opened, length, signed, len(signed), public) != 0:
        raise VerifyError("signature didn't verify")


# Authenticated encryption


class Aead:
    """One AEAD of libsodium with nonces that are counters.  `seal` and `open` work in place, without a copy."""

    __slots__ = ("decrypt", "encrypt", "name", "nonce_size", "tag_size")

    def __init__(self, name: str, function: str, nonce_size: int, tag_size: int) -> None:
        self.name = name
        self.nonce_size = nonce_size
        self.tag_size = tag_size
        self.encrypt = getattr(lib, f"crypto_aead_{function}_encrypt")
        self.decrypt = getattr(lib, f"crypto_aead_{function}_decrypt")

    def seal(self, key: bytes, counter: int, data: memoryview, size: int, header: bytes) -> None:
        """Encrypts `data[:size]` where it lies; the tag follows it, so `data` is at least `size + tag_size` long."""
        if len(data) < size + self.tag_size:
            raise ValueError("no room for the tag")
        _check(key, KEY_SIZE)
        where = ffi.from_buffer(data)
        nonce = counter.to_bytes(self.nonce_size, "little")
        self.encrypt(where, ffi.NULL, where, size, header, len(header), ffi.NULL, nonce, key)

    def open(self, key: bytes, counter: int, box: memoryview, header: bytes) -> int:
        """Decrypts `box` where it lies; returns the size of the text, which is then at its front.  `VerifyError`."""
        if len(box) < self.tag_size:
            raise VerifyError("record is too short")
        if len(key) != KEY_SIZE:  # here, because each record comes this way
            _check(key, KEY_SIZE)
        where = ffi.from_buffer(box)
        nonce = counter.to_bytes(self.nonce_size, "little")
        failure = self.decrypt(where, ffi.NULL, ffi.NULL, where, len(box), header, len(header), nonce, key)
        # An exception that is kept keeps this frame, and Python 3.11 crashes when it collects a cycle with cffi's view
        # of a memoryview in it.
        del where
        if failure:
            raise VerifyError("record didn't verify")
        return len(box) - self.tag_size


class BoxMaker:
    """Makes boxes of texts under one key, in memory of its own: for short texts that takes a fifth of `Aead.seal`."""

    __slots__ = ("_box", "_cipher", "_key", "_room", "_view")

    def __init__(self, cipher: Aead, key: bytes, longest: int) -> None:
        """`longest`: bytes of the longest text."""
        _check(key, KEY_SIZE)
        self._cipher = cipher
        self._key = key
        self._room = longest
        self._box = ffi.new("unsigned char[]", longest + cipher.tag_size)
        self._view = ffi.buffer(self._box)

    def make(self, counter: int, text: bytes, header: bytes) -> bytes:
        """Returns the header and the box."""
        size = len(text)
        if size > self._room:
            raise ValueError("text is too long")
        cipher, nothing = self._cipher, ffi.NULL
        nonce = counter.to_bytes(cipher.nonce_size, "little")
        cipher.encrypt(self._box, nothing, text, size, header, len(header), nothing, nonce, self._key)
        return header + bytes(self._view[: size + cipher.tag_size])


class BoxMemory:
    """Memory of which the address is at hand, for boxes that are made or opened where they lie, under one key.

    To find the address of a memoryview takes longer than to seal a short record.  Before each box is its header, HEADER
    bytes that are authenticated with it.  A slice of `octets` is a copy, a slice of `view` is none.
    """

    __slots__ = ("_address", "_cipher", "_first", "_key", "_nonce_size", "_room", "octets", "view")

    def __init__(self, cipher: Aead, key: bytes, size: int) -> None:
        _check(key, KEY_SIZE)
        self._cipher = cipher
        self._key = key
        self._nonce_size = cipher.nonce_size
        self._room = size - HEADER  # bytes of the longest box
        self._address = ffi.new("unsigned char[]", size)
        self._first = self._address + HEADER  # the place of a box behind the first header
        self.octets = ffi.buffer(self._address)
        self.view = memoryview(self.octets)

    def seal(self, counter: int, head: bytes, size: int) -> None:
        """As `Aead.seal`, behind the first header.  `head`: it, and the beginning of the `size` bytes of the text."""
        cipher, text, nothing = self._cipher, self._first, _NOTHING
        if not 0 <= size <= self._room - cipher.tag_size:
            raise ValueError("no room for the tag")
        self.octets[: len(head)] = head
        nonce = counter.to_bytes(self._nonce_size, "little")
        cipher.encrypt(text, nothing, text, size, self._address, HEADER, nothing, nonce, self._key)

    def open(self, counter: int, start: int, size: int) -> int:
        """As `Aead.open`.  `start`: of the header, behind which the box has `size` bytes."""
        cipher, nothing, header, box = self._cipher, _NOTHING, self._address, self._first
        length = size - cipher.tag_size
        if length < 0:
            raise VerifyError("record is too short")
        if not 0 <= start <= self._room - size:
            raise ValueError("box is not in this memory")
        if start:
            header, box = header + start, box + start
        nonce = counter.to_bytes(self._nonce_size, "little")
        if cipher.decrypt(box, nothing, nothing, box, size, header, HEADER, nonce, self._key):
            raise VerifyError("record didn't verify")
        return length


AEGIS = "aegis-256"
CHACHA = "chacha20-poly1305"
_CHACHA = Aead(CHACHA, "chacha20poly1305_ietf", 12, 16)


def aead_names() -> list[str]:
    """Returns the ciphers that this machine offers, best first; AEGIS only if the CPU has instructions for it."""
    if hasattr(lib, "crypto_aead_aegis256_encrypt") and lib.crypto_aead_aes256gcm_is_available():
        return [AEGIS, CHACHA]
    return [CHACHA]


def aead(name: str) -> Aead:
    """The cipher called `name`; `ProtocolError` for one that is not available here."""
    if name == CHACHA:
        return _CHACHA
    if name == AEGIS and hasattr(lib, "crypto_aead_aegis256_encrypt"):
        return Aead(AEGIS, "aegis256", 32, 32)
    raise ProtocolError("peer chose a cipher that is not available here")


def chacha_seal(key: bytes, counter: int, text: bytes, header: bytes) -> bytes:
    """Noise's ENCRYPT: ChaCha20-Poly1305 with a little-endian counter after four zero bytes as the nonce."""
    size = len(text)
    buffer = bytearray(text + bytes(16))
    nonce = bytes(4) + counter.to_bytes(8, "little")
    where = ffi.from_buffer(buffer)
    _CHACHA.encrypt(where, ffi.NULL, where, size, header, len(header), ffi.NULL, nonce, key)
    return bytes(buffer)


def chacha_open(key: bytes, counter: int, box: bytes, header: bytes) -> bytes:
    """Noise's DECRYPT; `VerifyError`."""
    if len(box) < 16:
        raise VerifyError("message is too short")
    buffer = bytearray(box)
    nonce = bytes(4) + counter.to_bytes(8, "little")
    where = ffi.from_buffer(buffer)
    if _CHACHA.decrypt(where, ffi.NULL, ffi.NULL, where, len(box), header, len(header), nonce, key) != 0:
        raise VerifyError("message didn't verify")
    return bytes(buffer[:-16])


def seal_message(key: bytes, text: bytes, header: bytes) -> bytes:
    """XChaCha20-Poly1305 under a key that many hold: a random 24-byte nonce, then the box."""
    _check(key, KEY_SIZE)
    nonce = random_bytes(24)
    box = ffi.new("unsigned char[]", len(text) + 16)
    lib.crypto_aead_xchacha20poly1305_ietf_encrypt(
        box, ffi.NULL, text, len(text), header, len(header), ffi.NULL, nonce, key
    )
    return nonce + bytes(ffi.buffer(box, len(text) + 16))


def open_message(key: bytes, sealed: bytes, header: bytes) -> bytes:
    """Opens what `seal_message` made; `VerifyError`."""
    _check(key, KEY_SIZE)
    if len(sealed) < SEALED_OVERHEAD:
        raise VerifyError("message is too short")
    nonce, box = sealed[:24], sealed[24:]
    text = ffi.new("unsigned char[]", max(1, len(box) - 16))
    opened = lib.crypto_aead_xchacha20poly1305_ietf_decrypt(
        text, ffi.NULL, ffi.NULL, box, len(box), header, len(header), nonce, key
    )
    if opened != 0:
        raise VerifyError("message didn't verify")
    return bytes(ffi.buffer(text, len(box) - 16))


def _check(value: bytes, size: int) -> None:
    if len(value) != size:
        raise ProtocolError(f"expected {size} bytes of key or signature and got {len(value)}")
