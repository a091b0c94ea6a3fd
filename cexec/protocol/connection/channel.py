"""TCP bytes to sealed records and back: two handshake machines, and `Records`, the type that both turn into.

Contract: pure machines with the verbs `receive_data`, `next_event`, `data_to_send`, `next_timeout`, `handle_timeout`.
Failure is sticky: after a `ProtocolError` every later call raises it again.  A peer cannot make us allocate memory:
flights have a fixed size and a record's length is checked before anything else.  docs/protocol.md sections 3 and 4.1.

What goes over the wire:

    1  worker  opening (8, clear)  first flight: Noise NKpsk0 message 1 around a hello padded to 640 bytes
    2  client  second flight: Noise NKpsk0 message 2 around the chosen cipher's number
    3  worker  records, the first of which is the confirmation
    4  client  records, the first of which is GO or CANCEL
"""

from __future__ import annotations

from cexec.errors import ProtocolError
from cexec.protocol.base import noise, sodium
from cexec.protocol.base.limits import (
    CONNECT_DEADLINE,
    FIRST_FLIGHT_PAYLOAD,
    FRAME_HEADER,
    MAXIMUM_DATA,
    MAXIMUM_FRAME,
    RECORD_HEADER,
    SECOND_FLIGHT_PAYLOAD,
)
from cexec.protocol.base.wire import Bytes, Reader, Writer
from cexec.protocol.datagrams.datagram import MAGIC, VERSION
from cexec.protocol.datagrams.hello import CIPHERS, CONNECT, Hello, open_hello, seal_hello

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cexec.protocol.base.certificate import Identity

OPENING = MAGIC + bytes([VERSION, 0, 0, 0])  # by its first bytes a stranger, or another version, is recognised
FIRST_FLIGHT = len(OPENING) + noise.OVERHEAD + FIRST_FLIGHT_PAYLOAD  # bytes
SECOND_FLIGHT = noise.OVERHEAD + SECOND_FLIGHT_PAYLOAD  # bytes
RECORD_LABEL = b"cexec 1 record "

FIRST_BUFFER = 4096  # bytes (protocol): the longest first record of a worker; a replayer gets no larger buffer
SEND_BUFFERS = 2  # (ours) one is filled while the kernel takes the other
MAXIMUM_WAITING = 64  # records (ours) that may wait to be sent; then a driver must not add any


class _Handshake:
    """The common part of both sides: fixed-size flights, one deadline, sticky failure."""

    def __init__(self, handshake: noise.Handshake, expected: int, now: float) -> None:
        self._handshake = handshake
        self._expected = expected
        self._received = bytearray()
        self._outgoing = b""
        self._deadline: float | None = now + CONNECT_DEADLINE
        self._failure: ProtocolError | None = None
        self._records: Records | None = None

    def receive_data(self, data: Bytes, now: float) -> None:
        """Takes bytes from the peer, at most `wanted`; raises `ProtocolError`."""
        self._check()
        if len(data) > self.wanted:
            raise ValueError("more bytes than were wanted")
        if not len(data):
            return
        self._received += data
        try:
            self._look(bytes(self._received), now)
        except ProtocolError as error:
            self._fail(error)

    @property
    def wanted(self) -> int:
        """The number of bytes that the flight still lacks; a driver must not read more."""
        return self._expected - len(self._received)

    def data_to_send(self) -> bytes:
        data, self._outgoing = self._outgoing, b""
        return data

    def next_timeout(self) -> float | None:
        return self._deadline

    def handle_timeout(self, now: float) -> None:
        """Raises `ProtocolError` when the deadline has passed."""
        self._check()
        if self._deadline is not None and now >= self._deadline:
            self._fail(ProtocolError("handshake was not finished in time"))

    @property
    def records(self) -> Records | None:
        """The transport phase, once both flights have passed."""
        return self._records

    def _look(self, received: bytes, now: float) -> None:
        raise NotImplementedError

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _fail(self, error: ProtocolError) -> None:
        self._failure = error
        self._deadline = None
        self._handshake.erase()
        raise error

    def _finish(self, cipher: str, *, worker: bool) -> None:
        self._deadline = None
        from_worker, from_client = (
            sodium.keyed_hash(key, RECORD_LABEL + cipher.encode()) for key in self._handshake.split()
        )
        keys = (from_worker, from_client) if worker else (from_client, from_worker)
        # Only the announcer can write a second flight, but anybody can send a recorded first flight again.
        self._records = Records(sodium.aead(cipher), *keys, proved=worker)


