"""Certificates, derivation and the text of key files: docs/protocol.md section 1."""

from __future__ import annotations

import datetime
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cexec.errors import CertificateError, KeyFileError, ProtocolError, VerifyError
from cexec.protocol.base import certificate as certificate_module
from cexec.protocol.base import keys, sodium
from cexec.protocol.base.certificate import GRACE, civil_date, valid_name
from cexec.protocol.base.keys import (
    ROLE_CLIENT,
    ROLE_WORKER,
    Certificate,
    ClientKey,
    Identity,
    Key,
    OwnerKey,
    RelayKey,
    WorkerKey,
    decode_key,
    encode_key,
    verify_signature,
)

OWNER = OwnerKey(bytes(range(32)))
WORKER = OWNER.worker_key("worker-1")
ALL_KINDS: dict[str, Key] = {
    "owner": OWNER,
    "client": OWNER.client_key(),
    "worker": WORKER,
    "relay": OWNER.relay_key(),
    "owner of input": OwnerKey.from_standard_input([b"abc"]),
    "client of input": OwnerKey.from_standard_input([b"abc"]).client_key(),
    "relay of input": OwnerKey.from_standard_input([b"abc"]).relay_key(),
}
Issue = Callable[..., ClientKey | WorkerKey]
every_kind = pytest.mark.parametrize("key", ALL_KINDS.values(), ids=ALL_KINDS.keys())

AUTHORITY = b"\x01" * 32
AUTHORITY_PUBLIC = sodium.signing_public_key(AUTHORITY)
HOLDER = b"\x02" * 32
NOON = 1_795_260_300  # 2026-11-21 11:25 UTC


def certificate(not_before: int | None = None, not_after: int | None = None, role: str = ROLE_CLIENT) -> Certificate:
    return Certificate.issue(AUTHORITY, role, "alice", 7, sodium.signing_public_key(HOLDER), not_before, not_after)


CERTIFICATES = [certificate(), certificate(1), certificate(None, 2**64 - 1), certificate(0, NOON, ROLE_WORKER)]


# Derivation


def test_derivation_gives_the_example_of_the_protocol_document() -> None:
    client = OWNER.client_key()
    assert OWNER.worker_secret.hex() == "8bd3ce7e5495cefe1474b2218810acbf3b3bb66ec10127f3ade601bc02ffb0b0"
    assert client.worker_public.hex() == "ef38d66a15ff3705c836c475f58c11f621242e11635a9b9aa466ec9d1704da62"
    assert client.psk.hex() == "86a845fe57e61122c377c2ad6d7db40957eb551c5175e009485bcb8869f27cf1"
    assert client.authority_public.hex() == "cec3cede280d280e40e7231f588a5f8c2d64d232f88ae0eb91bbe566f905ed43"
    assert client.identity.signing_seed.hex() == "8995c63ebd1a652762bc8000901217fad8a078922935503190e03da708fd6a9b"
    assert client.mac1_key.hex() == "d99d7c104cea2a9aef2c2509f6bc95921dd9934ba1520901c1d125875e63dcc8"
    assert client.alert_key.hex() == "9f62102bc45ccfed378440755a8decc195375fd813f9839cde7fff4eb0e25963"
    assert client.alert_tag.hex() == "ddf9a6ce"
    assert client.fingerprint == "b057-ae33"
    assert encode_key(client).endswith("\nchecksum: a0a535b76cc41610\n")
    of_input = OwnerKey.from_standard_input([b"abc"])
    assert of_input.seed.hex() == "62cbf278bf95a4838595e5e938b79a094caa3d0e67d189825982324ad28551fd"


def test_every_holder_of_one_application_has_the_same_shared_values() -> None:
    client, relay = OWNER.client_key(), OWNER.relay_key()
    for name in ("worker_public", "psk", "authority_public", "mac1_key", "alert_key", "alert_tag", "fingerprint"):
        assert getattr(client, name) == getattr(WORKER, name)
    assert client.worker_public == sodium.public_key(WORKER.worker_secret)
    assert relay.mac1_key == client.mac1_key
    assert relay.fingerprint == client.fingerprint == OWNER.fingerprint


