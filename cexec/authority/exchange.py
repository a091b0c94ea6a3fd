"""Both sides of giving a file to a machine that knows a short code.  No sockets: datagrams and the time are arguments.

Contract: `Giver` and `Taker` have the verbs of docs/architecture.md.  `receive_data(data, now)` returns the datagrams
that answer one (the giver's go to its sender, the taker's to the group), `handle_timeout(now)` those that are due at
`next_timeout()`.  `over` is true at the end; then `failure` is a reason or "", and the taker has `name` and `content`.
Whatever comes, no other error is raised.

The messages of docs/protocol.md section 2.7, where K is what SPAKE2 gives both sides if they know the same code:

    taker -> group   SEEK        number of the code, SPAKE2 message A
    giver -> taker   FOUND       SPAKE2 message B
    taker            TAKER PROOF keyed by K: one wrong proof ends the code
    giver            GIVER PROOF keyed by K: the taker goes on only if it is right
    taker            ASK n ...   keyed by K
    giver            PIECE n     of the file, sealed under a key derived from K
    taker            DONE        keyed by K, after all pieces were opened

A guesser has one guess: the giver checks one proof, and the taker sends its proof to the first FOUND only.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any

from cexec.errors import LocalError, ProtocolError
from cexec.protocol.base import sodium
from cexec.protocol.base.limits import IDENTITY_SIZE
from cexec.protocol.base.token_bucket import TokenBucket
from cexec.protocol.base.wire import Reader, Writer
from cexec.protocol.datagrams.joining import (
    MOST_PIECES,
    PIECE_SIZE,
    Ask,
    Done,
    Found,
    GiverProof,
    JoinMessage,
    Piece,
    Seek,
    TakerProof,
    decode_message,
    encode_message,
)
from cexec.system.extras import how_to_add

if TYPE_CHECKING:
    from cexec.authority.code import Code

LIFETIME = 600.0  # seconds (protocol) that a code is good for
SEEKING = 30.0  # seconds (ours) until a taker gives up when nobody answers
PATIENCE = 5.0  # seconds (ours) without an answer after which the other side has gone
FIRST_PAUSE, LONGEST_PAUSE, GROWTH = 0.25, 2.0, 1.5  # seconds (ours) between two copies of the taker's message
RUN_RATE, RUN_BURST = 2.0, 8.0  # SPAKE2 runs a second (ours) for seeking strangers: each takes 20 ms of CPU
MOST_SESSIONS = 64  # (ours) that a giver remembers: the oldest makes room
MOST_SENT = 20 * MOST_PIECES  # pieces (ours) that a giver sends in all
FAREWELLS = 3  # copies (ours) of DONE, which nobody acknowledges


def load_spake2() -> Any:
    """Returns the library; raises `LocalError` if it is not installed."""
    try:
        import spake2
    except ImportError:
        raise LocalError(f"giving and taking by a code needs the Python package spake2; {how_to_add('join')}") from None
    return spake2


class Secrets:
    """Holds what both sides derive from K and the two messages of SPAKE2."""

    def __init__(self, key: bytes, session: bytes, element_a: bytes, element_b: bytes) -> None:
        self._key = sodium.keyed_hash(key, b"cexec 1 join", session, element_a, element_b)
        self.taker_proof = sodium.keyed_hash(self._key, b"cexec 1 join taker")
        self.giver_proof = sodium.keyed_hash(self._key, b"cexec 1 join giver")
        self.done_proof = sodium.keyed_hash(self._key, b"cexec 1 join done")
        self._file_key = sodium.keyed_hash(self._key, b"cexec 1 join file")
        self._session = session

    def ask_proof(self, index: int) -> bytes:
        return sodium.keyed_hash(self._key, b"cexec 1 join ask", bytes([index]))

    def seal(self, name: str, content: bytes) -> list[bytes]:
        """Returns the pieces of the sealed file."""
        box = sodium.seal_message(self._file_key, bytes(Writer().text(name).raw(content)), self._session)
        return [box[start : start + PIECE_SIZE] for start in range(0, len(box), PIECE_SIZE)]

    def open(self, pieces: list[bytes]) -> tuple[str, bytes]:
        """Returns name and content; raises `ProtocolError`."""
        reader = Reader(sodium.open_message(self._file_key, b"".join(pieces), self._session))
        return reader.text(), reader.rest()


def _finish(side: Any, element: bytes) -> bytes | None:
    """Returns K, or None if the other side's message is no point of the curve; the library has many errors for that."""
    try:
        key: bytes = side.finish(element)
    except Exception:
        return None
    return key


