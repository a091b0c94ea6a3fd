"""Streams whose caller writes and reads while the job runs: who waits for whom, and how much is kept."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from cexec.client.aio.job_streams import LIMIT, JobInput, JobOutput, StreamedLeaseJob
from cexec.protocol.connection.frames import CommonStream
from cexec.protocol.connection.options import READS, WRITES
from cexec.system.io.fds import FEW
from tests.waiting import one_turn, until

DEADLINE = 20.0  # seconds for whatever a test waits for


def run(what: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(what, DEADLINE))


class Steps:
    """Counts how often the lease was asked to step again."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


def opened() -> tuple[JobInput, Steps]:
    steps = Steps()
    given = JobInput(steps)
    given.held = False
    return given, steps


def take(given: JobInput, size: int) -> bytes | None:
    view = bytearray(size)
    taken = given.source().read_into(memoryview(view))
    return None if taken is None else bytes(view[:taken])


# what the program reads


def test_a_write_returns_when_everything_has_been_taken() -> None:
    async def scene() -> None:
        given, steps = opened()
        writing = asyncio.create_task(given.write([b"abc", memoryview(b"def"), bytearray(b"g")]))
        await until(lambda: steps.count)
        assert take(given, 5) == b"abcde"
        await one_turn()
        assert not writing.done()
        assert take(given, 5) == b"fg"
        await writing
        assert (given.given, take(given, 5)) == (7, None)

    run(scene())


def test_nothing_leaves_before_the_program_has_begun() -> None:
    async def scene() -> None:
        given = JobInput(Steps())
        source = given.source()
        writing = asyncio.create_task(given.write(b"abc"))
        await one_turn()
        assert source.idle and take(given, 5) is None
        given.held = False
        assert not source.idle and take(given, 5) == b"abc"
        await writing
        assert source.idle

    run(scene())


def test_the_end_comes_behind_the_bytes() -> None:
    async def scene() -> None:
        given, steps = opened()
        writing = asyncio.create_task(given.write(b"abc"))
        await one_turn()
        given.close()
        given.close()
        assert given.closed and steps.count == 2
        assert (take(given, 5), take(given, 5)) == (b"abc", b"")
        await writing
        with pytest.raises(ValueError, match="has been closed"):
            await given.write(b"more")

    run(scene())


def test_a_write_that_is_cancelled_has_written_and_leaves_the_buffer_to_its_owner() -> None:
    async def scene() -> None:
        given, _ = opened()
        data = bytearray(b"abcdef")
        writing = asyncio.create_task(given.write(data))
        await one_turn()
        assert take(given, 2) == b"ab"
        writing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await writing
        data[:] = b"??????"
        data += b"?"  # `BufferError` if somebody still looked at it
        assert take(given, 9) == b"cdef"

    run(scene())


def test_writers_wait_for_their_own_bytes() -> None:
    async def scene() -> None:
        given, _ = opened()
        first, second = asyncio.create_task(given.write(b"ab")), asyncio.create_task(given.write(b"cd"))
        await one_turn()
        assert take(given, 2) == b"ab"
        await first
        assert not second.done()
        assert take(given, 2) == b"cd"
        await second

    run(scene())


def test_writers_are_told_when_nobody_reads_any_more() -> None:
    async def scene() -> None:
        given, _ = opened()
        writing = asyncio.create_task(given.write(b"abc"))
        await one_turn()
        given.source().abandon()
        with pytest.raises(BrokenPipeError, match="reads no more"):
            await writing
        with pytest.raises(BrokenPipeError):
            await given.write(b"more")
        assert given.closed and take(given, 5) is None

    run(scene())


def test_short_pieces_need_no_large_buffer() -> None:
    async def scene() -> None:
        given, _ = opened()
        source = given.source()
        assert source.few
        writing = asyncio.create_task(given.write(bytes(FEW)))
        await one_turn()
        assert source.few
        more = asyncio.create_task(given.write(b"x"))
        await one_turn()
        assert not source.few  # several pieces make one record
        assert take(given, 2 * FEW) == bytes(FEW) + b"x"
        await asyncio.gather(writing, more)

    run(scene())


