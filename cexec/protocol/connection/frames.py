"""Frames: what is inside a record.  One frame has a type, a stream number and a body.

Contract: `head` makes the 4 bytes before the body, `parse` takes them apart and raises `ProtocolError` for an unknown
type, a wrong stream number and an unexpected body; `Go`, `Exit` and `Refusal` are the bodies that are more than a
number or a text.  docs/protocol.md section 4.2.

    0  type      1
    1  job       1   number of the job in its lease; 0 for frames of the connection, and in the first revision
    2  stream    2   descriptor number of the program, or FIRST_FILE and up for files; 0 where there is no stream
    4  body
"""

from __future__ import annotations

from cexec.common_errors import ProtocolError
from cexec.protocol.base.limits import FRAME_HEADER, IDENTITY_SIZE, MAXIMUM_GO, MAXIMUM_STREAMS, MAXIMUM_TEXT
from cexec.protocol.base.wire import Bytes, Reader, Writer
from cexec.protocol.connection.options import FILE, PIPE, READS, SOCKET, WRITES

CONFIRM = 1  # worker: a slot is reserved; GO must come within GO_DEADLINE
WITHDRAW = 2  # worker: the slot that was confirmed is gone; text
GO = 3  # client: run this; `Go`
CANCEL = 4  # client: you are not needed; no body
STARTED = 5  # worker: the program runs; u8 flags: ONCE
REFUSED = 6  # worker: the program was not started; `Refusal`
DATA = 7  # both: bytes of a stream
END = 8  # both: the stream has ended; u64 number of bytes it carried in this direction
CLOSED = 9  # both: the reader of the stream has gone, send no more; u64 number of bytes that were read
BROKEN = 10  # both: the stream failed; text
CREDIT = 11  # both: u32 more bytes may be sent
SIGNAL = 12  # client: u8 number of a signal for the program's process group
WINDOW = 13  # client: u16 rows, u16 columns of a terminal
EXIT = 14  # worker: the job is over; `Exit`
PING = 15  # both: no body; answered at once
PONG = 16  # both: no body
RELEASE = 17  # client: no further job will come on this connection; no body
PROGRAM = 18  # worker: send the program for this platform; text
TAKE_BACK = 19  # client: do not begin the job that was given in advance; no body
RETURNED = 20  # worker: the job that was given in advance does not begin; text
WANTED = 21  # worker: another client waits for the slot of this job; no body
TYPES = range(CONFIRM, WANTED + 1)
TYPES_OF_THE_FIRST_REVISION = range(CONFIRM, PROGRAM + 1)
WITHOUT_BODY = (CONFIRM, CANCEL, PING, PONG, RELEASE, TAKE_BACK, WANTED)
OF_THE_CONNECTION = (CANCEL, PING, PONG, RELEASE)  # they belong to no job
OF_A_STREAM = (DATA, END, CLOSED, BROKEN, CREDIT)

FIRST_FILE = 256  # (protocol) stream numbers below are descriptors, from here on files
LARGEST_SIGNAL = 64  # (protocol) signals are numbered as on Linux
LARGEST_WINDOW = 4096  # (protocol) rows or columns of a terminal; a greater number means this one
LARGEST_DEATH = 127  # (protocol) so that 128 + the signal's number is an exit status

ONCE = 1  # the flag of STARTED that says: never repeat this job

EXITED = 0
SIGNALLED = 1
LIMITED = 2  # ended by a limit that `message` names

STREAM_FRONT = 6  # bytes of a stream in GO before its name
EXIT_HEAD = 28  # bytes of an EXIT before its endings, with their number
ENDING_SIZE = 12  # bytes of one of them

ENDED = 1  # how a stream ended
READER_CLOSED = 2
STREAM_BROKEN = 3

PERMANENT = 1  # kinds of refusal: no worker of this application would do it
HERE = 2  # this worker cannot; another may