class Giver:
    """Gives one file, once, to whoever proves to know the code."""

    def __init__(self, code: Code, name: str, content: bytes, now: float) -> None:
        self.over = False
        self.failure = ""
        self._spake2 = load_spake2()
        self._code = code
        self._name = name
        self._content = content
        self._deadline = now + LIFETIME
        self._runs = TokenBucket(RUN_RATE, RUN_BURST, now)
        self._sessions: dict[bytes, tuple[Seek, Found, Secrets]] = {}
        self._confirmed = b""  # the session whose taker knows the code
        self._pieces: list[bytes] = []
        self._sent = 0

    def next_timeout(self) -> float:
        return inf if self.over else self._deadline

    def handle_timeout(self, now: float) -> None:
        if not self.over and now >= self._deadline:
            self._end(
                "the other machine has gone without saying that it has the file; look there"
                if self._confirmed
                else f"nobody has typed the code within {LIFETIME / 60:g} minutes"
            )

    def receive_data(self, data: bytes, now: float) -> list[bytes]:
        """Returns the answers to a datagram, for its sender."""
        message = decode_message(data)
        if self.over or message is None or (self._confirmed and message.session != self._confirmed):
            return []
        answer: JoinMessage | None = None
        if isinstance(message, Seek):
            answer = self._found(message, now)
        elif isinstance(message, TakerProof):
            answer = self._check(message, now)
        elif isinstance(message, Ask):
            answer = self._piece(message, now)
        elif isinstance(message, Done):
            self._hear_done(message)
        return [] if answer is None else [encode_message(answer)]

    def _found(self, seek: Seek, now: float) -> Found | None:
        if seek.number != self._code.number:
            return None
        known = self._sessions.get(seek.session)
        if known is not None:
            return known[1] if known[0] == seek else None
        if not self._runs.left(now):
            return None
        self._runs.spend(1.0)
        side = self._spake2.SPAKE2_B(self._code.password)
        element: bytes = side.start()
        key = _finish(side, seek.element)
        if key is None:
            return None
        if len(self._sessions) >= MOST_SESSIONS:
            del self._sessions[next(iter(self._sessions))]
        found = Found(seek.session, element)
        self._sessions[seek.session] = (seek, found, Secrets(key, seek.session, seek.element, element))
        return found

    def _check(self, proof: TakerProof, now: float) -> GiverProof | None:
        known = self._sessions.get(proof.session)
        if known is None:
            return None
        own = known[2]
        if not sodium.equal(proof.proof, own.taker_proof):
            self._end("somebody has tried another code, so this one is used up; give the file again with a new one")
            return None
        if not self._confirmed:
            self._confirmed = proof.session
            self._pieces = own.seal(self._name, self._content)
            self._deadline = now + PATIENCE
        return GiverProof(proof.session, own.giver_proof, len(self._pieces))

    def _piece(self, ask: Ask, now: float) -> Piece | None:
        known = self._sessions.get(ask.session)
        if known is None or not self._confirmed or ask.index >= len(self._pieces) or self._sent >= MOST_SENT:
            return None
        if not sodium.equal(ask.proof, known[2].ask_proof(ask.index)):
            return None
        self._sent += 1
        self._deadline = now + PATIENCE
        return Piece(ask.session, ask.index, self._pieces[ask.index])

    def _hear_done(self, done: Done) -> None:
        if self._confirmed and sodium.equal(done.proof, self._sessions[self._confirmed][2].done_proof):
            self._end("")

    def _end(self, failure: str) -> None:
        self.over, self.failure = True, failure


class Taker:
    """Takes the file from the giver that proves to know the code."""

    def __init__(self, code: Code, now: float) -> None:
        self.over = False
        self.failure = ""
        self.name = ""
        self.content = b""
        self._side = load_spake2().SPAKE2_A(code.password)
        element: bytes = self._side.start()
        self._seek = Seek(sodium.random_bytes(IDENTITY_SIZE), code.number, element)
        self._secrets: Secrets | None = None
        self._pieces: list[bytes] = []
        self._count = 0  # of pieces; 0 until the giver has proved itself
        self._asking: JoinMessage = self._seek  # this message is sent until it is answered
        self._due = now
        self._pause = FIRST_PAUSE
        self._deadline = now + SEEKING

    def next_timeout(self) -> float:
        return inf if self.over else min(self._due, self._deadline)

    def handle_timeout(self, now: float) -> list[bytes]:
        """Returns what is to be sent now; ends after too long a silence."""
        if self.over:
            return []
        if now >= self._deadline:
            if isinstance(self._asking, Seek):
                self._end("nobody on this network gives anything under that number")
            elif self._count:
                self._end("the other machine has gone; give the file again with a new code")
            else:
                self._end("the other machine did not accept the code, which is wrong or used up; get a new one")
            return []
        if now < self._due:
            return []
        self._due = now + self._pause
        self._pause = min(LONGEST_PAUSE, self._pause * GROWTH)
        return [encode_message(self._asking)]

    def receive_data(self, data: bytes, now: float) -> list[bytes]:
        """Returns what a datagram is answered with, for the group."""
        message = decode_message(data)
        if self.over or message is None or message.session != self._seek.session:
            return []
        if isinstance(message, Found) and self._secrets is None:
            key = _finish(self._side, message.element)
            if key is None:
                self._end("the answer makes no sense; get a new code")
                return []
            self._secrets = Secrets(key, message.session, self._seek.element, message.element)
            return self._ask(TakerProof(message.session, self._secrets.taker_proof), now)
        if isinstance(message, GiverProof) and self._secrets is not None and not self._count:
            if not sodium.equal(message.proof, self._secrets.giver_proof):
                self._end("the machine that answered does not know the code; get a new one")
                return []
            self._count = message.pieces
            return self._next_piece(now)
        if isinstance(message, Piece) and self._count and message.index == len(self._pieces):
            self._pieces.append(message.data)
            return self._next_piece(now) if len(self._pieces) < self._count else self._open()
        return []

    def _next_piece(self, now: float) -> list[bytes]:
        assert self._secrets is not None
        index = len(self._pieces)
        return self._ask(Ask(self._seek.session, index, self._secrets.ask_proof(index)), now)

    def _ask(self, message: JoinMessage, now: float) -> list[bytes]:
        """Sends this message now, and again until it is answered."""
        self._asking = message
        self._pause = FIRST_PAUSE
        self._due = now + self._pause
        self._deadline = now + PATIENCE
        return [encode_message(message)]

    def _open(self) -> list[bytes]:
        assert self._secrets is not None
        try:
            self.name, self.content = self._secrets.open(self._pieces)
        except ProtocolError:
            self._end("the file was damaged on its way; give it again with a new code")
            return []
        self._end("")
        return [encode_message(Done(self._seek.session, self._secrets.done_proof))] * FAREWELLS

    def _end(self, failure: str) -> None:
        self.over, self.failure = True, failure
