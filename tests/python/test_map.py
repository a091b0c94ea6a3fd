"""`map` on a real service, by both clients: order, errors, inputs as they come, and how much is in hand."""

from __future__ import annotations

import asyncio
import subprocess
import threading
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cexec.client.aio.lease import Lease
from cexec.client.aio.lease_job import LeaseJob
from cexec.errors import JobCancelledError, UsageError
from cexec.python.async_client import AsyncClient
from cexec.python.in_flight import LEAST_WINDOW
from cexec.python.sync_client import Client
from tests.python.clients import run
from tests.service import Application, Service
from tests.waiting import PATIENCE, until, wait_until

Map = Callable[..., list[Any]]
WINDOW = 2 * LEAST_WINDOW  # jobs in hand with few workers, at most


@pytest.fixture(params=["AsyncClient", "Client"])
def call(request: pytest.FixtureRequest, key: Path) -> Map:
    """Calls `map` of either client; returns what it has yielded."""

    def call(*arguments: Any, **keywords: Any) -> list[Any]:
        if request.param == "Client":
            with Client(key) as client:
                return list(client.map(*arguments, **keywords))

        async def scene() -> list[Any]:
            async with AsyncClient(key) as client:
                return [one async for one in client.map(*arguments, **keywords)]

        return run(scene())

    return call


def numbers(count: int) -> Iterator[bytes]:
    return (b"%d" % number for number in range(count))


def test_results_come_in_the_order_of_the_inputs(call: Map) -> None:
    script = "read n; test $((n % 7)) = 0 && sleep 0.1; echo $n"
    results = call(numbers(140), args=[script])
    assert [one.stdout for one in results] == [b"%d\n" % number for number in range(140)]
    assert {one.returncode for one in results} == {0}


def test_or_as_they_end(call: Map, tmp_path: Path) -> None:
    """The first one ends when eight others have run."""
    wait = f"until test $(ls {tmp_path} | wc -l) -gt 8; do sleep 0.05; done"
    script = f"read n; touch {tmp_path}/$n; test $n != 0 || {wait}; echo $n"
    results = [int(one.stdout) for one in call(numbers(20), args=[script], ordered=False)]
    assert sorted(results) == list(range(20))
    assert results[0] != 0


def test_no_inputs(call: Map) -> None:
    assert call([], args=["true"]) == []


def test_dicts_are_keywords_of_run(call: Map, tmp_path: Path) -> None:
    inputs: list[Any] = [
        b"one",
        {"input": b"two"},
        {"args": ["echo $PEER_A"], "env": {"A": "three"}},
        {"args": ["cat f > g"], "files": {"f": b"four"}, "fetch": ["g"]},
        {"args": ["echo five > g"], "fetch": {"g": tmp_path / "five"}, "on": "nobody-else", "weight": 2},
        {"input": "six", "text": True},
    ]
    inputs[4].pop("on")
    results = call(inputs, args=["cat"])
    assert [one.stdout for one in results] == [b"one", b"two", b"three\n", b"", b"", "six"]
    assert results[3].files == {"g": b"four"} and (tmp_path / "five").read_bytes() == b"five\n"


def test_an_error_ends_the_map_or_is_a_result(call: Map) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        call(numbers(100), args=["read n; test $n != 50"], check=True)
    results = call(
        [b"1", "text", b"2", {"args": "one"}, b"3"], args=["read n; exit $n"], return_exceptions=True, check=True
    )
    kinds = [type(one) for one in results]
    failed = subprocess.CalledProcessError
    assert kinds == [failed, UsageError, failed, UsageError, failed]
    assert [one.returncode for one in results if isinstance(one, failed)] == [1, 2, 3]


def test_an_error_of_the_inputs_ends_the_map(call: Map) -> None:
    def inputs() -> Iterator[bytes]:
        yield b"1"
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        call(inputs(), args=["cat"])


def test_timeouts_count_from_the_begin_of_each_program(call: Map) -> None:
    """The last ones end later than their timeout after they were submitted."""
    results = call([b"1.1"] * 16 + [b"60"], args=["read n; sleep $n"], timeout=4.0, return_exceptions=True)
    assert [getattr(one, "returncode", None) for one in results[:-1]] == [0] * 16
    assert isinstance(results[-1], subprocess.TimeoutExpired)