class WorkerHandshake(_Handshake):
    """The worker's side, the initiator: `data_to_send` returns its first flight at once."""

    def __init__(self, handshake: noise.Handshake, identity: Identity, hello: Hello, now: float) -> None:
        super().__init__(handshake, SECOND_FLIGHT, now)
        self._offered = hello.ciphers
        self._outgoing = OPENING + seal_hello(handshake, identity, hello, FIRST_FLIGHT_PAYLOAD)

    def _look(self, received: bytes, now: float) -> None:
        if len(received) < SECOND_FLIGHT:
            return
        payload, _ = self._handshake.read_message(received)
        reader = Reader(payload)
        number = reader.u8()
        reader.zeros()
        if number >= len(CIPHERS) or CIPHERS[number] not in self._offered:
            raise ProtocolError("client chose a cipher that was not offered")
        self._finish(CIPHERS[number], worker=True)


class ClientHandshake(_Handshake):
    """The client's side, the responder.  It proves the worker and answers; `next_event` then returns its `Hello`."""

    def __init__(self, handshake: noise.Handshake, authority_public: bytes, ciphers: list[str], now: float) -> None:
        """`ciphers`: those that this side is willing to use, best first."""
        super().__init__(handshake, FIRST_FLIGHT, now)
        self._authority_public = authority_public
        self._ciphers = ciphers
        self._hello: Hello | None = None

    def next_event(self) -> Hello | None:
        hello, self._hello = self._hello, None
        return hello

    def _look(self, received: bytes, now: float) -> None:
        if received[: len(OPENING)] != OPENING[: len(received)]:
            if received[:4] == OPENING[:4] and len(received) > 4 and received[4] != VERSION:
                raise ProtocolError(f"worker speaks version {received[4]} of the protocol and this client {VERSION}")
            raise ProtocolError("connection is not from a worker")
        if len(received) < FIRST_FLIGHT:
            return
        hello = open_hello(self._handshake, received[len(OPENING) :], self._authority_public)
        if hello.purpose != CONNECT:
            raise ProtocolError("hello is not meant for a connection")
        shared = [name for name in self._ciphers if name in hello.ciphers]
        if not shared:
            raise ProtocolError("worker and client have no cipher in common")
        choice = Writer().u8(CIPHERS.index(shared[0])).padded(SECOND_FLIGHT_PAYLOAD)
        self._outgoing = self._handshake.write_message(lambda h: choice)
        self._hello = hello
        self._finish(shared[0], worker=False)


