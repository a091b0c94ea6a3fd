"""The messages between an `Executor` and a `cexec.pool`, as bytes.

Contract: pure.  Each side first sends its greeting, one line, and then messages.  A message is a header of
`HEADER_SIZE` bytes, the lengths of its parts, and the parts:

    kind (1 byte), 3 bytes of zero, number of parts (4 bytes), id (8 bytes), about (8 bytes), one length (8 bytes) each

All numbers are unsigned, the most significant byte first.  `encode` returns buffers that are to be written one after
the other; a large part among them is the caller's own buffer, so that nothing is copied.  A `Decoder` takes bytes as
they come and returns whole messages; a `Cutter` returns pieces, for a process that only passes messages on.  Bytes
that no message begins with are a `ProtocolError`, and so are a message with fewer parts than its kind has, and one that
is longer than the decoder's limit or the memory.

The first part of a call or a result is a pickle of protocol 5; the parts behind it are the pickle's out-of-band
buffers.  docs/python.md, "What an executor and a worker say to each other".
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

from cexec.errors import ProtocolError

if TYPE_CHECKING:
    from collections.abc import Sequence

    Buffer = bytes | bytearray | memoryview
    Part = Buffer | list[bytes]  # the bytes of a list follow one another

VERSION = 1  # of the messages
CLIENT_GREETING = b"cexec.pool client %d\n" % VERSION
WORKER_GREETING = b"cexec.pool worker %d\n" % VERSION
CLIENT_START = CLIENT_GREETING.rpartition(b" ")[0] + b" "  # of any version
WORKER_START = WORKER_GREETING.rpartition(b" ")[0] + b" "

# client to worker
SETUP = 1  # [JSON, SHA-256 of MODULES or nothing]; an initializer adds [pickle of (initializer, initargs), buffers...]
FUNCTION = 2  # id: of the function; [pickle, buffers...]
FORGET = 3  # id: of a function that no later call names
CALL = 4  # id: of the call, about: the function; [pickle of (args, kwargs), buffers...]
CHUNK = 5  # likewise, but [pickle of a list of args, buffers...]; the result is the list of results
CANCEL = 6  # id: of a call that is to end, in whatever state it is; CANCELLED or a result follows
TAKE_BACK = 7  # id: of a call that is not to begin; RETURNED follows, or its result if it has begun
OPEN_STORE = 8  # [name of a store of arrays]; STORE follows
ARRAY = 9  # id: of the array; [its bytes, SHA-256 of them]; KEPT follows
DROP_ARRAY = 10  # id: of an array that no call in hand names
MODULES = 11  # [zip of the modules]; KEPT_MODULES follows

# worker to client
HELLO = 16  # [JSON]
READY = 17  # the initializer has returned
UNREADY = 18  # the initializer has raised: the parts of RAISED
RESULT = 19  # id: of the call, about: nanoseconds that it took; [pickle, buffers...]
RAISED = 20  # likewise; [traceback, pickle of the exception, buffers...]
DONE = 21  # id: of the call whose outcome came before; outcomes that are not `is_short` count only with it
CANCELLED = 22  # id: of a call that was ended, or has never begun
RETURNED = 23  # id: of a call that has not begun, and does not any more
DIED = 24  # id: of the call during which its process has ended, or NOBODY; about: status, see `encode_status`
STORE = 25  # [identity of the store, the same for all who share it; nothing if there is none, why]
KEPT = 26  # id: of an array; [nothing if it is in the store now, or why it is not]
LACKING = 27  # id: of a call that has not begun, about: an array that it names and that is not in the store
MISSING_MODULES = 28  # this machine does not have the modules of SETUP; MODULES is to follow, or the same SETUP again
KEPT_MODULES = 29  # the modules have come; other slots of this machine find them now, unless they cannot be kept
RUNNER_TO_CLIENT = frozenset((READY, UNREADY, RESULT, RAISED, DONE, RETURNED, LACKING))

KINDS = frozenset((*range(SETUP, MODULES + 1), *range(HELLO, KEPT_MODULES + 1)))
LEAST_PARTS = {  # of kinds that have any: a reader need not look before it takes one
    SETUP: 2, FUNCTION: 1, CALL: 1, CHUNK: 1, OPEN_STORE: 1, ARRAY: 2, MODULES: 1,
    HELLO: 1, UNREADY: 2, RESULT: 1, RAISED: 2, STORE: 2, KEPT: 1,
}  # fmt: skip
NOBODY = 2**64 - 1

HEADER = struct.Struct("!BxxxIQQ")
HEADER_SIZE = HEADER.size
LENGTH_SIZE = 8
MOST_PARTS = 2**16  # (ours) smaller buffers travel inside the pickle
SMALL = 64 * 1024  # bytes (ours) up to which a message is joined to one buffer, and is kept and passed on as a whole


class CallMessage(NamedTuple):
    """One message; large parts are writable."""

    kind: int
    id: int
    about: int
    parts: list[bytes | bytearray]


def encode(kind: int, id: int = 0, about: int = 0, parts: Sequence[Part] = ()) -> list[Buffer]:
    """Returns what is to be written; a short message is one buffer.  Raises `ValueError` for too many parts."""
    if len(parts) > MOST_PARTS:
        raise ValueError(f"a message has at most {MOST_PARTS} parts")
    buffers: list[Buffer] = []
    lengths = []
    for part in parts:
        pieces = part if isinstance(part, list) else (part,)
        lengths.append(size_of(pieces))
        buffers += pieces
    head = HEADER.pack(kind, len(parts), id, about) + struct.pack(f"!{len(lengths)}Q", *lengths)
    if len(head) + sum(lengths) <= SMALL:
        return [b"".join((head, *buffers))]
    return [head, *(one for one in buffers if len(one))]


def size_of(buffers: Sequence[Buffer]) -> int:
    """Returns the number of bytes in what `encode` has returned; a view has to be one of single bytes."""
    return sum(map(len, buffers))


def encode_status(status: int) -> int:
    """Returns the number for DIED; `status` is an exit status, or a signal's number below zero."""
    return status & 0xFFFF