def test_derived_values_all_differ_and_change_with_the_seed() -> None:
    values: list[bytes] = []
    for owner in (OWNER, OwnerKey(bytes(32))):
        client = owner.client_key()
        values += [owner.seed, owner.worker_secret, owner.psk, owner.authority_seed, client.identity.signing_seed]
        values += [client.mac1_key, client.alert_key, client.worker_public, client.authority_public]
    assert len(set(values)) == len(values)


def test_standard_input_counts_by_its_bytes_and_not_by_how_they_were_read() -> None:
    assert OwnerKey.from_standard_input([b"a", b"", b"bc"]).seed == OwnerKey.from_standard_input([b"abc"]).seed
    assert OwnerKey.from_standard_input([b"abd"]).seed != OwnerKey.from_standard_input([b"abc"]).seed


def test_empty_standard_input_makes_no_key() -> None:
    with pytest.raises(ValueError, match="empty"):
        OwnerKey.from_standard_input([b"", b""])


def test_identities_are_certified_for_their_roles() -> None:
    client = OWNER.client_key()
    client.identity.certificate.check(client.authority_public, ROLE_CLIENT, 0.0)
    WORKER.identity.certificate.check(client.authority_public, ROLE_WORKER, 0.0)
    certificate = client.identity.certificate
    assert (certificate.name, certificate.serial) == ("default", 1)
    assert (certificate.not_before, certificate.not_after) == (None, None)


def test_each_worker_key_has_an_identity_of_its_own() -> None:
    one, two = OWNER.worker_key("host"), OWNER.worker_key("host")
    assert one.identity.signing_seed != two.identity.signing_seed
    assert one.identity.certificate.serial != two.identity.certificate.serial
    assert one.worker_secret == two.worker_secret


@pytest.mark.parametrize(("issue", "role"), [(OWNER.issue_client, ROLE_CLIENT), (OWNER.issue_worker, ROLE_WORKER)])
def test_an_issued_key_has_the_name_the_serial_and_the_end_that_it_was_given(issue: Issue, role: str) -> None:
    key = issue("box", 77, 5000)
    certificate = key.identity.certificate
    certificate.check(OWNER.authority_public, role, 4000.0)
    assert (certificate.name, certificate.serial) == ("box", 77)
    assert (certificate.not_before, certificate.not_after) == (None, 5000)
    assert (key.worker_public, key.psk) == (OWNER.client_key().worker_public, OWNER.psk)
    assert issue("box", 77).identity.certificate.not_after is None
    assert issue("box", 77).identity.signing_seed != key.identity.signing_seed


def test_messages_call_each_kind_by_a_name_of_its_own() -> None:
    names = {kind: ALL_KINDS[kind].description for kind in ("owner", "client", "worker", "relay")}
    assert names == {"owner": "private key", "client": "client key", "worker": "worker key", "relay": "relay key"}


@pytest.mark.parametrize(
    ("host", "name"),
    [("box.lan", "box.lan"), ("büro 1\n", "b-ro-1-"), ("x" * 300, "x" * 64), ("", "worker"), ("\udc80", "-")],
)
def test_a_worker_is_named_after_any_host(host: str, name: str) -> None:
    assert OWNER.worker_key(host).identity.certificate.name == name


# Signatures


def test_a_signature_holds_for_its_label_and_parts_only() -> None:
    identity = OWNER.client_key().identity
    public = identity.certificate.public_key
    signature = identity.sign(b"label", b"one", b"two")
    verify_signature(public, signature, b"label", b"one", b"two")
    for label, parts in ((b"labe", (b"lone", b"two")), (b"label", (b"one",)), (b"labels", (b"one", b"two"))):
        with pytest.raises(VerifyError):
            verify_signature(public, signature, label, *parts)
    with pytest.raises(VerifyError):
        verify_signature(WORKER.identity.certificate.public_key, signature, b"label", b"one", b"two")


def test_a_signature_of_the_wrong_size_is_the_peers_fault() -> None:
    with pytest.raises(ProtocolError):
        verify_signature(AUTHORITY_PUBLIC, b"short", b"label", b"text")


# Certificates


@pytest.mark.parametrize("original", CERTIFICATES)
def test_a_certificate_reads_back_as_it_was_issued(original: Certificate) -> None:
    data = original.encode()
    read = Certificate.decode(data)
    assert all(getattr(read, name) == getattr(original, name) for name in Certificate.__slots__ if name[0] != "_")
    assert read.encode() == data