class Records:
    """Sealed records both ways.  A record is a 4-byte length and an AEAD box around one frame.

    Receiving is in place: read into `receive_buffer()`, tell `received(size)`, then take frames with `next_event()`;
    a frame is a view that is valid until the next call of `receive_buffer`.  Sending is in place too: fill
    `data_buffer()`, then `send_data`; `data_to_send()` gives buffers and `data_sent(size)` releases them.
    """

    def __init__(self, cipher: sodium.Aead, sending_key: bytes, receiving_key: bytes, *, proved: bool) -> None:
        """`proved`: the peer has the keys.  If not, buffers stay small until its first record proves that it has."""
        self.cipher = cipher
        self._sending_key = sending_key
        self._receiving_key = receiving_key
        self._sent_records = 0
        self._received_records = 0
        self._longest_box = MAXIMUM_FRAME + cipher.tag_size if proved else FIRST_BUFFER - RECORD_HEADER
        self._incoming = memoryview(bytearray(FIRST_BUFFER))
        self._start = 0
        self._end = 0
        self._failure: ProtocolError | None = None
        self._free: list[memoryview] = []
        self._allocated = 0
        self._outgoing: list[memoryview] = []  # oldest first; the first may be partly sent
        self._owners: list[memoryview | None] = []  # the data buffer behind each outgoing view, if it is one

    @property
    def keys(self) -> tuple[str, bytes, bytes]:
        """Cipher, sending and receiving key: another process can continue with them before the first record."""
        return self.cipher.name, self._sending_key, self._receiving_key

    # receiving

    def receive_buffer(self) -> memoryview:
        """Returns the place for the next bytes from the peer: room for the longest possible record and one header.

        So long records are read one by one, and their bytes are never moved.
        """
        if self._start == self._end:
            self._start = self._end = 0
        if self._end == len(self._incoming) == FIRST_BUFFER and self._longest_box > FIRST_BUFFER:
            # This is not done earlier, because a short job never needs it, and the kernel's work to provide the memory
            # takes longer than all else that a short job does here.
            larger = memoryview(bytearray(2 * (RECORD_HEADER + MAXIMUM_FRAME + self.cipher.tag_size)))
            larger[self._start : self._end] = self._incoming[self._start : self._end]
            self._incoming = larger
        limit = self._start + 2 * RECORD_HEADER + self._longest_box
        if limit > len(self._incoming) and self._start:
            present = self._end - self._start
            self._incoming[:present] = self._incoming[self._start : self._end]
            limit -= self._start
            self._start, self._end = 0, present
        return self._incoming[self._end : limit]

    def received(self, size: int) -> None:
        """Notes that `size` bytes were put into the receive buffer."""
        self._end += size

    def receive_data(self, data: Bytes, now: float) -> list[bytes]:
        """Takes bytes from the peer and returns the frames, copied.  For tests and short exchanges."""
        frames = []
        view = memoryview(data)
        while len(view):
            room = self.receive_buffer()
            size = min(len(room), len(view))
            room[:size] = view[:size]
            self.received(size)
            view = view[size:]
            while (frame := self.next_event()) is not None:
                frames.append(bytes(frame))
        return frames

    def next_event(self) -> memoryview | None:
        """Returns the next whole frame, opened in place, or None if more bytes are needed; raises `ProtocolError`."""
        if self._failure is not None:
            raise self._failure
        present = self._end - self._start
        if present < RECORD_HEADER:
            return None
        front = self._start + RECORD_HEADER
        header = bytes(self._incoming[self._start : front])
        size = int.from_bytes(header, "big")
        if not self.cipher.tag_size + FRAME_HEADER <= size <= self._longest_box:
            self._failure = ProtocolError("record has an impossible length")
            raise self._failure
        if present < RECORD_HEADER + size:
            return None
        box = self._incoming[front : front + size]
        try:
            length = self.cipher.open(self._receiving_key, self._received_records, box, header)
        except ProtocolError as error:
            self._failure = error
            raise
        self._received_records += 1
        self._start += RECORD_HEADER + size
        self._longest_box = MAXIMUM_FRAME + self.cipher.tag_size
        return box[:length]

    @property
    def at_record_boundary(self) -> bool:
        """True if no part of an unfinished record has been received."""
        return self._start == self._end

    @property
    def empty_size(self) -> int:
        """Bytes of a record whose frame has no body, such as PONG."""
        return RECORD_HEADER + FRAME_HEADER + self.cipher.tag_size

    # sending

    @property
    def congested(self) -> bool:
        """True if so many records wait for the peer that no frame, not even a small one, may be added."""
        return len(self._outgoing) >= MAXIMUM_WAITING

    @property
    def has_room(self) -> bool:
        """True if `data_buffer` would return a buffer."""
        return not self.congested and (bool(self._free) or self._allocated < SEND_BUFFERS)

    def data_buffer(self) -> memoryview | None:
        """Room for `MAXIMUM_DATA` bytes of a stream, or None while all buffers wait to be sent."""
        if self.congested:
            return None
        if not self._free:
            if self._allocated == SEND_BUFFERS:
                return None
            size = RECORD_HEADER + MAXIMUM_FRAME + self.cipher.tag_size
            self._free.append(memoryview(bytearray(size)))
            self._allocated += 1
        start = RECORD_HEADER + FRAME_HEADER
        return self._free[-1][start : start + MAXIMUM_DATA]

    def send_data(self, head: bytes, size: int) -> None:
        """Sends the first `size` bytes of `data_buffer()` as a frame with this 4-byte head."""
        buffer = self._free.pop()
        self._seal(buffer, head, size)
        self._owners.append(buffer)

    def send_frame(self, frame: bytes) -> None:
        """Sends a frame that is not stream data."""
        buffer = memoryview(bytearray(RECORD_HEADER + len(frame) + self.cipher.tag_size))
        buffer[RECORD_HEADER + FRAME_HEADER : RECORD_HEADER + len(frame)] = frame[FRAME_HEADER:]
        self._seal(buffer, frame[:FRAME_HEADER], len(frame) - FRAME_HEADER)
        self._owners.append(None)

    def data_to_send(self) -> list[memoryview]:
        """Returns the buffers to be sent, oldest first.  They stay until `data_sent` says that the kernel took them."""
        return self._outgoing

    def data_sent(self, size: int) -> None:
        """Notes that the kernel took the first `size` bytes."""
        while size:
            first = self._outgoing[0]
            if size < len(first):
                self._outgoing[0] = first[size:]
                return
            size -= len(first)
            del self._outgoing[0]
            owner = self._owners.pop(0)
            if owner is not None:
                self._free.append(owner)

    def _seal(self, buffer: memoryview, head: bytes, size: int) -> None:
        frame_size = FRAME_HEADER + size
        box_size = frame_size + self.cipher.tag_size
        header = box_size.to_bytes(RECORD_HEADER, "big")
        buffer[:RECORD_HEADER] = header
        buffer[RECORD_HEADER : RECORD_HEADER + FRAME_HEADER] = head
        self.cipher.seal(self._sending_key, self._sent_records, buffer[RECORD_HEADER:], frame_size, header)
        self._sent_records += 1
        self._outgoing.append(buffer[: RECORD_HEADER + box_size])
