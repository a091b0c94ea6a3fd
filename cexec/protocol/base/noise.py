"""The two Noise handshakes that cexec uses, Npsk0 and NKpsk0 (25519, ChaChaPoly, BLAKE2b), on PyNaCl's primitives.

Contract: follows the Noise Protocol Framework, revision 34.  `Handshake` is a pure machine: messages are written and
read in the order of the pattern; a step either succeeds whole or leaves the state as it was; after the last message
`split()` turns the machine into two transport keys and the machine refuses everything else.  A handshake cannot be
copied: one ephemeral, one conversation.  Bytes that do not verify raise `VerifyError` or `ProtocolError`.
The callers' use of it is in docs/protocol.md sections 2 and 3.
"""

from __future__ import annotations

from cexec.common_errors import ProtocolError
from cexec.protocol.base import sodium

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

HASH_SIZE = 64  # bytes of BLAKE2b
BLOCK_SIZE = 128  # bytes of BLAKE2b, for HMAC
TAG_SIZE = 16
OVERHEAD = sodium.KEY_SIZE + TAG_SIZE  # bytes that every message of both patterns adds to its payload

# Message patterns after the pre-message "<- s"; the first is the initiator's.
PATTERNS = {
    "Npsk0": (("psk", "e", "es"),),
    "NKpsk0": (("psk", "e", "es"), ("e", "ee")),
}

_INNER_PAD = bytes(byte ^ 0x36 for byte in range(256))
_OUTER_PAD = bytes(byte ^ 0x5C for byte in range(256))


def hmac(key: bytes, *parts: bytes) -> bytes:
    """HMAC-BLAKE2b; `hmac` of the standard library costs 3 ms at start."""
    block = key.ljust(BLOCK_SIZE, b"\0")
    inner = sodium.blake2b(block.translate(_INNER_PAD))
    for part in parts:
        inner.update(part)
    return sodium.blake2b(block.translate(_OUTER_PAD) + inner.digest()).digest()


def hkdf(chaining_key: bytes, material: bytes, outputs: int) -> list[bytes]:
    """Noise's HKDF: two or three 64-byte outputs."""
    secret = hmac(chaining_key, material)
    results: list[bytes] = []
    previous = b""
    for number in range(1, outputs + 1):
        previous = hmac(secret, previous, bytes([number]))
        results.append(previous)
    return results


class SymmetricState:
    """Noise's SymmetricState; `copy` lets a step work on a draft."""

    __slots__ = ("chaining_key", "hash", "key", "nonce")

    def __init__(self, chaining_key: bytes, hash_value: bytes, key: bytes | None, nonce: int) -> None:
        self.chaining_key = chaining_key
        self.hash = hash_value
        self.key = key
        self.nonce = nonce

    def copy(self) -> SymmetricState:
        return SymmetricState(self.chaining_key, self.hash, self.key, self.nonce)

    def mix_hash(self, data: bytes) -> None:
        self.hash = sodium.blake2b(self.hash + data).digest()

    def mix_key(self, material: bytes) -> None:
        self.chaining_key, key = hkdf(self.chaining_key, material, 2)
        self.key, self.nonce = key[: sodium.KEY_SIZE], 0

    def mix_key_and_hash(self, material: bytes) -> None:
        self.chaining_key, hash_material, key = hkdf(self.chaining_key, material, 3)
        self.mix_hash(hash_material)
        self.key, self.nonce = key[: sodium.KEY_SIZE], 0

    def encrypt(self, text: bytes) -> bytes:
        assert self.key is not None  # psk0 has set it before anything is encrypted
        box = sodium.chacha_seal(self.key, self.nonce, text, self.hash)
        self.nonce += 1
        self.mix_hash(box)
        return box

    def decrypt(self, box: bytes) -> bytes:
        assert self.key is not None
        text = sodium.chacha_open(self.key, self.nonce, box, self.hash)
        self.nonce += 1
        self.mix_hash(box)
        return text