# what the program writes


def test_no_more_than_the_limit_is_kept_and_room_is_told() -> None:
    async def scene() -> None:
        steps = Steps()
        output = JobOutput(steps)
        sink = output.sink()
        assert sink.write(memoryview(bytes(LIMIT - 1))) == LIMIT - 1
        assert sink.write(memoryview(b"abc")) == 1
        assert sink.write(memoryview(b"bc")) == 0
        assert steps.count == 0
        assert len(await anext(output)) == LIMIT - 1
        assert (steps.count, output.taken) == (1, LIMIT - 1)
        assert sink.write(memoryview(b"bc")) == 2
        sink.close()
        assert await output.read() == b"abc"
        assert steps.count == 1  # it was not full

    run(scene())


def test_after_the_exit_frame_the_rest_is_taken_at_once() -> None:
    output = JobOutput(Steps())
    sink = output.sink()
    job = StreamedLeaseJob(streams=[CommonStream(1, WRITES)], sources={}, sinks={1: sink})
    assert sink.write(memoryview(bytes(2 * LIMIT))) == LIMIT
    job.take_rest()
    assert sink.write(memoryview(bytes(LIMIT))) == LIMIT
    job.close()


def test_short_chunks_are_joined_while_they_wait() -> None:
    async def scene() -> None:
        output = JobOutput(Steps())
        sink = output.sink()
        for _ in range(1000):
            sink.write(memoryview(b"ab"))
        assert await anext(output) == b"ab" * 1000
        sink.write(memoryview(bytes(10_000)))
        sink.write(memoryview(b"ab"))
        assert [len(await anext(output)), len(await anext(output))] == [10_000, 2]

    run(scene())


def test_ways_to_read() -> None:
    async def scene() -> None:
        output = JobOutput(Steps())
        sink = output.sink()
        sink.write(memoryview(b"abcdef"))
        assert (await output.read(0), await output.read(4), output.taken) == (b"", b"abcd", 4)
        reading = asyncio.create_task(output.readexactly(4))
        await one_turn()
        sink.write(memoryview(b"ghijk"))
        assert await reading == b"efgh"
        sink.close()
        with pytest.raises(asyncio.IncompleteReadError) as caught:
            await output.readexactly(10)
        assert caught.value.partial == b"ijk"
        assert (await output.read(5), await output.read()) == (b"", b"")

    run(scene())


def test_two_readers_of_one_output_are_refused() -> None:
    async def scene() -> None:
        output = JobOutput(Steps())
        reading = asyncio.create_task(output.read(1))
        await one_turn()
        with pytest.raises(RuntimeError, match="another task"):
            await output.read(1)
        output.end()
        assert await reading == b""

    run(scene())


def test_an_attempt_that_ends_does_not_end_its_outputs() -> None:
    async def scene() -> None:
        output, given = JobOutput(Steps()), JobInput(Steps())
        lost = output.sink()
        lost.write(memoryview(b"half"))
        job = StreamedLeaseJob(
            streams=[CommonStream(0, READS), CommonStream(1, WRITES)], sources={0: given.source()}, sinks={1: lost}
        )
        assert job.whole_inputs() is None  # it needs the connection
        job.close()
        assert not given.closed and not output.seen
        output.clear()
        again = output.sink()
        assert lost.write(memoryview(b"late")) == 4
        again.write(memoryview(b"whole"))
        again.close()
        assert await output.read() == b"whole"
        assert output.seen

    run(scene())


def test_an_output_that_is_cut_off_raises_the_error_of_its_job() -> None:
    async def scene() -> None:
        output = JobOutput(Steps())
        output.sink().write(memoryview(b"half"))
        output.end(OSError("lost"))
        assert await anext(output) == b"half"
        with pytest.raises(OSError, match="lost"):
            await anext(output)

    run(scene())


def test_the_end_alone_counts_as_seen() -> None:
    async def scene() -> None:
        output = JobOutput(Steps())
        output.sink().close()
        assert not output.seen
        assert await output.read() == b""
        assert (output.taken, output.seen) == (0, True)

    run(scene())