def head(kind: int, stream: int = 0, job: int = 0) -> bytes:
    return bytes((kind, job, stream >> 8, stream & 0xFF))


def frame(kind: int, body: Bytes = b"", stream: int = 0, job: int = 0) -> bytes:
    return head(kind, stream, job) + bytes(body)


def parse(data: memoryview, *, numbered: bool = False) -> tuple[int, int, memoryview]:
    """Type, stream number and body (a view of `data`).  `numbered`: byte 1 is the number of a job, else it is 0."""
    if len(data) < FRAME_HEADER or data[0] not in (TYPES if numbered else TYPES_OF_THE_FIRST_REVISION):
        raise ProtocolError("frame has an unknown type")
    if data[1] and (not numbered or data[0] in OF_THE_CONNECTION):
        raise ProtocolError("frame has an unknown type")
    stream = data[2] << 8 | data[3]
    if stream >= MAXIMUM_STREAMS or (stream and data[0] not in OF_A_STREAM):
        raise ProtocolError("frame has an impossible stream number")
    if data[0] in WITHOUT_BODY and len(data) > FRAME_HEADER:
        raise ProtocolError("frame has a body but its type has none")
    return data[0], stream, data[FRAME_HEADER:]


def text_body(text: str) -> bytes:
    """A text of at most MAXIMUM_TEXT bytes, cut if it is longer."""
    return text.replace("\0", "?").encode("utf-8", "replace")[:MAXIMUM_TEXT].decode("utf-8", "ignore").encode()


def parse_text(body: Bytes) -> str:
    if len(body) > MAXIMUM_TEXT:
        raise ProtocolError("text is too long")
    try:
        text = bytes(body).decode("utf-8")
    except UnicodeDecodeError:
        raise ProtocolError("text is not UTF-8") from None
    if "\0" in text:
        raise ProtocolError("text contains a NUL")
    return text


def parse_number(body: Bytes, size: int) -> int:
    if len(body) != size:
        raise ProtocolError("number has the wrong size")
    return int.from_bytes(body, "big")


def window_body(rows: int, columns: int) -> bytes:
    """The body of WINDOW; as a number of 4 bytes it is the `number` of the event."""
    return rows.to_bytes(2, "big") + columns.to_bytes(2, "big")


def parse_window(number: int) -> tuple[int, int]:
    """Returns rows and columns of a WINDOW; at most LARGEST_WINDOW, because programs keep a screen of that size."""
    return min(number >> 16, LARGEST_WINDOW), min(number & 0xFFFF, LARGEST_WINDOW)


class Stream:
    """One descriptor of the program, or one of its files.  `same_as`: the lower one that it duplicates, or itself."""

    __slots__ = ("directions", "kind", "name", "number", "same_as")

    def __init__(
        self, number: int, directions: int, kind: int = PIPE, same_as: int | None = None, name: str = ""
    ) -> None:
        self.number = number
        self.directions = directions
        self.kind = kind
        self.same_as = number if same_as is None else same_as
        self.name = name

    def encode(self) -> bytes:
        writer = Writer().u16(self.number).u8(self.directions).u8(self.kind).u16(self.same_as)
        return bytes(writer.text(self.name))


class CommonStream(Stream):
    """A stream that many jobs have, so that its bytes are made only once; it must not be changed."""

    __slots__ = ("_encoded",)

    def __init__(self, number: int, directions: int) -> None:
        super().__init__(number, directions)
        self._encoded = super().encode()

    def encode(self) -> bytes:
        return self._encoded


