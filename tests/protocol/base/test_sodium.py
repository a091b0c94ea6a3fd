"""The primitives against published vectors, against other bindings, and against misuse."""

from __future__ import annotations

import hashlib
import json

import nacl.bindings
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cexec.errors import ProtocolError, VerifyError
from cexec.protocol.base import sodium
from tests.needs import require_aegis, require_vectors

KEY = bytes(range(32))
HAS_AEGIS = hasattr(sodium.lib, "crypto_aead_aegis256_encrypt")
CIPHERS = [sodium.CHACHA, *([sodium.AEGIS] if HAS_AEGIS else [])]
every_cipher = pytest.mark.parametrize("name", CIPHERS)


def aegis_vectors() -> list[dict[str, str]]:
    require_aegis()
    path = require_vectors("aegis-256.json")
    vectors = [vector for vector in json.loads(path.read_text()) if "tag256" in vector]
    assert vectors, "the file holds no vector"
    return vectors


def sealed(name: str, text: bytes, counter: int = 3, header: bytes = b"header") -> bytearray:
    """A box as it goes over the wire: text and tag."""
    cipher = sodium.aead(name)
    buffer = bytearray(text + bytes(cipher.tag_size))
    cipher.seal(KEY, counter, memoryview(buffer), len(text), header)
    return buffer


# Hashes and random bytes


def test_keyed_hash_is_blake2b_over_the_label_with_its_length_and_the_parts() -> None:
    expected = hashlib.blake2b(b"\x05label" + b"one" + b"two", key=KEY, digest_size=32).digest()
    assert sodium.keyed_hash(KEY, b"label", b"one", b"two") == expected
    assert sodium.keyed_hash(b"", b"l", size=16) == hashlib.blake2b(b"\x01l", digest_size=16).digest()


def test_a_part_cannot_pass_for_the_labels_end() -> None:
    assert sodium.keyed_hash(KEY, b"label", b"s") != sodium.keyed_hash(KEY, b"labels")


def test_equal_compares_bytes_of_any_length() -> None:
    assert sodium.equal(b"abc", bytes(bytearray(b"abc")))
    assert not sodium.equal(b"abc", b"abd")
    assert not sodium.equal(b"abc", b"abcd")
    assert sodium.equal(b"", b"")


def test_random_bytes_have_the_size_asked_for_and_differ() -> None:
    assert [len(sodium.random_bytes(size)) for size in (0, 1, 32, 5000)] == [0, 1, 32, 5000]
    assert len({sodium.random_bytes(16) for _ in range(100)}) == 100


# X25519


def test_diffie_hellman_gives_the_iterated_example_of_rfc_7748() -> None:
    scalar = point = bytes([9]) + bytes(31)
    for count in range(1, 1001):
        scalar, point = sodium.diffie_hellman(scalar, point), scalar
        if count == 1:
            assert scalar.hex() == "422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079"
    assert scalar.hex() == "684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51"


def test_two_sides_agree() -> None:
    one, two = sodium.random_bytes(32), sodium.random_bytes(32)
    shared = sodium.diffie_hellman(one, sodium.public_key(two))
    assert shared == sodium.diffie_hellman(two, sodium.public_key(one)) != bytes(32)


LOW_ORDER = [
    bytes(32),
    bytes([1]) + bytes(31),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    bytes.fromhex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
]


@pytest.mark.parametrize("public", LOW_ORDER, ids=lambda public: public.hex()[:8])
def test_a_public_key_of_low_order_is_a_protocol_error(public: bytes) -> None:
    with pytest.raises(ProtocolError, match="low order"):
        sodium.diffie_hellman(KEY, public)


@pytest.mark.parametrize("size", [0, 31, 33])
def test_keys_of_a_wrong_size_are_a_protocol_error_and_never_reach_the_library(size: int) -> None:
    wrong = bytes(size)
    for call in (
        lambda: sodium.public_key(wrong),
        lambda: sodium.diffie_hellman(wrong, KEY),
        lambda: sodium.diffie_hellman(KEY, wrong),
        lambda: sodium.signing_public_key(wrong),
        lambda: sodium.signing_key(wrong),
        lambda: sodium.sign(wrong, b""),
        lambda: sodium.verify(wrong, b"", bytes(64)),
        lambda: sodium.verify(KEY, b"", wrong),
        lambda: sodium.seal_message(wrong, b"", b""),
        lambda: sodium.open_message(wrong, bytes(40), b""),
        lambda: sodium.aead(sodium.CHACHA).seal(wrong, 0, memoryview(bytearray(16)), 0, b""),
        lambda: sodium.aead(sodium.CHACHA).open(wrong, 0, memoryview(bytearray(16)), b""),
    ):
        with pytest.raises(ProtocolError, match="bytes of key or signature"):
            call()


