"""What owners of keys hand round: lists of revoked certificates, the record of issues, codes, and keys by datagrams."""

from __future__ import annotations

from cexec.authority.code import Code
from cexec.authority.exchange import Giver, Taker
from cexec.authority.record import OpenRecord, read_record
from cexec.errors import KeyFileError, UsageError
from cexec.protocol.base.certificate import sign_statement
from cexec.protocol.base.revocation import LIST_LABEL, decode_list, encode_list
from cexec.protocol.datagrams.joining import decode_message, encode_message
from tests.fuzz.target import pieces, scratch, target, words
from tests.protocol.wires import APPLICATION

CODE = Code(47, ("acid", "badge"))
CONTENT = bytes(3000)  # of several pieces


@target(KeyFileError)
def revocation_list(data: bytes) -> None:
    """A list of revoked certificates."""
    found = decode_list(data)
    assert len(found.revoked) <= data.count(b"\n")


@target(KeyFileError)
def signed_revocation_list(data: bytes) -> None:
    """A list whose signature is right, whatever it says."""
    lines = [line.strip() for line in data.decode("utf-8", "replace").split("\n")]
    lines = [line for line in lines if line and not line.startswith("#")]
    seed = APPLICATION.owner.authority_seed
    signature = sign_statement(seed, LIST_LABEL, "".join(f"{line}\n" for line in lines).encode())
    found = decode_list("\n".join([*lines, f"signature: {signature.hex()}"]).encode())
    assert decode_list(encode_list(found, seed).encode()).revoked == found.revoked


@target(KeyFileError)
def record_of_issues(data: bytes) -> None:
    """An owner's record of certificates: a damaged one is read, and gone on with."""
    app = scratch() / "app"
    path = app.with_name("app.issued")
    path.write_bytes(data)
    path.chmod(0o600)
    before = read_record(str(app))
    with OpenRecord(str(app)) as record:
        record.add_revoked([5], before.latest_list + 1, 0)
    after = read_record(str(app))
    assert after.issued == before.issued and after.revoked == {**before.revoked, 5: before.latest_list + 1}


@target(UsageError)
def joining_code(data: bytes) -> None:
    """A code that somebody has typed."""
    code = Code.parse(words(data))
    assert Code.parse(str(code)) == code


@target()
def joining_datagram(data: bytes) -> None:
    """A datagram of two machines that share a code."""
    message = decode_message(data)
    if message is not None:
        assert encode_message(message) == data


@target()
def joining_exchange(data: bytes) -> None:
    """Datagrams of anybody, at both sides of an exchange: neither the file nor a wrong one comes of them."""
    giver, taker = Giver(CODE, "app.pub", CONTENT, 0.0), Taker(CODE, 0.0)
    (seek,) = taker.handle_timeout(0.0)
    session = seek[7:23]
    for piece in pieces(data)[:8]:
        head = seek[:6] + piece[:1] + session  # of this session, whatever it says
        for datagram in (piece, head + piece[1:]):
            assert all(len(answer) <= len(datagram) for answer in giver.receive_data(datagram, 1.0))
            taker.receive_data(datagram, 1.0)
    assert not taker.content
