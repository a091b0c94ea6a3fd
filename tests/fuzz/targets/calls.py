"""What an `Executor` and a `cexec.pool` say to each other.  Pickles are not among it: reading one runs what it says."""

from __future__ import annotations

from cexec.errors import ProtocolError
from cexec.pool import call_messages as m
from cexec.pool.array_store import DIGEST_SIZE, ArrayStore
from cexec.pool.interpreter import Interpreter
from tests.fuzz.target import pieces, target

MOST = 1 << 20  # bytes of one message, so that a fuzzer which says more does not use up its memory


@target(ProtocolError)
def messages_of_a_pool(data: bytes) -> None:
    """Messages of either side, in pieces: whole ones for who follows them, cut ones for who passes them on."""
    parts = pieces(data)
    decoder, cutter = m.Decoder(MOST), m.Cutter()
    messages: list[m.CallMessage] = []
    passed = b""
    for part in parts:
        messages += decoder.feed(part)
        passed += b"".join(one.data for one in cutter.feed(part))
    assert all(len(one.parts) >= m.LEAST_PARTS.get(one.kind, 0) for one in messages)
    encoded = b"".join(b"".join(m.encode(*one)) for one in messages)
    sent = b"".join(parts)
    assert sent.startswith(encoded) and sent.startswith(passed)
    assert (encoded == sent) == decoder.idle
    assert b"".join(b"".join(m.encode(*one)) for one in m.Decoder(MOST).feed(sent)) == encoded


@target(ProtocolError)
def hello_of_a_pool(data: bytes) -> None:
    """The JSON with which a worker describes its Python."""
    found = Interpreter.decode(data)
    assert Interpreter.decode(found.encode()) == found
    found.difference(Interpreter.here())


@target(ProtocolError)
def array_of_a_client(data: bytes) -> None:
    """An array for the store of a worker, in pieces: it is kept if its digest is right, and else nothing is."""
    cutter, answers = m.Cutter(), []
    store = ArrayStore("fuzz")
    try:
        for part in pieces(data):
            for piece in cutter.feed(part):
                if piece.kind == m.ARRAY and piece.first and piece.missing + len(piece.data) < DIGEST_SIZE:
                    continue
                if piece.kind == m.ARRAY:
                    answers.append(store.take(piece))
                elif piece.kind == m.DROP_ARRAY and not piece.missing:
                    store.drop(piece.id)
        assert all(answer is None or isinstance(answer, str) for answer in answers)
    finally:
        store.close()