class Go:
    """A job.  `options`: the names and values of `options`; a worker refuses a name that it does not know."""

    __slots__ = ("arguments", "attempt", "environment", "job_id", "options", "streams")

    def __init__(
        self,
        *,
        job_id: bytes,
        attempt: int,
        streams: list[Stream],
        arguments: list[bytes] | None = None,
        environment: dict[str, bytes] | None = None,
        options: dict[str, str] | None = None,
    ) -> None:
        self.job_id = job_id
        self.attempt = attempt
        self.streams = streams
        self.arguments = arguments or []
        self.environment = environment or {}
        self.options = options or {}

    def encode(self) -> bytes:
        """The body; `ValueError` if it is longer than MAXIMUM_GO."""
        writer = Writer().raw(self.job_id).u16(self.attempt).u16(len(self.streams))
        for stream in self.streams:
            writer.raw(stream.encode())
        writer.u16(len(self.arguments))
        for argument in self.arguments:
            writer.u32(len(argument)).raw(argument)
        writer.u16(len(self.environment))
        for name, value in self.environment.items():
            writer.text(name).u32(len(value)).raw(value)
        body = bytes(writer.mapping(self.options))
        if len(body) > MAXIMUM_GO:
            raise ValueError(f"arguments, variables and file names are {len(body)} bytes and at most {MAXIMUM_GO} fit")
        return body

    @classmethod
    def decode(cls, body: Bytes) -> Go:
        if len(body) > MAXIMUM_GO:
            raise ProtocolError("GO is too long")
        reader = Reader(body)
        job_id, attempt = reader.take(IDENTITY_SIZE), reader.u16()
        streams = [_stream(reader) for _ in range(_bounded(reader.u16(), MAXIMUM_STREAMS))]
        arguments = [_without_nul(reader.take(reader.u32())) for _ in range(reader.u16())]
        environment = [(reader.text(), _without_nul(reader.take(reader.u32()))) for _ in range(reader.u16())]
        options = reader.mapping()
        reader.finish()
        _check_streams(streams)
        names = {name for name, _ in environment}
        if len(names) < len(environment) or any(not name or "=" in name for name in names):
            raise ProtocolError("environment has a name twice, or an invalid one")
        return cls(
            job_id=job_id,
            attempt=attempt,
            streams=streams,
            arguments=arguments,
            environment=dict(environment),
            options=options,
        )


class Ending:
    """The ending of one direction of one stream, and the number of bytes that count."""

    __slots__ = ("count", "direction", "ending", "number")

    def __init__(self, number: int, direction: int, ending: int, count: int) -> None:
        self.number = number
        self.direction = direction
        self.ending = ending
        self.count = count


class Exit:
    """`status`: exit status, or signal number; times in microseconds, `memory` (largest resident set) in KiB."""

    __slots__ = ("endings", "kind", "memory", "message", "status", "system_time", "user_time")

    def __init__(
        self,
        *,
        kind: int,
        status: int,
        endings: list[Ending],
        user_time: int = 0,
        system_time: int = 0,
        memory: int = 0,
        message: str = "",
    ) -> None:
        self.kind = kind
        self.status = status
        self.endings = endings
        self.user_time = user_time
        self.system_time = system_time
        self.memory = memory
        self.message = message

    @property
    def exit_status(self) -> int:
        """As a shell would tell it: death by a signal is 128 + its number."""
        return self.status if self.kind == EXITED else 128 + self.status

    def encode(self) -> bytes:
        endings, message = self.endings, text_body(self.message)
        numbers = (self.user_time, self.system_time, self.memory)  # without a `Writer`, see `decode`
        parts = [bytes((self.kind, self.status)), *(number.to_bytes(8, "big") for number in numbers)]
        parts.append(len(endings).to_bytes(2, "big"))
        for one in endings:
            parts.append(bytes((one.number >> 8, one.number & 0xFF, one.direction, one.ending)))
            parts.append(one.count.to_bytes(8, "big"))
        return b"".join((*parts, len(message).to_bytes(2, "big"), message))

    @classmethod
    def decode(cls, body: Bytes) -> Exit:
        reader = Reader(body)  # which costs much for each small number, and a job has many of them
        head = reader.take(EXIT_HEAD)
        kind, status = head[0], head[1]
        number = int.from_bytes
        user_time, system_time = number(head[2:10], "big"), number(head[10:18], "big")
        memory = number(head[18:26], "big")
        endings = _endings(reader.take(ENDING_SIZE * _bounded(head[26] << 8 | head[27], 2 * MAXIMUM_STREAMS)))
        message = parse_text(said) if (said := reader.long_bytes()) else ""
        reader.finish()
        if kind not in (EXITED, SIGNALLED, LIMITED):
            raise ProtocolError("exit frame is of an unknown kind")
        if kind != EXITED and not 0 < status <= LARGEST_DEATH:
            raise ProtocolError("exit frame names an impossible signal")
        return cls(
            kind=kind,
            status=status,
            endings=endings,
            user_time=user_time,
            system_time=system_time,
            memory=memory,
            message=message,
        )


