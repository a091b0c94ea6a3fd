"""What a spool has read it gives again, as long as its budget and its job allow; held output appears when released."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cexec.client.attempt.inputs import Budget, SpoolSource
from cexec.system.io.fds import Sink, Source
from cexec.system.io.held_output import HeldSink
from cexec.system.io.opened_fds import open_sink

pytestmark = pytest.mark.usefixtures("process_end")


class Supply(Source):
    """Gives these pieces, one for each read (None: nothing now), then the end."""

    def __init__(self, *pieces: bytes | None) -> None:
        super().__init__(99, shared=True)
        self.pieces = list(pieces)

    def read_into(self, view: memoryview) -> int | None:
        if not self.pieces:
            return 0
        piece = self.pieces.pop(0)
        if piece is None:
            return None
        view[: len(piece)] = piece
        return len(piece)


def read(source: Source, size: int = 100) -> bytes | None:
    buffer = memoryview(bytearray(size))
    count = source.read_into(buffer)
    return None if count is None else bytes(buffer[:count])


def rest(source: Source, size: int = 100) -> bytes:
    """Everything up to the end."""
    result = b""
    while piece := read(source, size):
        result += piece
    return result


def test_what_was_read_is_given_again() -> None:
    source = SpoolSource(Supply(b"one", b"two", b"three"), Budget(100))
    assert (read(source), read(source)) == (b"one", b"two")
    source.rewind()
    assert rest(source) == b"onetwothree"
    source.rewind()
    assert rest(source, size=2) == b"onetwothree"


def test_a_source_that_has_nothing_now_is_not_at_its_end() -> None:
    source = SpoolSource(Supply(None, b"late"), Budget(100))
    assert read(source) is None
    assert rest(source) == b"late"


def test_what_arrives_after_a_rewind_follows_what_is_given_again() -> None:
    budget = Budget(6)
    source = SpoolSource(Supply(b"one", None, b"two", None, b"!"), budget)
    assert (read(source), read(source)) == (b"one", None)
    source.rewind()
    assert (read(source), read(source), read(source)) == (b"one", b"two", None)
    source.rewind()
    assert (read(source, size=4), read(source), budget.left) == (b"onet", b"wo", 0)
    assert (rest(source), source.lost) == (b"!", 7)  # one byte more than is kept


def test_the_descriptor_is_waited_for_only_while_nothing_is_remembered() -> None:
    source = SpoolSource(Supply(b"onetwo", b"three"), Budget(100))
    assert source.fileno() == 99
    read(source)
    source.close()
    assert source.fileno() == -1
    source.rewind()
    assert source.fileno() == -1
    read(source, size=3)
    assert source.fileno() == -1
    read(source)
    assert source.fileno() == 99
    rest(source)
    source.rewind()
    rest(source)
    assert source.fileno() == -1  # at the end for ever


def test_more_than_the_budget_is_read_and_given_but_not_again() -> None:
    budget = Budget(6)
    source = SpoolSource(Supply(b"123456", b"7"), budget)
    assert (read(source), source.lost, budget.left) == (b"123456", 0, 0)
    assert (read(source), source.lost, budget.left) == (b"7", 7, 6)
    with pytest.raises(ValueError, match="again"):
        source.rewind()


def test_all_inputs_share_the_budget() -> None:
    budget = Budget(6)
    one, other = SpoolSource(Supply(b"1234"), budget), SpoolSource(Supply(b"5678", b"9"), budget)
    assert (read(one), read(other), read(other)) == (b"1234", b"5678", b"9")
    assert (one.lost, other.lost) == (0, 5)
    one.rewind()
    assert rest(one) == b"1234"


def test_what_was_never_read_can_be_given_although_nothing_is_remembered() -> None:
    source = SpoolSource(Supply(b"input"), Budget(100))
    source.forget()
    source.rewind()
    assert rest(source) == b"input"
    assert source.lost == 5


def test_forgetting_gives_the_memory_back_and_remembers_no_more() -> None:
    budget = Budget(100)
    source = SpoolSource(Supply(b"12345", b"678"), budget)
    read(source)
    source.forget()
    assert (source.lost, budget.left) == (5, 100)
    assert read(source) == b"678"
    assert (source.lost, budget.left) == (8, 100)


def test_forgetting_while_input_is_given_again_loses_none_of_it() -> None:
    """Regression: the second attempt wrote to a pipe before it had all of its input again, and never got the rest."""
    budget = Budget(100)
    source = SpoolSource(Supply(b"12345678", b"9"), budget)
    read(source)
    source.rewind()
    assert read(source, size=3) == b"123"
    source.forget()
    assert (source.lost, budget.left) == (3, 95)
    assert rest(source) == b"456789"
    assert (source.lost, budget.left) == (9, 100)


@given(
    pieces=st.lists(st.binary(min_size=1, max_size=20), max_size=10),
    budget=st.integers(0, 200),
    steps=st.lists(st.one_of(st.integers(1, 30), st.sampled_from(["rewind", "forget"])), max_size=30),
)
def test_whatever_happens_an_attempt_gets_the_input_from_the_start_and_in_order(
    pieces: list[bytes], budget: int, steps: list[int | str]
) -> None:
    account = Budget(budget)
    source = SpoolSource(Supply(*pieces), account)
    whole, got = b"".join(pieces), b""
    for step in steps:
        if step == "forget":
            source.forget()
        elif step == "rewind":
            if not source.lost:
                source.rewind()
                got = b""
        else:
            got += read(source, max(20, int(step))) or b""
        assert whole.startswith(got)
        assert 0 <= account.left <= account.whole
    assert got + rest(source) == whole


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    for fd in (reading, writing):
        try:
            os.close(fd)
        except OSError:
            pass


def test_held_output_appears_when_it_is_released(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    os.set_blocking(reading, False)
    held = HeldSink(open_sink(writing))
    assert held.write(memoryview(b"one")) == 3
    held.write(memoryview(b"two"))
    held.close()
    with pytest.raises(BlockingIOError):
        os.read(reading, 10)
    held.release()
    assert os.read(reading, 10) == b"onetwo"


def test_held_output_that_is_dropped_never_appears(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    held = HeldSink(open_sink(writing))
    held.write(memoryview(b"one"))
    held.drop()
    os.close(writing)
    assert os.read(reading, 10) == b""


def test_more_than_a_pipe_holds_is_released_to_a_slow_reader(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    data = os.urandom(300_000)
    held = HeldSink(open_sink(writing))
    held.write(memoryview(data))
    got = bytearray()

    def take() -> None:
        while piece := os.read(reading, 1000):
            got.extend(piece)

    reader = threading.Thread(target=take)
    reader.start()
    held.release()
    os.close(writing)
    reader.join(20)
    assert got == data


def test_held_output_that_is_lost_is_an_error(pipe: tuple[int, int]) -> None:
    held = HeldSink(open_sink(pipe[1]))
    held.write(memoryview(b"one"))
    os.ftruncate(held.fileno(), 0)
    with pytest.raises(OSError, match="lost"):
        held.release()


def test_releasing_to_a_full_disk_raises() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    held = HeldSink(Sink(full))
    held.write(memoryview(b"one"))
    with pytest.raises(OSError, match="No space"):
        held.release()
    held.drop()
