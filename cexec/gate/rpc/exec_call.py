"""Exec: a job whose streams the caller has in hand.

Contract: `run_exec` reads the first message, starts the job, and moves bytes both ways until the job is over.  Whoever
is slow keeps the other side waiting: no message is read before the program has taken the last one, and the program
waits for a caller who does not read.  A job that is not over when the call ends is cancelled.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import grpc

from cexec.gate.jobs.desk import signal_number
from cexec.gate.jobs.pipe import CHUNK, OutputReader, start_pipe
from cexec.gate.problem import Problem
from cexec.gate.rpc.job_messages import job_message, request_of
from cexec.gate.rpc.status_codes import FieldProblems
from cexec.gate.rpc.wire import cexec_pb2 as wire
from cexec.gate.store.job_records import JobState

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from cexec.gate.access.caller import Caller
    from cexec.gate.jobs.engine import Engine
    from cexec.gate.jobs.live_job import LiveJob
    from cexec.gate.rpc.status_codes import Context

    Tell = Callable[[wire.ExecResponse], Awaitable[None]]

FIRST_PATIENCE = 30.0  # seconds (ours) for the first message


async def run_exec(engine: Engine, caller: Caller, app: str, context: Context, told: list[str]) -> None:
    """Runs one conversation.  `app`: the application if the caller names none."""
    start = await _first(context)
    live = await start_pipe(engine, caller, request_of(start, app, streamed=True))
    told.append(f"job {live.record.id} started")
    lock = asyncio.Lock()  # gRPC takes one message at a time

    async def tell(message: wire.ExecResponse) -> None:
        async with lock:
            await context.write(message)

    tasks = [
        asyncio.ensure_future(_tell_start(live, tell)),
        asyncio.ensure_future(_send(live, 1, tell)),
        asyncio.ensure_future(_send(live, 2, tell)),
    ]
    listening = asyncio.ensure_future(_listen(live, start.stdin, context))
    try:
        await _until_over(live, tasks, listening)
    finally:
        if not live.latest.over:
            engine.cancel(live, reason="the caller of Exec has gone")
        for task in (*tasks, listening):
            task.cancel()
        await asyncio.gather(*tasks, listening, return_exceptions=True)
    await tell(wire.ExecResponse(exit=job_message(live.record)))


async def _first(context: Context) -> wire.StartJobRequest:
    try:
        message = await asyncio.wait_for(context.read(), FIRST_PATIENCE)
    except TimeoutError:
        raise Problem(400, f"the first message has not come within {FIRST_PATIENCE:g} seconds") from None
    if message is grpc.aio.EOF or message.WhichOneof("message") != "start":
        raise FieldProblems({"start": "is missing: it has to be the first message"})
    found: wire.StartJobRequest = message.start
    return found


async def _until_over(live: LiveJob, tasks: Sequence[asyncio.Future[None]], listening: asyncio.Future[None]) -> None:
    """Returns when the job is over and all outputs were sent; raises what a task has raised."""
    over = asyncio.ensure_future(live.wait())
    try:
        waiting: set[asyncio.Future[object]] = {*tasks, listening, over}  # type: ignore[arg-type]
        while not (over.done() and all(task.done() for task in tasks)):
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
    finally:
        over.cancel()


async def _tell_start(live: LiveJob, tell: Tell) -> None:
    while live.record.state == JobState.QUEUED:
        await live.changed(None)
    if live.record.started is not None:
        await tell(wire.ExecResponse(started=job_message(live.record)))


async def _send(live: LiveJob, stream: int, tell: Tell) -> None:
    with OutputReader(live, stream) as reader:
        while chunk := await reader.next(CHUNK):
            await tell(wire.ExecResponse(stdout=chunk) if stream == 1 else wire.ExecResponse(stderr=chunk))


async def _listen(live: LiveJob, first: bytes, context: Context) -> None:
    """Writes the input and sends signals; the end of the caller's messages is the end of the input, too."""
    with live.take_input(None) as writer:
        open_still = await _write(writer.write, first) if first else True
        while (message := await context.read()) is not grpc.aio.EOF:
            kind = message.WhichOneof("message")
            if kind == "stdin":
                open_still = open_still and await _write(writer.write, message.stdin)
            elif kind == "stdin_end":
                writer.close()
                open_still = False
            elif kind == "signal":
                live.errand.send(signal_number(message.signal))
            else:
                raise FieldProblems({kind or "message": "is not what follows a start: stdin, stdin_end or signal is"})
        writer.close()


async def _write(write: Callable[[bytes], Awaitable[None]], data: bytes) -> bool:
    """Returns False if the program reads no more: the rest is dropped, as in a pipe whose writer ignores SIGPIPE."""
    try:
        await write(data)
    except BrokenPipeError:
        return False
    return True