def decode_status(number: int) -> int:
    return number - 0x10000 if number & 0x8000 else number


def is_short(message: CallMessage) -> bool:
    """Returns True if it was one buffer.  A longer one may break off, when its process ends: zeros fill it up then."""
    return HEADER_SIZE + sum(LENGTH_SIZE + len(part) for part in message.parts) <= SMALL


def _read_header(view: memoryview, at: int) -> tuple[int, int, int, int]:
    kind, count, id, about = HEADER.unpack_from(view, at)
    if kind not in KINDS or count > MOST_PARTS or view[at + 1] or view[at + 2] or view[at + 3]:
        raise ProtocolError(f"a message of cexec.pool was expected, not {bytes(view[at : at + HEADER_SIZE])!r}")
    if count < LEAST_PARTS.get(kind, 0):
        raise ProtocolError(f"a message of cexec.pool of kind {kind} has only {count} parts")
    return kind, count, id, about


def _make_room(lengths: Sequence[int], most: int) -> list[bytes | bytearray]:
    """Returns the parts that are to be filled."""
    try:
        if sum(lengths) <= most:
            return [bytearray(length) for length in lengths]
    except (MemoryError, OverflowError):
        pass
    raise ProtocolError(
        f"a message of cexec.pool says that it has {sum(lengths):,} bytes, for which there is no memory"
    )


class _Body:
    """The parts of a message whose bytes are still coming."""

    def __init__(self, message: CallMessage) -> None:
        self.message = message
        self._views = [memoryview(part) for part in message.parts if len(part)]
        self._views.reverse()  # the last one comes next

    @property
    def complete(self) -> bool:
        return not self._views

    @property
    def rest(self) -> memoryview:
        """What is missing of the part that comes now."""
        return self._views[-1]

    def advance(self, count: int) -> None:
        """So many bytes were put into `rest`."""
        rest = self._views.pop()[count:]
        if len(rest):
            self._views.append(rest)

    def fill(self, view: memoryview) -> int:
        """Returns how many of these bytes belong to the message."""
        taken = 0
        while self._views and taken < len(view):
            size = min(len(self.rest), len(view) - taken)
            self.rest[:size] = view[taken : taken + size]
            self.advance(size)
            taken += size
        return taken