def test_wrong_keywords_are_told_at_once(call: Map, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a single text"):
        call([], args="x")
    with pytest.raises(UsageError, match="give each input its own"):
        call([], fetch={"a": tmp_path / "a"})


def test_no_more_inputs_are_taken_than_are_in_hand(key: Path) -> None:
    """However many there are: a generator that never ends is an input."""
    taken = [0]

    def inputs() -> Iterator[bytes]:
        while True:
            taken[0] += 1
            yield b""

    with Client(key) as client:
        results = client.map(inputs(), args=["true"])
        for yielded in range(1, 200):
            next(results)
            assert taken[0] <= yielded + WINDOW
        results.close()  # type: ignore[attr-defined]

    async def scene() -> None:
        taken[0] = yielded = 0
        async with AsyncClient(key) as client:
            async for _ in client.map(inputs(), args=["true"]):
                yielded += 1
                assert taken[0] <= yielded + WINDOW
                if yielded == 200:
                    break

    run(scene())


def test_memory_does_not_grow_with_the_number_of_inputs(key: Path) -> None:
    size = 20_000  # bytes
    with Client(key) as client:
        results = client.map((bytes(size) for _ in range(5 * LEAST_WINDOW)), args=["cat"])
        for _ in range(2 * LEAST_WINDOW):
            next(results)
        tracemalloc.start()
        try:
            for one in results:
                assert len(one.stdout) == size
            grown, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert grown < LEAST_WINDOW * size  # the results that were looked at have three times as much


def test_jobs_begin_while_further_inputs_are_waited_for(key: Path, tmp_path: Path) -> None:
    answered, marker = threading.Event(), tmp_path / "marker"

    def inputs() -> Iterator[bytes]:
        yield b"1"
        assert answered.wait(PATIENCE)
        yield b"2"

    with Client(key) as client:
        seen = []

        def work() -> None:
            for one in client.map(inputs(), args=[f"touch {marker}; cat"]):
                seen.append(one.stdout)

        thread = threading.Thread(target=work)
        thread.start()
        wait_until(marker.exists)  # the program has run, although there is no second input
        answered.set()
        thread.join(60)
        assert seen == [b"1", b"2"]

    async def scene() -> None:
        came: list[bytes] = []
        go_on = asyncio.Event()

        async def later() -> AsyncIterator[bytes]:
            yield b"1"
            await go_on.wait()
            yield b"2"

        async with AsyncClient(key) as client:

            async def work() -> None:
                async for one in client.map(later(), args=["cat"]):
                    came.append(one.stdout)

            working = asyncio.create_task(work())
            await until(lambda: came == [b"1"])
            go_on.set()
            await working
            assert came == [b"1", b"2"]

    run(scene())


def test_a_map_that_is_left_ends_its_jobs(key: Path, worker: tuple[Application, Service]) -> None:
    with Client(key) as client:
        results = client.map([b"0"] + [b"1234"] * 10, args=["read n; sleep $n"])
        assert next(results).returncode == 0
        results.close()  # type: ignore[attr-defined]
        wait_until(lambda: not worker[1].started())

        def close() -> None:
            wait_until(worker[1].started)
            client.close()

        closing = client.map([b"1234"], args=["read n; sleep $n"])
        waiting = threading.Thread(target=close)
        waiting.start()
        with pytest.raises(JobCancelledError, match="client has been closed"):
            next(closing)
        waiting.join()
    wait_until(lambda: not worker[1].started())


def test_short_jobs_are_given_in_advance_and_long_ones_are_not(key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = [0]
    give_ahead = Lease.give_ahead

    def counted(lease: Lease, job: LeaseJob, attempt: int) -> bool:
        given[0] += 1
        return give_ahead(lease, job, attempt)

    monkeypatch.setattr(Lease, "give_ahead", counted)
    with Client(key) as client:
        assert len(list(client.map(numbers(200), args=["true"]))) == 200
        assert given[0] > 50
        given[0] = 0
        assert len(list(client.map([b""] * 8, args=["sleep 3"], weight=2))) == 8  # however late we hear of a start
        assert given[0] == 0


def test_workers_that_are_killed_while_a_map_runs_change_no_result(call: Map, tmp_path: Path) -> None:
    crash = f"touch {tmp_path}/$n; kill -9 $PPID; sleep 60"
    script = f"read n; test $((n % 20)) = 3 -a ! -e {tmp_path}/$n && {{ {crash}; }}; echo $n"
    results = call(numbers(100), args=[script])
    assert [one.stdout for one in results] == [b"%d\n" % number for number in range(100)]
    assert [number for number, one in enumerate(results) if one.attempts > 1 and number % 20 == 3] == [
        3,
        23,
        43,
        63,
        83,
    ]