class Handshake:
    """One side of one handshake."""

    def __init__(
        self,
        pattern: str,
        *,
        initiator: bool,
        prologue: bytes,
        psk: bytes,
        remote_static: bytes | None = None,
        static: bytes | None = None,
        ephemeral_for_tests: bytes | None = None,
    ) -> None:
        """The initiator gives the responder's public `remote_static`; the responder its own secret `static`."""
        responder_static = remote_static if initiator else sodium.public_key(static or b"")
        if responder_static is None or len(responder_static) != sodium.KEY_SIZE or len(psk) != sodium.KEY_SIZE:
            raise ValueError("handshake needs the responder's static key and a psk, of 32 bytes each")
        name = f"Noise_{pattern}_25519_ChaChaPoly_BLAKE2b".encode().ljust(HASH_SIZE, b"\0")
        self._state = SymmetricState(name, name, None, 0)
        self._state.mix_hash(prologue)
        self._state.mix_hash(responder_static)
        self._messages = PATTERNS[pattern]
        self._step = 0
        self._initiator = initiator
        self._psk = psk
        self._static = static
        self._remote_static = remote_static
        self._ephemeral = ephemeral_for_tests
        self._remote_ephemeral: bytes | None = None

    def __copy__(self) -> Handshake:
        raise TypeError("a handshake cannot be copied: one ephemeral, one conversation")

    def __deepcopy__(self, memo: object) -> Handshake:
        return self.__copy__()

    def __reduce__(self) -> str:
        raise TypeError("a handshake cannot be copied: one ephemeral, one conversation")

    @property
    def hash(self) -> bytes:
        """h, the hash of the whole conversation so far."""
        return self._state.hash

    @property
    def finished(self) -> bool:
        return self._step == len(self._messages)

    def write_message(self, payload: Callable[[bytes], bytes]) -> bytes:
        """The next message.  `payload` is called with h after the tokens, so that it can sign it."""
        state = self._draft(writing=True)
        ephemeral = self._ephemeral or sodium.random_bytes(sodium.KEY_SIZE)
        public = sodium.public_key(ephemeral)
        for token in self._messages[self._step]:
            if token == "e":
                state.mix_hash(public)
                state.mix_key(public)
            else:
                self._mix(state, token, ephemeral, self._remote_ephemeral)
        message = public + state.encrypt(payload(state.hash))
        self._commit(state, ephemeral, self._remote_ephemeral)
        return message

    def read_message(self, message: bytes) -> tuple[bytes, bytes]:
        """Reads the peer's next message; returns its payload and h after the tokens, which a signature covers."""
        state = self._draft(writing=False)
        if len(message) < OVERHEAD:
            raise ProtocolError("handshake message is too short")
        public = message[: sodium.KEY_SIZE]
        for token in self._messages[self._step]:
            if token == "e":
                state.mix_hash(public)
                state.mix_key(public)
            else:
                self._mix(state, token, self._ephemeral, public)
        hash_after_tokens = state.hash
        payload = state.decrypt(message[sodium.KEY_SIZE :])
        self._commit(state, self._ephemeral, public)
        return payload, hash_after_tokens

    def split(self) -> tuple[bytes, bytes]:
        """The transport keys: initiator's to responder, responder's to initiator.  Ends the handshake."""
        if not self.finished:
            raise ValueError("handshake is not finished")
        first, second = hkdf(self._state.chaining_key, b"", 2)
        self.erase()
        return first[: sodium.KEY_SIZE], second[: sodium.KEY_SIZE]

    def erase(self) -> None:
        """Forgets every secret; every later call is refused.  h stays readable."""
        self._step = len(self._messages) + 1
        self._ephemeral = self._static = None
        self._psk = b""
        self._state = SymmetricState(b"", self._state.hash, None, 0)

    def _draft(self, *, writing: bool) -> SymmetricState:
        if self._step >= len(self._messages):
            raise ValueError("handshake has no further message")
        if writing != ((self._step % 2 == 0) == self._initiator):
            raise ValueError("handshake message out of turn")
        return self._state.copy()

    def _mix(self, state: SymmetricState, token: str, ephemeral: bytes | None, remote_ephemeral: bytes | None) -> None:
        if token == "psk":
            state.mix_key_and_hash(self._psk)
        elif token == "es" and self._initiator:
            state.mix_key(sodium.diffie_hellman(ephemeral or b"", self._remote_static or b""))
        elif token == "es":
            state.mix_key(sodium.diffie_hellman(self._static or b"", remote_ephemeral or b""))
        else:
            state.mix_key(sodium.diffie_hellman(ephemeral or b"", remote_ephemeral or b""))

    def _commit(self, state: SymmetricState, ephemeral: bytes | None, remote_ephemeral: bytes | None) -> None:
        self._state = state
        self._ephemeral = ephemeral
        self._remote_ephemeral = remote_ephemeral
        self._step += 1