class Decoder:
    """Bytes to messages.  `room` and `filled` let a large part be read into its place."""

    def __init__(self, most: int = NOBODY) -> None:
        """`most`: bytes of one message."""
        self._most = most
        self._kept = b""  # the beginning of a message
        self._body: _Body | None = None  # of the message whose header has come

    def feed(self, data: Buffer) -> list[CallMessage]:
        """Takes bytes as they come; returns the messages that are complete with them."""
        view = memoryview(self._kept + data if self._kept else data)
        at, done = 0, []
        if self._body is not None:
            at = self._body.fill(view)
            done += self._finished()
        while self._body is None and len(view) - at >= HEADER_SIZE:
            kind, count, id, about = _read_header(view, at)
            start = at + HEADER_SIZE + count * LENGTH_SIZE
            if len(view) < start:
                break
            lengths = struct.unpack_from(f"!{count}Q", view, at + HEADER_SIZE)
            at = start
            if sum(lengths) <= len(view) - start:
                parts: list[bytes | bytearray] = []
                for length in lengths:
                    part = view[at : at + length]
                    parts.append(bytes(part) if length <= SMALL else bytearray(part))
                    at += length
                done.append(CallMessage(kind, id, about, parts))
            else:
                self._body = _Body(CallMessage(kind, id, about, _make_room(lengths, self._most)))
                at += self._body.fill(view[at:])
        self._kept = bytes(view[at:])
        return done

    def room(self) -> memoryview | None:
        """Returns where the next bytes belong, if they are part of something large; then call `filled`."""
        return self._body.rest if self._body is not None and len(self._body.rest) > SMALL else None

    def filled(self, count: int) -> list[CallMessage]:
        """Says that so many bytes were read into `room`; returns the message that is complete with them."""
        assert self._body is not None
        self._body.advance(count)
        return self._finished()

    @property
    def idle(self) -> bool:
        """True between two messages."""
        return not self._kept and self._body is None

    def _finished(self) -> list[CallMessage]:
        if self._body is None or not self._body.complete:
            return []
        message, self._body = self._body.message, None
        return [message]


class MessagePiece(NamedTuple):
    """Bytes of one message, of which `missing` follow.  A short message is one piece; those of a long one are views."""

    kind: int
    id: int
    data: bytes | memoryview
    first: bool
    missing: int


class Cutter:
    """Bytes to pieces of messages, none of which is longer than what was fed, or `SMALL`."""

    def __init__(self) -> None:
        self._kept = b""
        self._kind = self._id = 0
        self.missing = 0  # bytes of a large message that has begun

    def skip(self, count: int) -> None:
        """Says that so many of the `missing` bytes were passed on unseen."""
        self.missing -= count

    def feed(self, data: Buffer) -> list[MessagePiece]:
        view = memoryview(self._kept + data if self._kept else data)
        at, end, pieces = 0, len(view), []
        while at < end:
            if self.missing:
                size = min(self.missing, end - at)
                self.missing -= size
                pieces.append(MessagePiece(self._kind, self._id, view[at : at + size], False, self.missing))
                at += size
                continue
            if end - at < HEADER_SIZE:
                break
            kind, count, id, _ = _read_header(view, at)
            head = HEADER_SIZE + count * LENGTH_SIZE
            if end - at < head:
                break
            total = head + sum(struct.unpack_from(f"!{count}Q", view, at + HEADER_SIZE))
            size = min(total, end - at)
            if size < total <= SMALL:
                break
            part = view[at : at + size]
            pieces.append(MessagePiece(kind, id, bytes(part) if total <= SMALL else part, True, total - size))
            self._kind, self._id, self.missing = kind, id, total - size
            at += size
        self._kept = bytes(view[at:])
        return pieces