@pytest.mark.parametrize("original", CERTIFICATES)
def test_a_certificate_cut_or_prolonged_anywhere_is_malformed(original: Certificate) -> None:
    data = original.encode()
    for size in range(len(data)):
        with pytest.raises(ProtocolError):
            Certificate.decode(data[:size])
    with pytest.raises(ProtocolError):
        Certificate.decode(data + b"\0")


@pytest.mark.parametrize("original", CERTIFICATES)
def test_a_certificate_with_any_bit_changed_is_refused(original: Certificate) -> None:
    data = original.encode()
    for position in range(len(data) * 8):
        changed = bytearray(data)
        changed[position // 8] ^= 1 << position % 8
        with pytest.raises(ProtocolError):
            Certificate.decode(bytes(changed)).check_signature(AUTHORITY_PUBLIC, original.role)


@given(st.binary(max_size=200))
def test_random_bytes_are_a_protocol_error_or_encode_again(data: bytes) -> None:
    try:
        read = Certificate.decode(data)
    except ProtocolError:
        return
    assert read.encode() == data


@given(st.binary(max_size=70))
def test_a_certificate_never_carries_a_name_out_of_the_pattern(name: bytes) -> None:
    data = CERTIFICATES[0].encode().replace(b"\x05alice", bytes([len(name)]) + name)
    try:
        read = Certificate.decode(data)
    except ProtocolError:
        return
    assert valid_name(read.name)


def test_names() -> None:
    for name in ("a", "A.b_c-9", "x" * 64, "..", "-"):
        assert valid_name(name)
    for name in ("", "x" * 65, "a b", "a/b", "a\n", "ä", "a\0", "a\x1b[2J", "a%", "٣", "\udc80"):
        assert not valid_name(name)


def test_issuing_what_no_reader_takes_is_our_own_fault() -> None:
    for role, name in (("admin", "alice"), (ROLE_CLIENT, "a b")):
        with pytest.raises(ValueError, match="no certificate has the role"):
            Certificate.issue(AUTHORITY, role, name, 1, bytes(32))


def test_a_certificate_of_another_authority_is_refused() -> None:
    with pytest.raises(VerifyError):
        certificate().check(sodium.signing_public_key(HOLDER), ROLE_CLIENT, NOON)


def test_a_certificate_for_the_other_role_is_refused() -> None:
    for role, other in ((ROLE_CLIENT, ROLE_WORKER), (ROLE_WORKER, ROLE_CLIENT)):
        certificate(role=role).check(AUTHORITY_PUBLIC, role, NOON)
        with pytest.raises(VerifyError, match=f"certificate of alice is for a {role}, not for a {other}"):
            certificate(role=role).check(AUTHORITY_PUBLIC, other, NOON)


def test_dates_have_five_minutes_of_grace() -> None:
    dated = certificate(NOON, NOON + 1000)
    for now in (NOON - GRACE, NOON, NOON + 1000 + GRACE):
        dated.check(AUTHORITY_PUBLIC, ROLE_CLIENT, now)
    for late in (NOON - GRACE - 0.5, NOON + 1000 + GRACE + 0.5):
        with pytest.raises(CertificateError):
            dated.check(AUTHORITY_PUBLIC, ROLE_CLIENT, late)


def test_a_refused_date_tells_what_the_clock_says() -> None:
    with pytest.raises(CertificateError) as expired:
        certificate(None, NOON - 323 * 86_400).check(AUTHORITY_PUBLIC, ROLE_CLIENT, NOON)
    assert str(expired.value) == "certificate of alice expired on 2026-01-02 and this machine's clock says 2026-11-21"
    with pytest.raises(CertificateError) as early:
        certificate(NOON, None).check(AUTHORITY_PUBLIC, ROLE_CLIENT, 60.0)
    assert "alice is not valid before 2026-11-21 and this machine's clock says 1970-01-01" in str(early.value)
    with pytest.raises(CertificateError) as same_day:
        certificate(None, NOON).check(AUTHORITY_PUBLIC, ROLE_CLIENT, NOON + 3600)
    assert "on 2026-11-21 11:25 UTC and this machine's clock says 2026-11-21 12:25 UTC" in str(same_day.value)


def test_a_certificate_without_dates_is_valid_whatever_the_clock_says() -> None:
    for now in (-1.0, 0.0, NOON, 2.0**63):
        certificate().check(AUTHORITY_PUBLIC, ROLE_CLIENT, now)


@given(st.datetimes(min_value=datetime.datetime(1, 1, 1), max_value=datetime.datetime(9999, 12, 31)))
def test_civil_dates_are_the_gregorian_calendars(moment: datetime.datetime) -> None:
    seconds = (moment - datetime.datetime(1970, 1, 1)) // datetime.timedelta(seconds=1)
    assert civil_date(seconds) == moment.strftime("%Y").zfill(4) + moment.strftime("-%m-%d")
    assert civil_date(seconds, minutes=True).endswith(moment.strftime("-%d %H:%M UTC"))


def test_each_day_of_400_years_has_its_name() -> None:
    """The calendar repeats after them."""
    first = datetime.date(1970, 1, 1).toordinal()
    for day in range(146_097):
        assert civil_date(day * 86_400) == datetime.date.fromordinal(first + day).isoformat()


def test_the_farthest_date_has_a_name() -> None:
    assert civil_date(2**64 - 1) == "584554051223-11-09"


# The text of key files


@every_kind
def test_a_key_reads_back_from_its_text(key: Key) -> None:
    text = encode_key(key)
    read = decode_key(text.encode())
    assert type(read) is type(key)
    assert encode_key(read) == text
    assert (read.fingerprint, read.from_input) == (key.fingerprint, key.from_input)


def test_a_read_key_works_like_the_one_that_was_written() -> None:
    client, worker = (decode_key(encode_key(key).encode()) for key in (OWNER.client_key(), WORKER))
    assert isinstance(client, ClientKey)
    assert isinstance(worker, WorkerKey)
    assert sodium.public_key(worker.worker_secret) == client.worker_public
    public = worker.identity.certificate.public_key
    verify_signature(public, worker.identity.sign(b"label", b"text"), b"label", b"text")


def test_the_first_line_of_app_pub_says_that_it_is_a_secret() -> None:
    first = encode_key(OWNER.client_key()).splitlines()[0]
    assert first == "# SECRET, although its name ends in .pub: whoever holds this file may run jobs."


def test_a_key_is_made_at_random_unless_it_says_otherwise() -> None:
    """Else its file would warn of what is not so, or not warn of what is."""
    client, relay = OWNER.client_key(), OWNER.relay_key()
    made = (
        OwnerKey(bytes(32)),
        ClientKey(client.worker_public, client.psk, client.authority_public, client.identity),
        WorkerKey(WORKER.worker_secret, WORKER.psk, WORKER.authority_public, WORKER.identity),
        RelayKey(relay.mac1_key, relay.fingerprint),
    )
    assert not any(key.from_input for key in made)


def test_a_key_made_from_input_says_how_secret_it_is() -> None:
    for name, key in ALL_KINDS.items():
        said = "# Made from standard input: exactly as secret as that input was." in encode_key(key)
        assert said == ("input" in name)


@every_kind
def test_a_key_file_cut_anywhere_is_damaged(key: Key) -> None:
    data = encode_key(key).encode()
    for size in range(len(data) - 1):
        with pytest.raises(KeyFileError, match=r"^is damaged"):
            decode_key(data[:size])
    assert encode_key(decode_key(data[:-1])) == encode_key(key)  # only the last line's end is missing


@every_kind
def test_a_flipped_bit_damages_a_key_file_or_changes_a_comment_only(key: Key) -> None:
    data = encode_key(key).encode()
    comments = len(data) - len(data[data.index(b"cexec-key") :])
    for position in range(len(data) * 8):
        changed = bytearray(data)
        changed[position // 8] ^= 1 << position % 8
        try:
            read = decode_key(bytes(changed))
        except KeyFileError as error:
            assert str(error).startswith("is damaged")
        else:
            assert encode_key(read).encode() == data
            assert position < comments * 8 or position // 8 == len(data) - 1


@every_kind
def test_lines_after_the_end_damage_a_key_file_and_comments_do_not(key: Key) -> None:
    data = encode_key(key).encode()
    for trailer in (b"x", b"more: 1\n", b"\0", data):
        with pytest.raises(KeyFileError, match=r"^is damaged"):
            decode_key(data + trailer)
    noted = b"# of the office, ask J\xc3\xb6rg\r\n\n" + data.replace(b"\n", b" \r\n") + b"\n# the end\xff"
    assert encode_key(decode_key(noted)).encode() == data


@pytest.mark.parametrize("change", [str.upper, lambda line: line + " 00", lambda line: line + "\n" + line])
def test_a_line_written_otherwise_is_damage(change: Callable[[str], str]) -> None:
    lines = encode_key(OWNER).splitlines()
    for index, line in enumerate(lines):
        if not line.startswith("#"):
            changed = [*lines[:index], change(line), *lines[index + 1 :]]
            with pytest.raises(KeyFileError, match=r"^is damaged"):
                decode_key("\n".join(changed).encode())


@given(st.binary(max_size=300))
def test_random_bytes_are_a_key_file_error(data: bytes) -> None:
    for text in (data, b"cexec-key: 1 client\n" + data):
        with pytest.raises(KeyFileError, match=r"^is damaged"):
            decode_key(text)


@pytest.mark.parametrize(
    "text", [b"", b"\n", b"# only a comment\n", b"-----BEGIN OPENSSH PRIVATE KEY-----\n", b"\x7fELF"]
)
def test_what_is_no_key_at_all_is_told(text: bytes) -> None:
    with pytest.raises(KeyFileError, match=r"^is damaged: it (holds no key|does not begin like a cexec key)"):
        decode_key(text)


def test_a_file_of_a_later_version_is_told() -> None:
    with pytest.raises(KeyFileError, match="newer cexec"):
        decode_key(encode_key(OWNER).replace("cexec-key: 1", "cexec-key: 2").encode())


@pytest.mark.parametrize("version", ["0", "", "-1", "01", "1.0", "1 ", "2"])
@every_kind
def test_a_file_of_any_other_version_is_refused_whatever_its_checksum(key: Key, version: str) -> None:
    """The fields of another version may mean something else, however right they look."""
    text = encode_key(key)
    written = rewritten(text, "cexec-key", f"{version} {key.kind}")
    assert decode_key(rewritten(text, "cexec-key", f"1 {key.kind}")).kind == key.kind
    with pytest.raises(KeyFileError, match=r"^is damaged"):
        decode_key(written)


# Each pair of fields of one size in each kind of file: what is read as the other is not the same application.
SWAPPED = [
    ("client", "worker-public", "psk"),
    ("client", "worker-public", "authority"),
    ("client", "worker-public", "signing-seed"),
    ("client", "psk", "authority"),
    ("client", "psk", "signing-seed"),
    ("client", "authority", "signing-seed"),
    ("worker", "worker-secret", "psk"),
    ("worker", "worker-secret", "authority"),
    ("worker", "worker-secret", "signing-seed"),
    ("worker", "psk", "authority"),
    ("worker", "psk", "signing-seed"),
    ("worker", "authority", "signing-seed"),
]


@pytest.mark.parametrize(("kind", "one", "other"), SWAPPED)
def test_each_key_of_a_file_has_its_own_place(kind: str, one: str, other: str) -> None:
    """Written and read the wrong way round alike, two keys still read back: only the file itself shows it."""
    key = ALL_KINDS[kind]
    assert isinstance(key, ClientKey | WorkerKey)
    lines = dict(line.split(": ") for line in encode_key(key).splitlines() if not line.startswith("#"))
    written = {
        "psk": key.psk, "authority": key.authority_public, "signing-seed": key.identity.signing_seed,
        "worker-public": key.worker_public,
    }  # fmt: skip
    if isinstance(key, WorkerKey):
        written["worker-secret"] = key.worker_secret
    assert (lines[one], lines[other]) == (written[one].hex(), written[other].hex())
    swapped = {one: lines[other], other: lines[one]}
    text = encode_key(key)
    for name, value in swapped.items():
        text = rewritten(text, name, value).decode() + "\n"
    try:
        read = decode_key(text.encode())
    except KeyFileError:
        return
    assert isinstance(read, ClientKey | WorkerKey)
    assert read.fingerprint != key.fingerprint or (read.psk, read.mac1_key) != (key.psk, key.mac1_key)


def rewritten(text: str, name: str, value: str) -> bytes:
    """The file with another value and the checksum that belongs to it: what a tool that is not ours might write."""
    lines = [line for line in text.splitlines() if not line.startswith(("#", "checksum"))]
    lines = [f"{name}: {value}" if line.startswith(f"{name}: ") else line for line in lines]
    return "\n".join([*lines, f"checksum: {keys.checksum_of(lines)}"]).encode()


@pytest.mark.parametrize(
    ("name", "value", "what"),
    [
        ("psk", "00" * 31, "psk is not 32 bytes long"),
        ("psk", "0g" * 32, "psk is not hexadecimal"),
        ("psk", "٠٠" * 32, "psk is not hexadecimal"),  # noqa: RUF001
        ("signing-seed", "00" * 32, "certificate is for another signing seed"),
        ("certificate", "00" * 111, "certificate is of an unknown version"),
        ("certificate", "01", "message is shorter"),
        ("authority", "00" * 32, "signature didn't verify"),
        ("origin", "dream", "its origin is unknown"),
        ("worker-public", "00", "worker-public is not 32 bytes long"),
    ],
)
def test_a_value_that_cannot_be_is_damage_despite_a_right_checksum(name: str, value: str, what: str) -> None:
    with pytest.raises(KeyFileError, match=f"^is damaged: .*{what}"):
        decode_key(rewritten(encode_key(OWNER.client_key()), name, value))


def test_a_relay_file_whose_fingerprint_could_move_the_cursor_is_damage() -> None:
    with pytest.raises(KeyFileError, match=r"^is damaged: its fingerprint"):
        decode_key(rewritten(encode_key(OWNER.relay_key()), "fingerprint", "\x1b[2J"))


def test_a_client_file_with_a_workers_certificate_is_damage() -> None:
    client = OWNER.client_key()
    wrong = ClientKey(client.worker_public, client.psk, client.authority_public, WORKER.identity)
    with pytest.raises(KeyFileError, match="is for a worker, not for a client"):
        decode_key(encode_key(wrong).encode())


def test_a_named_client_with_dates_survives_its_file() -> None:
    """Dates are judged where they count, not when the file is read: the clock may not be set yet."""
    issued = Certificate.issue(
        OWNER.authority_seed, ROLE_CLIENT, "alice", 5, sodium.signing_public_key(HOLDER), NOON - 9, NOON
    )
    client = OWNER.client_key()
    key = ClientKey(client.worker_public, client.psk, client.authority_public, Identity(issued, HOLDER))
    read = decode_key(encode_key(key).encode())
    assert isinstance(read, ClientKey)
    assert (read.identity.certificate.name, read.identity.certificate.not_after) == ("alice", NOON)


def test_no_key_shows_its_secrets_when_printed() -> None:
    for key in ALL_KINDS.values():
        assert "\\x" not in repr(key)
        assert repr(key).startswith("<cexec.protocol.base.")
    assert isinstance(ALL_KINDS["relay"], RelayKey)


def test_a_certificate_whose_signature_was_right_is_not_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(public: bytes, message: bytes, signature: bytes) -> None:
        raise VerifyError("computed")

    certificate = OWNER.issue_worker("once", 77).identity.certificate
    certificate.check_signature(OWNER.authority_public, "worker")
    monkeypatch.setattr(sodium, "verify", refuse)
    Certificate.decode(certificate.encode()).check_signature(OWNER.authority_public, "worker")
    with pytest.raises(VerifyError, match="not for a client"):
        certificate.check_signature(OWNER.authority_public, "client")
    other = certificate.encode()[:-1] + bytes([certificate.signature[-1] ^ 1])
    for changed, authority in ((other, OWNER.authority_public), (certificate.encode(), bytes(32))):
        with pytest.raises(VerifyError, match="computed"):
            Certificate.decode(changed).check_signature(authority, "worker")


def test_the_memory_of_right_signatures_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificate_module, "MAXIMUM_PROVED", 2)
    computed: list[bytes] = []
    monkeypatch.setattr(sodium, "verify", lambda public, message, signature: computed.append(message))
    issued = [OWNER.issue_worker("bounded", serial).identity.certificate for serial in range(3)]
    for one in [*issued, issued[2], issued[0]]:
        one.check_signature(OWNER.authority_public, "worker")
    assert len(computed) == 4  # the third was known, and the first forgotten
