"""Streams on a fake server: they end when their reader has gone, and never keep the event loop for themselves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from cexec.gate import http
from cexec.gate.access.guarded_answer import ABORT
from cexec.gate.http.protocol import TRAILERS
from cexec.gate.http.stream_answers import CutOff, StreamAnswer


class FakeServer:
    """As uvicorn: `send` returns at once, also when the client has gone, and `receive` tells that."""

    def __init__(self, *, trailers: bool = True) -> None:
        self.sent: list[dict[str, Any]] = []
        self.gone = asyncio.Event()
        self.aborted = False
        extensions: dict[str, Any] = {ABORT: self.abort}
        if trailers:
            extensions[TRAILERS] = {}
        self.scope: dict[str, Any] = {"type": "http", "method": "GET", "extensions": extensions}

    def abort(self) -> None:
        self.aborted = True

    async def receive(self) -> dict[str, Any]:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        if not self.gone.is_set():
            self.sent.append(message)

    @property
    def body(self) -> bytes:
        return b"".join(one.get("body", b"") for one in self.sent)


async def endless(log: list[int]) -> AsyncIterator[bytes]:
    """A source that always has bytes, and never waits."""
    while True:
        log.append(1)
        yield b"x"


def run(what: Any) -> None:
    asyncio.run(asyncio.wait_for(what, 30))


def test_a_reader_that_has_gone_ends_an_endless_stream() -> None:
    """Regression: uvicorn's `send` returns silently after a disconnect, and nothing else would ever run."""

    async def scene() -> None:
        server, taken = FakeServer(), []  # type: FakeServer, list[int]
        answer = asyncio.create_task(StreamAnswer(endless(taken))(server.scope, server.receive, server.send))
        while len(taken) < 10:
            await asyncio.sleep(0)  # the loop runs between two pieces
        server.gone.set()
        await answer
        before = len(taken)
        await asyncio.sleep(0)
        assert len(taken) == before < 100

    run(scene())


def test_others_have_their_turn_beside_it() -> None:
    async def scene() -> None:
        server, taken = FakeServer(), []  # type: FakeServer, list[int]
        answer = asyncio.create_task(StreamAnswer(endless(taken))(server.scope, server.receive, server.send))
        turns = 0
        for _ in range(50):
            before = len(taken)
            await asyncio.sleep(0)
            turns += len(taken) - before
        assert turns <= 60
        answer.cancel()
        with pytest.raises(asyncio.CancelledError):
            await answer

    run(scene())


async def pieces(*parts: bytes, error: Exception | None = None) -> AsyncIterator[bytes]:
    for part in parts:
        yield part
    if error is not None:
        raise error


async def told() -> dict[str, str]:
    return {"Cexec-State": "succeeded"}


@pytest.mark.parametrize("trailers", [True, False])
def test_a_whole_answer_and_its_trailers(trailers: bool) -> None:
    async def scene() -> None:
        server = FakeServer(trailers=trailers)
        answer = StreamAnswer(pieces(b"one ", b"two"), trailers=told)
        await answer(server.scope, server.receive, server.send)
        assert server.body == b"one two" and not server.aborted
        kinds = [one["type"].rpartition(".")[2] for one in server.sent]
        assert kinds == ["start", "body", "body", "body", *(["trailers"] if trailers else [])]
        if trailers:
            assert server.sent[-1]["headers"] == [(b"cexec-state", b"succeeded")]

    run(scene())


def test_an_answer_that_is_cut_off_has_no_end() -> None:
    async def scene() -> None:
        server = FakeServer()
        answer = StreamAnswer(pieces(b"one", error=CutOff("no more")), trailers=told)
        await answer(server.scope, server.receive, server.send)
        assert server.aborted and server.body == b"one"
        assert all(one.get("more_body", True) for one in server.sent)
        other = FakeServer()
        del other.scope["extensions"]
        with pytest.raises(CutOff):  # another server has to hang up by itself
            await StreamAnswer(pieces(b"one", error=CutOff("no more")))(other.scope, other.receive, other.send)

    run(scene())


def test_an_error_of_the_source_comes_out() -> None:
    async def scene() -> None:
        server = FakeServer()
        with pytest.raises(ZeroDivisionError):
            await StreamAnswer(pieces(b"one", error=ZeroDivisionError()))(server.scope, server.receive, server.send)

    run(scene())


def test_nothing_of_starlette_stands_between_an_answer_and_its_reader() -> None:
    """Its `BaseHTTPMiddleware` has a queue of its own: a stream does not notice that its reader has gone."""
    sources = [path.read_text() for path in Path(http.__path__[0]).parent.rglob("*.py")]
    assert len(sources) > 50 and not [text for text in sources if "starlette.middleware" in text]
