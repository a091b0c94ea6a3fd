"""The longest, the first and the last that a frame may say, and one more."""

from __future__ import annotations

import pytest

from cexec.errors import ProtocolError
from cexec.protocol.base.limits import FRAME_HEADER, MAXIMUM_GO, MAXIMUM_STREAMS, MAXIMUM_TEXT
from cexec.protocol.connection import frames
from cexec.protocol.connection.frames import FIRST_FILE, Ending, Exit, Go, Refusal, Stream
from cexec.protocol.connection.options import FILE, READS, SOCKET, WRITES
from tests.protocol.wires import job


def exited(*endings: Ending, kind: int = frames.EXITED, status: int = 0) -> bytes:
    return Exit(kind=kind, status=status, endings=list(endings)).encode()


def refused(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        Exit.decode(body)


@pytest.mark.parametrize("count", [0, 1, 1 << 56, (1 << 64) - 1])
def test_an_ending_counts_bytes_with_all_of_its_own(count: int) -> None:
    sent = exited(Ending(1, WRITES, frames.ENDED, count))
    (found,) = Exit.decode(sent).endings
    assert (found.number, found.direction, found.ending, found.count) == (1, WRITES, frames.ENDED, count)


# Texts and numbers


def test_a_text_may_have_so_many_bytes_and_no_more() -> None:
    assert frames.parse_text(b"t" * MAXIMUM_TEXT) == "t" * MAXIMUM_TEXT
    with pytest.raises(ProtocolError, match="too long"):
        frames.parse_text(b"t" * (MAXIMUM_TEXT + 1))


def test_a_text_is_cut_between_characters_and_has_no_nul() -> None:
    assert frames.text_body("ä" * MAXIMUM_TEXT) == ("ä" * (MAXIMUM_TEXT // 2)).encode()
    assert frames.text_body("x" + "ä" * MAXIMUM_TEXT) == ("x" + "ä" * (MAXIMUM_TEXT // 2 - 1)).encode()
    assert frames.text_body("a\0b?") == b"a?b?"
    assert frames.text_body("\udc80") == b"?"


def test_a_number_has_its_size() -> None:
    assert frames.parse_number(b"\1\2\3\4", 4) == 0x01020304
    for body in (b"", b"\1\2\3", b"\1\2\3\4\5"):
        with pytest.raises(ProtocolError, match="wrong size"):
            frames.parse_number(body, 4)


def test_a_refusal_says_of_what_kind_it_is() -> None:
    for kind in (frames.PERMANENT, frames.HERE):
        read = Refusal.decode(Refusal(kind, "why").encode())
        assert (read.kind, read.reason) == (kind, "why")
    for body in (b"", b"\0why", b"\3why"):
        with pytest.raises(ProtocolError, match="unknown kind"):
            Refusal.decode(body)


# Heads


@pytest.mark.parametrize("stream", [0, 1, 0xFF, 0x100, MAXIMUM_STREAMS - 1])
def test_a_head_is_read_as_it_was_written(stream: int) -> None:
    assert frames.head(frames.DATA, stream) == bytes([frames.DATA, 0, stream >> 8, stream & 0xFF])
    assert frames.head(frames.PING) == bytes([frames.PING, 0, 0, 0])
    kind, read, body = frames.parse(memoryview(frames.frame(frames.DATA, b"x", stream)))
    assert (kind, read, bytes(body)) == (frames.DATA, stream, b"x")


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\7", b"\7\0\0", bytes([frames.DATA, 1, 0, 0]), bytes([0, 0, 0, 0]), bytes([frames.PROGRAM + 1, 0, 0, 0]),
        frames.head(frames.DATA, MAXIMUM_STREAMS), frames.head(frames.PING, 1), frames.head(frames.PING) + b"x",
    ],
)  # fmt: skip
def test_a_head_that_cannot_be_is_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        frames.parse(memoryview(data))


# GO


def test_a_job_may_be_so_long_and_no_longer() -> None:
    empty = len(job(arguments=[b""]).encode())
    longest = job(arguments=[b"x" * (MAXIMUM_GO - empty)]).encode()
    assert len(longest) == MAXIMUM_GO and Go.decode(longest).encode() == longest
    with pytest.raises(ValueError, match="at most"):
        job(arguments=[b"x" * (MAXIMUM_GO - empty + 1)]).encode()
    with pytest.raises(ProtocolError, match="too long"):
        Go.decode(longest + b"\0")


def test_a_job_may_have_so_many_streams() -> None:
    full = [Stream(number, READS, FILE, name=f"f{number}") for number in range(FIRST_FILE, MAXIMUM_STREAMS)]
    full = [*[Stream(number, READS) for number in range(FIRST_FILE)], *full]
    assert len(Go.decode(job(streams=full).encode()).streams) == MAXIMUM_STREAMS
    with pytest.raises(ProtocolError):
        Go.decode(job(streams=[*full, Stream(MAXIMUM_STREAMS, READS, FILE, name="x")]).encode())


@pytest.mark.parametrize("names", [["A", "B="], ["A=1", "B"], ["", "B"], ["A", ""]])
def test_one_bad_name_among_good_ones_is_refused(names: list[str]) -> None:
    with pytest.raises(ProtocolError, match="environment"):
        Go.decode(job(environment=dict.fromkeys(names, b"")).encode())


def test_a_name_twice_is_refused() -> None:
    twice = job(environment={"A": b"", "B": b""}).encode().replace(b"\1B", b"\1A")
    with pytest.raises(ProtocolError, match="twice"):
        Go.decode(twice)


@pytest.mark.parametrize(
    "stream",
    [
        Stream(FIRST_FILE - 1, READS, FILE, name="a"), Stream(FIRST_FILE, READS), Stream(FIRST_FILE, READS, FILE),
        Stream(0, READS, name="a"), Stream(0, 0), Stream(0, 4), Stream(0, READS | WRITES), Stream(0, READS, 3),
        Stream(FIRST_FILE, READS, FILE, same_as=0, name="a"), Stream(1, READS, same_as=0),
        Stream(FIRST_FILE, READS, FILE, name="a//b"), Stream(FIRST_FILE, READS, FILE, name="./a"),
        Stream(FIRST_FILE, READS, FILE, name="a/.."), Stream(FIRST_FILE, READS, FILE, name="/a"),
    ],
)  # fmt: skip
def test_a_stream_of_another_shape_is_refused(stream: Stream) -> None:
    with pytest.raises(ProtocolError):
        Go.decode(job(streams=[stream]).encode())


@pytest.mark.parametrize(
    "streams",
    [
        [Stream(0, READS), Stream(1, WRITES, same_as=0)],
        [Stream(0, READS), Stream(1, READS, SOCKET, same_as=0)],
        [Stream(1, WRITES), Stream(1, WRITES)],
        [Stream(1, WRITES), Stream(0, WRITES)],
        [Stream(0, READS), Stream(1, READS, same_as=0), Stream(2, READS, same_as=1)],
        [Stream(0, READS), Stream(1, READS, same_as=2), Stream(2, READS)],
    ],
)
def test_streams_that_do_not_fit_together_are_refused(streams: list[Stream]) -> None:
    with pytest.raises(ProtocolError):
        Go.decode(job(streams=streams).encode())


@pytest.mark.parametrize("directions", [READS, WRITES, READS | WRITES])
def test_a_socket_may_be_used_both_ways(directions: int) -> None:
    (read,) = Go.decode(job(streams=[Stream(3, directions, SOCKET)]).encode()).streams
    assert (read.number, read.directions, read.kind, read.same_as) == (3, directions, SOCKET, 3)


def test_what_a_job_does_not_say_is_nothing() -> None:
    made = Go(job_id=bytes(16), attempt=1, streams=[])
    assert (made.arguments, made.environment, made.options) == ([], {}, {})


# EXIT


def test_an_exit_may_name_both_directions_of_every_stream() -> None:
    endings = [Ending(number % MAXIMUM_STREAMS, 1 + number // MAXIMUM_STREAMS, frames.ENDED, 0)
               for number in range(2 * MAXIMUM_STREAMS)]  # fmt: skip
    assert len(Exit.decode(exited(*endings)).endings) == 2 * MAXIMUM_STREAMS
    refused(exited(*endings, endings[0]))


@pytest.mark.parametrize("ending", [frames.ENDED, frames.READER_CLOSED, frames.STREAM_BROKEN])
def test_each_ending_is_read_and_one_unknown_among_them_is_refused(ending: int) -> None:
    good = Ending(1, WRITES, ending, 5)
    assert Exit.decode(exited(good)).endings[0].ending == ending
    for unknown in (0, 4):
        refused(exited(good, Ending(2, WRITES, unknown, 0)))


@pytest.mark.parametrize("kind", [frames.SIGNALLED, frames.LIMITED])
def test_a_death_has_a_signal_and_an_exit_any_status(kind: int) -> None:
    for status in (0, 1, 127, 255):
        assert Exit.decode(exited(status=status)).exit_status == status
    for status in (1, frames.LARGEST_DEATH):
        assert Exit.decode(exited(kind=kind, status=status)).exit_status == 128 + status
    for status in (0, frames.LARGEST_DEATH + 1):
        refused(exited(kind=kind, status=status))
    refused(exited(kind=3, status=1))


def test_what_an_exit_does_not_say_is_nothing() -> None:
    read = Exit.decode(exited())
    assert (read.user_time, read.system_time, read.memory, read.message) == (0, 0, 0, "")
    assert len(frames.frame(frames.EXIT, exited())) == FRAME_HEADER + 30