# Ed25519


def test_sign_gives_the_first_example_of_rfc_8032() -> None:
    seed = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    public = sodium.signing_public_key(seed)
    assert public.hex() == "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    key = sodium.signing_key(seed)
    assert sodium.sign(key, b"").hex() == (
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
        "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
    )
    sodium.verify(public, b"", sodium.sign(key, b""))


def test_any_change_of_message_signature_or_key_is_a_verify_error() -> None:
    public, message = sodium.signing_public_key(KEY), b"message"
    signature = sodium.sign(sodium.signing_key(KEY), message)
    sodium.verify(public, message, signature)
    for position in range(64 * 8):
        changed = bytearray(signature)
        changed[position // 8] ^= 1 << position % 8
        with pytest.raises(VerifyError, match="signature didn't verify"):
            sodium.verify(public, message, bytes(changed))
    for other in (b"", b"messag", b"message\0", b"Message"):
        with pytest.raises(VerifyError):
            sodium.verify(public, other, signature)
    with pytest.raises(VerifyError):
        sodium.verify(sodium.signing_public_key(bytes(32)), message, signature)


# The ciphers of the channel


def test_aegis_256_gives_the_published_vectors() -> None:
    vectors = aegis_vectors()
    cipher = sodium.aead(sodium.AEGIS)
    sealed_count = 0
    for vector in vectors:
        value = {name: bytes.fromhex(vector.get(name, "")) for name in ("key", "nonce", "ad", "msg", "ct", "tag256")}
        counter = int.from_bytes(value["nonce"], "little")
        box = bytearray(value["ct"] + value["tag256"])
        if "msg" not in vector:
            with pytest.raises(VerifyError):
                cipher.open(value["key"], counter, memoryview(box), value["ad"])
            continue
        buffer = bytearray(value["msg"] + bytes(32))
        cipher.seal(value["key"], counter, memoryview(buffer), len(value["msg"]), value["ad"])
        assert buffer == box, vector["name"]
        assert cipher.open(value["key"], counter, memoryview(box), value["ad"]) == len(value["msg"])
        assert box[: len(value["msg"])] == value["msg"], vector["name"]
        sealed_count += 1
    assert sealed_count > 0


def test_chacha_is_that_of_the_public_bindings() -> None:
    expected = nacl.bindings.crypto_aead_chacha20poly1305_ietf_encrypt(
        b"text", b"header", (3).to_bytes(12, "little"), KEY
    )
    assert sealed(sodium.CHACHA, b"text") == expected


@every_cipher
@pytest.mark.parametrize("size", [0, 1, 16, 65_537])
def test_a_box_opens_where_it_lies(name: str, size: int) -> None:
    text = bytes(number * 7 % 256 for number in range(size))
    box = sealed(name, text)
    assert box[:size] != text or not size
    assert sodium.aead(name).open(KEY, 3, memoryview(box), b"header") == size
    assert box[:size] == text


@every_cipher
def test_boxes_of_short_texts_are_those_of_seal(name: str) -> None:
    """Their memory is used again: a long text leaves nothing behind in the box of a short one."""
    cipher = sodium.aead(name)
    boxes = sodium.BoxMaker(cipher, KEY, longest=100)
    for counter, text in enumerate([b"x" * 100, b"", b"short"]):
        expected = bytearray(text + bytes(cipher.tag_size))
        cipher.seal(KEY, counter, memoryview(expected), len(text), b"head")
        assert boxes.make(counter, text, b"head") == b"head" + expected
    with pytest.raises(ValueError, match="too long"):
        boxes.make(3, bytes(101), b"head")
    with pytest.raises(ProtocolError):
        sodium.BoxMaker(cipher, bytes(31), longest=100)


@every_cipher
def test_boxes_in_kept_memory_are_those_of_seal(name: str) -> None:
    cipher = sodium.aead(name)
    sender, receiver = (sodium.BoxMemory(cipher, KEY, 200) for _ in range(2))
    for counter, (text, start) in enumerate([(b"x" * 100, 0), (b"", 0), (b"short", 7)]):
        expected = bytearray(text + bytes(cipher.tag_size))
        cipher.seal(KEY, counter, memoryview(expected), len(text), b"head")
        end = sodium.HEADER + len(expected)
        sender.view[sodium.HEADER : sodium.HEADER + len(text)] = text
        sender.seal(counter, b"head" + text[:1], len(text))
        assert sender.octets[:end] == b"head" + expected
        receiver.view[start : start + end] = sender.view[:end]
        assert receiver.open(counter, start, len(expected)) == len(text)
        begin = start + sodium.HEADER
        assert receiver.octets[begin : begin + len(text)] == text
        receiver.view[start : start + end] = sender.view[:end]
        receiver.view[start] ^= 1  # the header is authenticated as well
        with pytest.raises(VerifyError):
            receiver.open(counter, start, len(expected))


@every_cipher
def test_no_box_is_made_or_opened_beyond_its_memory(name: str) -> None:
    cipher = sodium.aead(name)
    memory = sodium.BoxMemory(cipher, KEY, 100)
    longest = 100 - sodium.HEADER - cipher.tag_size
    memory.seal(0, b"head", longest)
    assert memory.open(0, 0, 100 - sodium.HEADER) == longest
    for size in (-1, longest + 1):
        with pytest.raises(ValueError, match="no room"):
            memory.seal(0, b"head", size)
    for start, size in ((-1, 50), (1, 96), (0, 97), (96, 50)):
        with pytest.raises(ValueError, match="not in this memory"):
            memory.open(0, start, size)
    with pytest.raises(VerifyError):
        memory.open(0, 0, cipher.tag_size - 1)
    with pytest.raises(ProtocolError):
        sodium.BoxMemory(cipher, bytes(31), 100)


@every_cipher
def test_sealing_touches_nothing_behind_the_tag_and_opening_leaves_its_surroundings(name: str) -> None:
    cipher = sodium.aead(name)
    buffer = bytearray(b"<" + b"text" + b"." * cipher.tag_size + b">>>")
    cipher.seal(KEY, 0, memoryview(buffer)[1:], 4, b"")
    assert (bytes(buffer[:1]), bytes(buffer[-3:])) == (b"<", b">>>")
    assert cipher.open(KEY, 0, memoryview(buffer)[1 : 5 + cipher.tag_size], b"") == 4
    assert (bytes(buffer[:5]), bytes(buffer[-3:])) == (b"<text", b">>>")


@every_cipher
def test_any_change_of_a_box_its_header_counter_or_key_is_a_verify_error(name: str) -> None:
    cipher, box = sodium.aead(name), sealed(name, b"text")
    for position in range(len(box) * 8):
        changed = bytearray(box)
        changed[position // 8] ^= 1 << position % 8
        with pytest.raises(VerifyError):
            cipher.open(KEY, 3, memoryview(changed), b"header")
    for size in range(len(box)):
        with pytest.raises(VerifyError):
            cipher.open(KEY, 3, memoryview(bytearray(box[:size])), b"header")
    for key, counter, header in ((KEY[::-1], 3, b"header"), (KEY, 4, b"header"), (KEY, 3, b"headeR"), (KEY, 3, b"")):
        with pytest.raises(VerifyError):
            cipher.open(key, counter, memoryview(bytearray(box)), header)
    assert cipher.open(KEY, 3, memoryview(box), b"header") == 4


@every_cipher
def test_every_counter_gives_another_box(name: str) -> None:
    assert len({bytes(sealed(name, b"text", counter)) for counter in (0, 1, 255, 256, 2**63, 2**64 - 1)}) == 6


@every_cipher
def test_a_buffer_without_room_for_the_tag_is_our_own_fault(name: str) -> None:
    cipher = sodium.aead(name)
    with pytest.raises(ValueError, match="no room"):
        cipher.seal(KEY, 0, memoryview(bytearray(4 + cipher.tag_size - 1)), 4, b"")


@every_cipher
def test_a_cipher_tells_its_sizes(name: str) -> None:
    cipher = sodium.aead(name)
    sizes = {sodium.CHACHA: (12, 16), sodium.AEGIS: (32, 32)}
    assert (cipher.name, cipher.nonce_size, cipher.tag_size) == (name, *sizes[name])


def test_a_cipher_that_nobody_knows_is_a_protocol_error() -> None:
    for name in ("", "aes-128-cbc", "AEGIS-256"):
        with pytest.raises(ProtocolError, match="cipher"):
            sodium.aead(name)


class OlderLibrary:
    """libsodium as PyNaCl 1.5 brings it: no AEGIS."""

    newer = sodium.lib

    def __getattr__(self, name: str) -> object:
        if "aegis" in name:
            raise AttributeError(name)
        return getattr(self.newer, name)


def test_without_aegis_only_chacha_is_offered_and_aegis_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sodium, "lib", OlderLibrary())
    assert sodium.aead_names() == [sodium.CHACHA]
    with pytest.raises(ProtocolError, match="cipher"):
        sodium.aead(sodium.AEGIS)


def test_chacha_is_always_offered_and_last() -> None:
    names = sodium.aead_names()
    assert names[-1] == sodium.CHACHA
    assert set(names) <= {sodium.AEGIS, sodium.CHACHA}
    assert all(sodium.aead(name).name == name for name in names)


# Noise's cipher


def test_noise_boxes_are_those_of_the_public_bindings() -> None:
    nonce = bytes(4) + (258).to_bytes(8, "little")
    expected = nacl.bindings.crypto_aead_chacha20poly1305_ietf_encrypt(b"text", b"header", nonce, KEY)
    assert sodium.chacha_seal(KEY, 258, b"text", b"header") == expected
    assert sodium.chacha_open(KEY, 258, expected, b"header") == b"text"


def test_a_changed_or_short_noise_box_is_a_verify_error() -> None:
    box = sodium.chacha_seal(KEY, 0, b"text", b"")
    for bad in [box[:size] for size in range(len(box))] + [box + b"\0", bytes(len(box))]:
        with pytest.raises(VerifyError):
            sodium.chacha_open(KEY, 0, bad, b"")


# Messages under a key that many hold

XCHACHA_TEXT = (
    b"Ladies and Gentlemen of the class of '99: "
    b"If I could offer you only one tip for the future, sunscreen would be it."
)
XCHACHA_KEY = bytes(range(0x80, 0xA0))
XCHACHA_BOX = bytes.fromhex(
    "404142434445464748494a4b4c4d4e4f5051525354555657"
    "bd6d179d3e83d43b9576579493c0e939572a1700252bfaccbed2902c21396cbb731c7f1b0b4aa6440bf3a82f4eda7e39"
    "ae64c6708c54c216cb96b72e1213b4522f8c9ba40db5d945b11b69b982c1bb9e3f3fac2bc369488f76b2383565d3fff9"
    "21f9664c97637da9768812f615c68b13b52ec0875924c1c7987947deafd8780acf49"
)


def test_open_message_opens_the_example_of_the_xchacha_draft() -> None:
    assert sodium.open_message(XCHACHA_KEY, XCHACHA_BOX, bytes.fromhex("50515253c0c1c2c3c4c5c6c7")) == XCHACHA_TEXT


@given(st.binary(max_size=100), st.binary(max_size=30))
def test_a_sealed_message_opens_and_is_never_the_same_twice(text: bytes, header: bytes) -> None:
    one, two = (sodium.seal_message(KEY, text, header) for _ in range(2))
    assert one[:24] != two[:24]
    assert len(one) == len(text) + sodium.SEALED_OVERHEAD
    assert sodium.open_message(KEY, one, header) == text


def test_a_changed_sealed_message_is_a_verify_error() -> None:
    message = sodium.seal_message(KEY, b"text", b"header")
    for position in range(len(message)):
        changed = message[:position] + bytes([message[position] ^ 1]) + message[position + 1 :]
        for bad in (changed, message[:position]):
            with pytest.raises(VerifyError):
                sodium.open_message(KEY, bad, b"header")
    for key, header in ((KEY[::-1], b"header"), (KEY, b"heade")):
        with pytest.raises(VerifyError):
            sodium.open_message(key, message, header)