class Refusal:
    """`kind`: PERMANENT or HERE; `reason`: words for the user."""

    __slots__ = ("kind", "reason")

    def __init__(self, kind: int, reason: str) -> None:
        self.kind = kind
        self.reason = reason

    def encode(self) -> bytes:
        return bytes([self.kind]) + text_body(self.reason)

    @classmethod
    def decode(cls, body: Bytes) -> Refusal:
        if not len(body) or body[0] not in (PERMANENT, HERE):
            raise ProtocolError("refusal is of an unknown kind")
        return cls(body[0], parse_text(body[1:]))


def _endings(data: bytes) -> list[Ending]:
    endings = []
    for at in range(0, len(data), ENDING_SIZE):
        ending = data[at + 3]
        if ending not in (ENDED, READER_CLOSED, STREAM_BROKEN):
            raise ProtocolError("exit frame is of an unknown kind")
        count = int.from_bytes(data[at + 4 : at + ENDING_SIZE], "big")
        endings.append(Ending(data[at] << 8 | data[at + 1], data[at + 2], ending, count))
    return endings


def _stream(reader: Reader) -> Stream:
    front = reader.take(STREAM_FRONT)
    name = reader.text()
    return Stream(front[0] << 8 | front[1], front[2], front[3], front[4] << 8 | front[5], name)


def _bounded(count: int, largest: int) -> int:
    if count > largest:
        raise ProtocolError("list is longer than it may be")
    return count


def _without_nul(data: bytes) -> bytes:
    if b"\0" in data:
        raise ProtocolError("argument contains a NUL")
    return data


def _check_streams(streams: list[Stream]) -> None:
    """Ascending numbers, known directions and kinds, duplicates only of a descriptor of the same shape before them."""
    seen: dict[int, Stream] = {}
    previous = -1
    for stream in streams:
        if not previous < stream.number < MAXIMUM_STREAMS or stream.directions not in (READS, WRITES, READS | WRITES):
            raise ProtocolError("list of streams is not in order")
        if stream.kind not in (PIPE, SOCKET, FILE) or (stream.kind == FILE) != (stream.number >= FIRST_FILE):
            raise ProtocolError("stream is of an unknown kind")
        if (stream.kind == PIPE and stream.directions == READS | WRITES) or (stream.kind == FILE) != bool(stream.name):
            raise ProtocolError("stream has a shape that its kind cannot have")
        if stream.kind == FILE and (stream.same_as != stream.number or not _stays_inside(stream.name)):
            raise ProtocolError("file has a name that leads out of the job's directory, or is a duplicate")
        previous = stream.number
        seen[stream.number] = stream
        original = seen.get(stream.same_as)
        if original is None or original.same_as != original.number:
            raise ProtocolError("stream is a duplicate of one that is not there")
        if original.directions != stream.directions or original.kind != stream.kind:
            raise ProtocolError("stream is a duplicate of one of another shape")


def _stays_inside(name: str) -> bool:
    """Returns True if a file's name is a plain relative path.  The worker checks that no link leads out."""
    return not any(part in ("", ".", "..") for part in name.split("/"))
