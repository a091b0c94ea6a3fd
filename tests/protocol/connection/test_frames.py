"""What is inside a record, docs/protocol.md section 4.2."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cexec.errors import ProtocolError
from cexec.protocol.base.limits import MAXIMUM_GO, MAXIMUM_STREAMS, MAXIMUM_TEXT
from cexec.protocol.connection import frames
from cexec.protocol.connection.frames import Ending, Exit, Go, Refusal, Stream
from cexec.protocol.connection.options import FILE, PIPE, READS, SOCKET, WRITES
from tests.protocol.wires import JOB_ID, cut_anywhere, hostile_bytes, job, mutations, texts

BOTH = READS | WRITES

FULL_GO = Go(
    job_id=JOB_ID,
    attempt=7,
    streams=[
        Stream(0, READS),
        Stream(1, WRITES),
        Stream(2, WRITES, same_as=1),
        Stream(5, BOTH, SOCKET),
        Stream(256, READS, FILE, name="data/in.wav"),
        Stream(257, WRITES, FILE, name="out.ogg"),
    ],
    arguments=[b"-v", b"", b"\xff not UTF-8"],
    environment={"B": b"2", "A": b"\xff=1"},
    options={"one": "1", "two": ""},
)
FULL_EXIT = Exit(
    kind=frames.SIGNALLED,
    status=9,
    endings=[
        Ending(1, WRITES, frames.ENDED, 1 << 40),
        Ending(0, READS, frames.READER_CLOSED, 5),
        Ending(2, WRITES, frames.STREAM_BROKEN, 0),
        Ending(257, WRITES, frames.ENDED, 7),
    ],
    user_time=1_000_001,
    system_time=2,
    memory=65_536,
    message="größe",
)
FULL_REFUSAL = Refusal(frames.HERE, "cannot start x: no such file")
BODIES = [
    (FULL_GO.encode(), Go.decode),
    (job().encode(), Go.decode),
    (FULL_EXIT.encode(), Exit.decode),
    (Exit(kind=frames.EXITED, status=255, endings=[]).encode(), Exit.decode),
]
each_body = pytest.mark.parametrize(("body", "decode"), BODIES, ids=["go", "small go", "exit", "small exit"])
Decode = Callable[[bytes], "Go | Exit"]


def test_an_exit_may_have_more_endings_than_a_byte_counts() -> None:
    endings = [Ending(number, WRITES, frames.ENDED, number) for number in range(300)]
    found = Exit.decode(Exit(kind=frames.EXITED, status=0, endings=endings).encode()).endings
    assert [(one.number, one.direction, one.count) for one in found] == [(n, WRITES, n) for n in range(300)]


def go_with(*streams: Stream) -> bytes:
    return job(streams=list(streams)).encode()


# Heads


FORMS = [(kind, False) for kind in frames.TYPES_OF_THE_FIRST_REVISION] + [(kind, True) for kind in frames.TYPES]


@pytest.mark.parametrize(("kind", "numbered"), FORMS)
def test_a_frame_reads_back(kind: int, numbered: bool) -> None:
    stream = 0x0123 if kind in frames.OF_A_STREAM else 0
    number = 200 if numbered and kind not in frames.OF_THE_CONNECTION else 0
    body = b"" if kind in frames.WITHOUT_BODY else b"body"
    data = frames.frame(kind, body, stream, number)
    assert data == bytes([kind, number, stream >> 8, stream & 255]) + body
    read_kind, read_stream, read_body = frames.parse(memoryview(data), numbered=numbered)
    assert (read_kind, read_stream, bytes(read_body)) == (kind, stream, body)


@pytest.mark.parametrize("size", range(4))
def test_a_frame_shorter_than_its_head_is_refused(size: int) -> None:
    with pytest.raises(ProtocolError):
        frames.parse(memoryview(frames.frame(frames.PING)[:size]))


@pytest.mark.parametrize(
    ("kind", "numbered"),
    [(0, False), (0, True), (19, False), (20, False), (21, False), (22, True), (255, False), (255, True)],
)
def test_an_unknown_type_is_refused(kind: int, numbered: bool) -> None:
    with pytest.raises(ProtocolError, match="unknown type"):
        frames.parse(memoryview(bytes([kind, 0, 0, 0])), numbered=numbered)


@pytest.mark.parametrize("kind", frames.TYPES)
def test_only_a_frame_of_a_job_has_a_number_and_none_in_the_first_revision(kind: int) -> None:
    data = memoryview(bytes([kind, 1, 0, 0]))
    with pytest.raises(ProtocolError):
        frames.parse(data)
    if kind in frames.OF_THE_CONNECTION:
        with pytest.raises(ProtocolError):
            frames.parse(data, numbered=True)
    else:
        assert frames.parse(data, numbered=True)[0] == kind


@pytest.mark.parametrize("stream", [MAXIMUM_STREAMS, 0xFFFF])
def test_a_stream_number_has_a_bound(stream: int) -> None:
    assert frames.parse(memoryview(frames.frame(frames.DATA, b"x", MAXIMUM_STREAMS - 1)))[1] == 1023
    with pytest.raises(ProtocolError, match="stream number"):
        frames.parse(memoryview(frames.frame(frames.DATA, b"x", stream)))


@pytest.mark.parametrize("kind", [kind for kind in frames.TYPES if kind not in frames.OF_A_STREAM])
def test_a_frame_of_no_stream_has_no_stream_number(kind: int) -> None:
    with pytest.raises(ProtocolError, match="stream number"):
        frames.parse(memoryview(frames.frame(kind, b"", 1)), numbered=True)


def test_these_frames_have_no_body() -> None:
    without = {frames.CONFIRM, frames.CANCEL, frames.PING, frames.PONG, frames.RELEASE, frames.TAKE_BACK, frames.WANTED}
    assert set(frames.WITHOUT_BODY) == without


def test_a_stream_that_many_jobs_have_is_written_like_any_other() -> None:
    common = frames.CommonStream(1, WRITES)
    assert common.encode() == frames.Stream(1, WRITES).encode()


@pytest.mark.parametrize("kind", frames.WITHOUT_BODY)
def test_a_frame_without_a_body_has_none(kind: int) -> None:
    with pytest.raises(ProtocolError, match="body"):
        frames.parse(memoryview(frames.frame(kind, b"x")), numbered=True)


@given(hostile_bytes)
def test_hostile_frames_are_protocol_errors(data: bytes) -> None:
    try:
        kind, stream, body = frames.parse(memoryview(data))
    except ProtocolError:
        return
    assert frames.frame(kind, body, stream) == data


# Texts and numbers


@given(st.text())
def test_any_text_is_made_fit_to_be_sent(text: str) -> None:
    body = frames.text_body(text)
    assert len(body) <= MAXIMUM_TEXT
    assert "\0" not in frames.parse_text(body)


def test_a_long_text_is_cut_between_characters() -> None:
    body = frames.text_body("ä" * 600 + "end")
    assert body == ("ä" * 512).encode()
    assert frames.text_body("a" + "ä" * 600) == ("a" + "ä" * 511).encode()


@pytest.mark.parametrize("body", [b"\xff", b"a\0b", b"x" * (MAXIMUM_TEXT + 1)])
def test_what_is_no_text_is_refused(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        frames.parse_text(body)


@pytest.mark.parametrize("size", [0, 7, 9])
def test_a_number_has_one_size(size: int) -> None:
    assert frames.parse_number(b"\0\0\0\0\0\0\1\2", 8) == 258
    with pytest.raises(ProtocolError, match="wrong size"):
        frames.parse_number(bytes(size), 8)


# Bodies


@each_body
def test_a_body_reads_back(body: bytes, decode: Decode) -> None:
    assert decode(body).encode() == body


@each_body
def test_a_body_cut_anywhere_or_with_a_trailer_is_refused(body: bytes, decode: Decode) -> None:
    for bad in [*cut_anywhere(body), body + b"\0"]:
        with pytest.raises(ProtocolError):
            decode(bad)


@each_body
@given(data=st.data())
def test_hostile_bodies_are_protocol_errors(body: bytes, decode: Decode, data: st.DataObject) -> None:
    hostile = data.draw(hostile_bytes | mutations(body))
    try:
        decoded = decode(hostile)
    except ProtocolError:
        return
    assert decoded.encode() == hostile


def test_go_says_what_was_put_in() -> None:
    go = Go.decode(FULL_GO.encode())
    assert (go.job_id, go.attempt, go.arguments) == (JOB_ID, 7, [b"-v", b"", b"\xff not UTF-8"])
    assert list(go.environment.items()) == [("B", b"2"), ("A", b"\xff=1")]
    assert go.options == {"one": "1", "two": ""}
    assert [(s.number, s.directions, s.kind, s.same_as, s.name) for s in go.streams][2:5] == [
        (2, WRITES, PIPE, 1, ""), (5, BOTH, SOCKET, 5, ""), (256, READS, FILE, 256, "data/in.wav"),
    ]  # fmt: skip


def test_the_longest_go_and_one_byte_more() -> None:
    room = MAXIMUM_GO - len(job(arguments=[b""]).encode())
    longest = job(arguments=[b"x" * room]).encode()
    assert len(longest) == MAXIMUM_GO and Go.decode(longest).arguments == [b"x" * room]
    with pytest.raises(ValueError, match="at most 196608 fit"):
        job(arguments=[b"x" * (room + 1)]).encode()
    with pytest.raises(ProtocolError, match="too long"):
        Go.decode(longest + b"\0")


@pytest.mark.parametrize("offset", [18, 44, 46])  # how many streams, arguments, variables
def test_more_than_there_is_room_for_is_refused(offset: int) -> None:
    body = job().encode()
    with pytest.raises(ProtocolError):
        Go.decode(body[:offset] + b"\xff\xff" + body[offset + 2 :])


@pytest.mark.parametrize("argument", [b"\0", b"a\0", b"\0b"])
def test_nul_in_an_argument_or_a_variable_is_refused(argument: bytes) -> None:
    for go in (job(arguments=[argument]), job(environment={"A": argument})):
        with pytest.raises(ProtocolError, match="NUL"):
            Go.decode(go.encode())


@pytest.mark.parametrize("name", ["", "A=B", "="])
def test_a_variable_has_a_name(name: str) -> None:
    with pytest.raises(ProtocolError, match="name"):
        Go.decode(job(environment={name: b"1"}).encode())


def test_a_variable_that_is_given_twice_is_refused() -> None:
    body = job(environment={"A": b"1", "B": b"2"}).encode()
    with pytest.raises(ProtocolError, match="twice"):
        Go.decode(body.replace(b"\1B", b"\1A"))


@pytest.mark.parametrize(
    "streams",
    [
        [Stream(1, WRITES), Stream(0, READS)],  # not ascending
        [Stream(0, READS), Stream(0, READS)],
        [Stream(MAXIMUM_STREAMS, READS, FILE, name="x")],
        [Stream(0, 0)],
        [Stream(0, 4)],
        [Stream(0, READS, 3)],
        [Stream(0, BOTH, PIPE)],  # a pipe goes one way
        [Stream(256, READS, PIPE)],  # a descriptor with a file's number
        [Stream(3, READS, FILE, name="x")],
        [Stream(0, READS, name="x")],
        [Stream(256, READS, FILE)],  # a file without a name
        [Stream(2, WRITES, same_as=1)],  # a duplicate of nothing
        [Stream(1, WRITES, same_as=2), Stream(2, WRITES)],  # of a later one
        [Stream(0, READS), Stream(1, WRITES, same_as=0)],  # of another shape
        [Stream(0, READS), Stream(1, READS, SOCKET, same_as=0)],
        [Stream(1, WRITES), Stream(2, WRITES, same_as=1), Stream(3, WRITES, same_as=2)],  # of a duplicate
        [Stream(256, READS, FILE, name="x"), Stream(257, READS, FILE, same_as=256, name="x")],
    ],
)
def test_an_impossible_list_of_streams_is_refused(streams: list[Stream]) -> None:
    with pytest.raises(ProtocolError):
        Go.decode(go_with(*streams))


@pytest.mark.parametrize("name", ["/etc/passwd", "..", "../x", "a/../b", "a/..", ".", "./a", "a//b", "a/", "/"])
def test_a_files_name_stays_in_the_jobs_directory(name: str) -> None:
    with pytest.raises(ProtocolError, match="leads out"):
        Go.decode(go_with(Stream(256, READS, FILE, name=name)))


@pytest.mark.parametrize("name", ["a", ".a", "..a", "a..", "a b", "dir/file", "größe", "a\nb"])
def test_plain_names_of_files(name: str) -> None:
    (stream,) = Go.decode(go_with(Stream(256, READS, FILE, name=name))).streams
    assert stream.name == name


def test_as_many_streams_as_there_are_numbers() -> None:
    descriptors = [Stream(number, READS) for number in range(256)]
    files = [Stream(number, WRITES, FILE, name="f") for number in range(256, MAXIMUM_STREAMS)]
    assert len(Go.decode(go_with(*descriptors, *files)).streams) == MAXIMUM_STREAMS


# Exits and refusals


@pytest.mark.parametrize(
    ("kind", "status", "told"),
    [(frames.EXITED, 0, 0), (frames.EXITED, 255, 255), (frames.SIGNALLED, 9, 137), (frames.LIMITED, 24, 152)],
)
def test_the_exit_status_is_what_a_shell_would_tell(kind: int, status: int, told: int) -> None:
    assert Exit.decode(Exit(kind=kind, status=status, endings=[]).encode()).exit_status == told


@pytest.mark.parametrize("kind", [frames.SIGNALLED, frames.LIMITED])
@pytest.mark.parametrize("status", [0, 128, 255])
def test_death_by_an_impossible_signal_is_refused(kind: int, status: int) -> None:
    """128 + 128 is 256, which a parent process sees as 0, a success."""
    with pytest.raises(ProtocolError, match="impossible signal"):
        Exit.decode(Exit(kind=kind, status=status, endings=[]).encode())


@pytest.mark.parametrize("kind", [3, 255])
def test_an_unknown_kind_of_exit_is_refused(kind: int) -> None:
    with pytest.raises(ProtocolError, match="unknown kind"):
        Exit.decode(Exit(kind=kind, status=1, endings=[]).encode())


@pytest.mark.parametrize("ending", [0, 4])
def test_an_unknown_ending_is_refused(ending: int) -> None:
    with pytest.raises(ProtocolError, match="unknown kind"):
        Exit.decode(Exit(kind=frames.EXITED, status=1, endings=[Ending(1, WRITES, ending, 0)]).encode())


def test_the_number_of_endings_has_a_bound() -> None:
    endings = [Ending(1, WRITES, frames.ENDED, 0)] * (2 * MAXIMUM_STREAMS + 1)
    with pytest.raises(ProtocolError, match="longer than it may be"):
        Exit.decode(Exit(kind=frames.EXITED, status=0, endings=endings).encode())


@pytest.mark.parametrize("kind", [frames.PERMANENT, frames.HERE])
@given(reason=texts)
def test_a_refusal_reads_back(kind: int, reason: str) -> None:
    refusal = Refusal.decode(Refusal(kind, reason).encode())
    assert (refusal.kind, refusal.reason) == (kind, reason)


@pytest.mark.parametrize("body", [b"", b"\0x", b"\3x", b"\1\xff", b"\1" + b"x" * (MAXIMUM_TEXT + 1)])
def test_what_is_no_refusal(body: bytes) -> None:
    assert Refusal.decode(FULL_REFUSAL.encode()).reason == FULL_REFUSAL.reason
    with pytest.raises(ProtocolError):
        Refusal.decode(body)
