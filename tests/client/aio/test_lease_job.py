"""The job that a lease runs, and what of it can be given to a worker in advance."""

from __future__ import annotations

import os
from typing import Any

from cexec.client.aio.lease_job import JOB_IDS, LARGEST_AHEAD, STANDARD_STREAMS, LeaseJob
from cexec.protocol.base.limits import IDENTITY_SIZE
from cexec.protocol.connection.frames import Go, Stream
from cexec.protocol.connection.options import FILE, LEASE, READS, TELL_WANTED, WRITES, YES
from cexec.system.io.fds import Sink, Source


class Known(Source):
    """A source whose bytes are in memory."""

    def __init__(self, data: bytes) -> None:
        super().__init__(-1)
        self._data = data
        self.closed = False

    def whole(self, most: int) -> bytes | None:
        return self._data if len(self._data) <= most else None

    def close(self) -> None:
        self.closed = True


def job(*sources: Source) -> LeaseJob:
    streams = [Stream(number, READS) for number in range(len(sources))]
    return LeaseJob(
        streams=[*streams, Stream(9, WRITES)], sources=dict(enumerate(sources)), sinks={9: Sink(-1)},
        arguments=[b"x"], options={"nice": "3"},
    )  # fmt: skip


def test_only_a_job_that_another_may_follow_says_so() -> None:
    made = job(Known(b""))
    go, last = made.go(2), made.go(lease=False)
    assert (go.job_id, go.attempt, go.arguments, [s.number for s in go.streams]) == (made.job_id, 2, [b"x"], [0, 9])
    assert go.options == {"nice": "3", LEASE: YES}
    assert last.options == made.options == {"nice": "3"}


def test_a_job_asks_to_hear_that_its_slot_is_wanted_only_if_it_is_told_to() -> None:
    made = job(Known(b""))
    assert made.go(tell_wanted=True).options == {"nice": "3", LEASE: YES, TELL_WANTED: YES}
    assert made.go(lease=False, tell_wanted=True).options == {"nice": "3", TELL_WANTED: YES}
    assert TELL_WANTED not in made.go().options


def test_the_bytes_of_a_lease_s_go_are_those_of_any_go() -> None:
    file = Stream(256, READS, FILE, name="data")
    others: list[dict[str, Any]] = [
        {},
        {"arguments": [b"a", b""]},
        {"arguments": [b"a"], "environment": {"A": b"1"}},
        {"environment": {"A": b"2"}, "options": {"nice": "3"}},
        {"options": {"nice": "4"}, "streams": [*STANDARD_STREAMS, file]},
        {"streams": [file]},
    ]
    for content in [*others, *others]:
        made = LeaseJob(**{"streams": [*STANDARD_STREAMS], "sources": {}, "sinks": {}, **content})
        for attempt in (1, 300):
            go = made.go(attempt)
            named = {name: getattr(go, name) for name in Go.__slots__}
            assert go.encode() == Go(**named).encode()
            assert Go.decode(go.encode()).attempt == attempt


def test_each_job_has_a_name_of_its_own() -> None:
    names = [job().job_id for _ in range(3 * JOB_IDS)]
    assert len(set(names)) == len(names)
    assert {len(name) for name in names} == {IDENTITY_SIZE}


def test_a_child_after_fork_gives_its_jobs_other_names() -> None:
    job()  # so that some names are left
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.write(writing, job().job_id)
        os._exit(0)
    os.waitpid(child, 0)
    named = os.read(reading, IDENTITY_SIZE)
    os.close(reading)
    os.close(writing)
    assert len(named) == IDENTITY_SIZE
    assert named not in {job().job_id for _ in range(JOB_IDS)}


def test_inputs_are_whole_if_all_are_in_memory_and_together_not_too_much() -> None:
    half = bytes(LARGEST_AHEAD // 2)
    assert job(Known(half), Known(half)).whole_inputs() == {0: half, 1: half}
    assert job(Known(half), Known(half + b"x")).whole_inputs() is None
    assert job(Known(b""), Source(-1)).whole_inputs() is None  # nobody knows what will come
    assert job().whole_inputs() == {}


def test_a_job_closes_all_that_it_has() -> None:
    source = Known(b"")
    job(source).close()
    assert source.closed
