"""Sealed records: the bytes of a connection behind its handshake, and the frames in them.

Contract: a pure machine.  Failure is sticky: after a `ProtocolError` every later call raises it again.  A peer cannot
make us allocate memory: a record's length is checked before anything else.  docs/protocol.md section 4.1.
"""

from __future__ import annotations

from cexec.common_errors import ProtocolError
from cexec.protocol.base import sodium
from cexec.protocol.base.limits import (
    FRAME_HEADER,
    FRAME_LENGTH,
    MAXIMUM_DATA,
    MAXIMUM_FRAME,
    RECORD_HEADER,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cexec.protocol.base.wire import Bytes

FIRST_BUFFER = 4096  # bytes (protocol): the longest first record of a worker; a replayer gets no larger buffer
SEND_BUFFERS = 2  # (ours) one is filled while the kernel takes the other
MAXIMUM_WAITING = 64  # records or frames (ours) that may wait to be sent; then a driver must not add any
NOTHING = memoryview(b"")
SHORT_DATA = 8192  # bytes (ours) of a stream that are copied, so that they share a record with other frames
SHORT_TEXT = 2 * SHORT_DATA  # bytes (ours) of frames that are sealed in memory which is kept for them


class SendBuffer:
    """Memory for one long record; `data` is the place of its stream's bytes."""

    __slots__ = ("data", "memory")

    def __init__(self, memory: sodium.BoxMemory, start: int) -> None:
        """`start`: bytes before the data."""
        self.memory = memory
        self.data = memory.view[start : start + MAXIMUM_DATA]


class Records:
    """Sealed records both ways.  A record is a 4-byte length and an AEAD box around one frame, or around several.

    Receiving is in place: read into `receive_buffer()`, tell `received(size)`, then take frames with `next_event()`
    until it has none; a frame is a view that is valid until the next call of `receive_buffer`.  Sending is in place
    too: fill `data_buffer()`, then `send_data`; `data_to_send()` gives buffers and `data_sent(size)` releases them.
    """

    def __init__(
        self, cipher: sodium.Aead, sending_key: bytes, receiving_key: bytes, *, proved: bool, packed: bool = False
    ) -> None:
        """`packed`: a record may hold several frames.

        `proved`: the peer has the keys.  If not, buffers stay small until its first record proves that it has.
        """
        self.cipher = cipher
        self.packed = packed
        self._before_frame = FRAME_LENGTH if packed else 0  # bytes
        self._before_data = self._before_frame + FRAME_HEADER  # bytes
        self._sending_key = sending_key
        self._receiving_key = receiving_key
        self._boxes: sodium.BoxMaker | None = None  # of short records, once there is one
        self._sent_records = 0
        self._received_records = 0
        self._shortest_box = self._before_frame + FRAME_HEADER + cipher.tag_size  # bytes
        self._proved_box = self._before_frame + MAXIMUM_FRAME + cipher.tag_size  # bytes of the longest box
        self._longest_box = self._proved_box if proved else FIRST_BUFFER - RECORD_HEADER
        self._incoming = sodium.BoxMemory(cipher, receiving_key, FIRST_BUFFER)
        self._room = self._incoming.view  # where the next bytes go if none wait
        self._start = 0
        self._end = 0
        self._opened = NOTHING  # frames of the last record that have not been taken
        self._failure: ProtocolError | None = None
        self._frames: list[bytes] = []  # that share the next record
        self._free: list[SendBuffer] = []
        self._allocated = 0
        self._outgoing: list[memoryview] = []  # oldest first; the first may be partly sent
        self._owners: list[SendBuffer | None] = []  # the data buffer behind each outgoing view, if it is one

    @property
    def keys(self) -> tuple[str, bool, bytes, bytes]:
        """Cipher, `packed`, sending and receiving key: another process can go on with them before the first record."""
        return self.cipher.name, self.packed, self._sending_key, self._receiving_key

    # receiving

    def receive_buffer(self) -> memoryview:
        """Returns the place for the next bytes from the peer: room for the longest possible record and one header.

        So long records are read one by one, and their bytes are never moved.
        """
        if self._start == self._end:
            self._start = self._end = 0
            return self._room
        if self._end == len(self._incoming.view) == FIRST_BUFFER and self._longest_box > FIRST_BUFFER:
            # This is not done earlier, because a short job never needs it, and the kernel's work to provide the memory
            # takes longer than all else that a short job does here.
            larger = sodium.BoxMemory(self.cipher, self._receiving_key, 2 * (RECORD_HEADER + self._proved_box))
            larger.view[self._start : self._end] = self._incoming.view[self._start : self._end]
            self._incoming = larger
            self._room = larger.view[: 2 * RECORD_HEADER + self._longest_box]
        incoming = self._incoming.view
        limit = self._start + 2 * RECORD_HEADER + self._longest_box
        if limit > len(incoming) and self._start:
            present = self._end - self._start
            incoming[:present] = incoming[self._start : self._end]
            limit -= self._start
            self._start, self._end = 0, present
        return incoming[self._end : limit]

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
        if self._opened:
            return self._next_packed()
        incoming, start = self._incoming, self._start
        front = start + RECORD_HEADER
        if self._end < front:
            return None
        size = int.from_bytes(incoming.octets[start:front], "big")
        if not self._shortest_box <= size <= self._longest_box:
            self._failure = ProtocolError("record has an impossible length")
            raise self._failure
        end = front + size
        if self._end < end:
            return None
        try:
            opened = front + incoming.open(self._received_records, start, size)
        except ProtocolError as error:
            self._failure = error
            raise
        self._received_records += 1
        self._start = end
        self._longest_box = self._proved_box
        if not self.packed:
            return incoming.view[front:opened]
        first = front + FRAME_LENGTH
        if int.from_bytes(incoming.octets[front:first], "big") == opened - first:  # one frame: the usual case
            return incoming.view[first:opened]
        self._opened = incoming.view[front:opened]
        return self._next_packed()

    def _next_packed(self) -> memoryview:
        """Takes one frame out of the record that was opened last."""
        opened = self._opened
        end = FRAME_LENGTH + int.from_bytes(opened[:FRAME_LENGTH], "big")
        if not FRAME_LENGTH + FRAME_HEADER <= end <= len(opened):
            self._failure = ProtocolError("record does not consist of whole frames")
            raise self._failure
        self._opened = opened[end:]
        return opened[FRAME_LENGTH:end]

    @property
    def at_record_boundary(self) -> bool:
        """True if no part of an unfinished record has been received."""
        return self._start == self._end and not self._opened

    @property
    def empty_size(self) -> int:
        """Bytes of a record with one frame that has no body, such as PONG."""
        return RECORD_HEADER + self._before_frame + FRAME_HEADER + self.cipher.tag_size

    # sending

    @property
    def congested(self) -> bool:
        """True if so many records wait for the peer that no frame, not even a small one, may be added."""
        return len(self._outgoing) + len(self._frames) >= MAXIMUM_WAITING

    @property
    def all_sent(self) -> bool:
        """True if the kernel has taken every frame."""
        return not self._outgoing and not self._frames

    @property
    def has_room(self) -> bool:
        """True if `data_buffer` would return a buffer."""
        if len(self._outgoing) + len(self._frames) >= MAXIMUM_WAITING:
            return False
        return bool(self._free) or self._allocated < SEND_BUFFERS

    def data_buffer(self) -> memoryview | None:
        """Room for `MAXIMUM_DATA` bytes of a stream, or None while all buffers wait to be sent."""
        if len(self._outgoing) + len(self._frames) >= MAXIMUM_WAITING:
            return None
        if not self._free:
            if self._allocated == SEND_BUFFERS:
                return None
            memory = sodium.BoxMemory(self.cipher, self._sending_key, RECORD_HEADER + self._proved_box)
            self._free.append(SendBuffer(memory, RECORD_HEADER + self._before_data))
            self._allocated += 1
        return self._free[-1].data

    def send_data(self, head: bytes, size: int) -> None:
        """Sends the first `size` bytes of `data_buffer()` as a frame with this 4-byte head."""
        if self.packed:
            if size <= SHORT_DATA:  # sealing it with others costs less than sealing it where it is
                self._frames.append(head + bytes(self._free[-1].data[:size]))
                return
            self._seal_frames()
        self.keep(self.seal_data(head, size))

    def keep(self, rest: memoryview) -> None:
        """Lets the record of `seal_data`, or the rest of it, wait for the kernel."""
        self._outgoing.append(rest)
        self._owners.append(self._free.pop())

    def seal_data(self, head: bytes, size: int) -> memoryview:
        """Makes the record of `send_data` and returns it, for a kernel that usually takes it at once.

        It has to be sent before anything else, and only if `all_sent`.  What the kernel does not take is to be given to
        `keep`.
        """
        memory = self._free[-1].memory
        text = self._before_data + size
        box = text + self.cipher.tag_size
        if self.packed:
            start = (box << 32 | FRAME_HEADER + size).to_bytes(RECORD_HEADER + FRAME_LENGTH, "big")
        else:
            start = box.to_bytes(RECORD_HEADER, "big")
        memory.seal(self._sent_records, start + head, text)
        self._sent_records += 1
        return memory.view[: RECORD_HEADER + box]

    def send_frame(self, frame: bytes) -> None:
        """Sends a frame that is not stream data, behind all that came before it."""
        self._frames.append(frame)
        if not self.packed:
            self._seal_frames()

    def data_to_send(self) -> list[memoryview]:
        """Returns the buffers to be sent, oldest first.  They stay until `data_sent` says that the kernel took them."""
        if self._frames:
            self._seal_frames()
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

    def _seal_frames(self) -> None:
        """Makes as few records as possible of the frames that wait."""
        if len(self._frames) == 1:  # the usual case
            frame = self._frames.pop()
            self._seal_bytes(len(frame).to_bytes(FRAME_LENGTH, "big") + frame if self.packed else frame)
            return
        parts: list[bytes] = []
        size, before = 0, self._before_frame
        for frame in self._frames:
            length = len(frame)
            if parts and size + length > MAXIMUM_FRAME:
                self._seal_bytes(b"".join(parts))
                parts, size = [], 0
            if before:
                parts.append(length.to_bytes(FRAME_LENGTH, "big"))
            parts.append(frame)
            size += before + length
        self._frames.clear()
        if parts:
            self._seal_bytes(b"".join(parts))

    def _seal_bytes(self, text: bytes) -> None:
        """Makes a record of these frames."""
        size = len(text)
        if size > SHORT_TEXT:
            buffer = memoryview(bytearray(RECORD_HEADER + size + self.cipher.tag_size))
            buffer[RECORD_HEADER : RECORD_HEADER + size] = text
            self._seal(buffer, size)
            return
        if self._boxes is None:
            self._boxes = sodium.BoxMaker(self.cipher, self._sending_key, SHORT_TEXT)
        header = (size + self.cipher.tag_size).to_bytes(RECORD_HEADER, "big")
        self._outgoing.append(memoryview(self._boxes.make(self._sent_records, text, header)))
        self._owners.append(None)
        self._sent_records += 1

    def _seal(self, buffer: memoryview, size: int) -> None:
        """Seals `size` bytes behind the place of the header."""
        header = (size + self.cipher.tag_size).to_bytes(RECORD_HEADER, "big")
        buffer[:RECORD_HEADER] = header
        self.cipher.seal(self._sending_key, self._sent_records, buffer[RECORD_HEADER:], size, header)
        self._sent_records += 1
        self._outgoing.append(buffer)
        self._owners.append(None)
